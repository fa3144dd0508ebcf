"""What a model is measured by is what its own functions say, position by position; and every mode of inference."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from scipy import stats
from transformers import AutoTokenizer

from headtool.causal import evaluate, inference, metrics, synthetic, tokens
from headtool.causal.model import CausalModel, Individual
from headtool.causal.rows import Rows
from headtool.causal.settings import Asked, Settings
from headtool.errors import HeadtoolError
from headtool.models import language
from headtool.models.locate import locate
from headtool.tasks.example import Example


@pytest.fixture(scope="module")
def reader():
    return tokens.reserve(AutoTokenizer.from_pretrained(locate("demo").folder))[0]


def made(reader, **settings):
    """The demo decoder as a causal model whose scales differ from place to place."""
    backbone = language.open_language_model(locate("demo")).model
    language.add_row(backbone, reader.num, tokens.digits(reader.tokenizer))
    model = CausalModel(backbone, Settings(gamma0=0.3, **settings), reader.num)
    torch.manual_seed(3)
    with torch.no_grad():
        if not model.settings.plain:
            torch.nn.init.normal_(model.scale.weight, std=0.1)
        torch.nn.init.normal_(model.regression.weight, std=1.0)
        model.bias[reader.num] += 12.0  # so that a number is the answer here and there
    return model.eval()


@pytest.fixture(scope="module")
def rows(reader):
    texts = ["The 2 dogs are 7", "Choose the fruit: 3.5 and more words 1e3 to read", "none here at all"]
    return Rows([Example(text) for text in texts], reader, 64, 0)


@pytest.mark.parametrize(
    "settings", [{}, {"distribution": "normal"}, {"head": "softmax"}, {"threshold": 0.7, "gate_alpha": 0.4}]
)
def test_what_is_seen_is_the_models_own_word(reader, rows, settings, monkeypatch):
    model = made(reader, **settings)
    whole = evaluate.look(model, rows)
    monkeypatch.setattr(evaluate, "SCORES", 3 * 600)  # a few positions at a time
    monkeypatch.setattr(evaluate, "TOKENS", 8)
    parts = evaluate.look(model, rows)
    with torch.no_grad():
        told = model(**rows.inputs(np.arange(3)))
    for seen in (whole, parts):
        assert seen.loss_cls == pytest.approx(told["loss_cls"].item(), rel=1e-5)
        assert seen.loss_reg == pytest.approx(told["loss_reg"].item(), rel=1e-4)
        assert seen.value.tolist() == [2.0, 7.0, 3.5, 1000.0]
        np.testing.assert_allclose(seen.median, whole.median, rtol=1e-4)
        np.testing.assert_allclose(seen.scale, whole.scale, rtol=1e-4)
    for number, example in enumerate(whole.example):
        given = rows.inputs([example])
        at = whole.position[number] - 1
        with torch.no_grad():
            z = model.features(given["input_ids"], given["attention_mask"], given["values"])
            individual = model.abduct(z[0, at : at + 1])
            loc, spread = model.value(individual)
        assert whole.median[number] == pytest.approx(loc.item(), rel=1e-4)
        assert whole.scale[number] == pytest.approx(model.law.scale(spread).item(), rel=1e-4)
        density = stats.cauchy if model.settings.distribution == "cauchy" else stats.norm
        assert whole.nll[number] == pytest.approx(
            -density.logpdf(whole.value[number], loc.item(), whole.scale[number]), rel=1e-4
        )
    found = evaluate.measure(model, whole, None)
    assert found["loss"] == pytest.approx(found["loss_cls"] + found["loss_reg"])
    assert all(value is None or np.isfinite(value) for value in found.values())
    assert {f"accuracy_{rule}" for rule in ("ovr", "softmax")} < set(found)
    assert found["numbers"] == 4


def test_true_positives_are_the_numbers_that_were_answered(reader, rows):
    model = made(reader)
    seen = evaluate.look(model, rows)
    some = dataclasses.replace(seen, answered=np.array([True, False, True, False]))
    found = evaluate.measure(model, some, None)
    expected = metrics.errors(seen.value[[0, 2]], seen.median[[0, 2]])
    assert {name: found[f"{name}_tp"] for name in expected} == expected
    none = evaluate.measure(model, dataclasses.replace(seen, answered=np.zeros(4, bool)), None)
    assert none["mae_tp"] is None
    assert none["numbers_tp"] == 0


def test_the_plain_baseline_takes_its_intervals_from_training_errors(reader, rows):
    model = made(reader, plain=True, head="softmax", gate_alpha=1.0)
    seen = evaluate.look(model, rows)
    assert seen.scale is None
    assert set(seen.answer) == {"softmax"}
    low, high = evaluate.ends(model, seen, np.array([1.0, 2.0, 3.0]))
    np.testing.assert_allclose(high[0.5] - low[0.5], 4.0)
    point, (low, high) = evaluate.always(np.arange(101.0), 2)
    assert point.tolist() == [50, 50]
    assert (low[0.5][0], high[0.5][0]) == (25, 75)


# -- inference ----------------------------------------------------------------------------------------------------------


def go(model, reader, text="Choose the 3 fruits: 7", **asked):
    from headtool.causal import numbers

    return inference.go_on(
        model, reader, numbers.split(text), Asked(**asked), longest=256, end=reader.tokenizer.eos_token_id
    )


def state(model, reader, text="Choose the 3 fruits: 7"):
    ids, values = reader.encode(text)
    with torch.no_grad():
        given = torch.tensor([ids])
        return model.abduct(model.features(given, torch.ones_like(given), torch.tensor([values]))[0, -1:])


def test_standard_is_the_largest_p_and_the_median(reader):
    model = made(reader)
    (step,), text = go(model, reader)
    individual = state(model, reader)
    loc, spread = model.scores(individual)
    p = model.law.probability(loc, spread)[0]
    assert step.token == int(p.argmax())
    assert step.p == pytest.approx(p.max().item(), rel=1e-5)
    (number,), text = go(model, reader, number=True, interval=0.8)
    loc_y, spread_y = model.value(individual)
    assert number.value == pytest.approx(loc_y.item(), rel=1e-5)
    assert number.high - number.value == pytest.approx(np.tan(0.4 * np.pi) * spread_y.item(), rel=1e-4)
    assert float(text) == number.value  # shortest string of the same float64


def test_a_softmax_head_answers_by_its_softmax(reader):
    model = made(reader, head="softmax")
    (step,), _ = go(model, reader)
    loc, _ = model.scores(state(model, reader))
    assert step.token == int(loc.argmax())
    assert step.p == pytest.approx(loc.softmax(-1).max().item(), rel=1e-5)


def test_compatible_samples_the_kept_tokens_as_often_as_their_softmax_says():
    g = torch.Generator().manual_seed(0)
    logits = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, -30.0], dtype=torch.float64)
    ask = Asked(top_k=4, top_p=0.85)
    p = logits.softmax(0)
    kept = {0, 1, 2}  # 0.53 + 0.20 < 0.85 <= with the third
    drawn = [inference.sample(logits, ask, g) for _ in range(4000)]
    assert {token for token, _ in drawn} == kept
    for token in kept:
        expected = (p[token] / p[:3].sum()).item()
        assert all(q == pytest.approx(expected) for t, q in drawn if t == token)
        assert abs(sum(t == token for t, _ in drawn) / 4000 - expected) < 4 * (expected * (1 - expected) / 4000) ** 0.5
    assert {inference.sample(logits, Asked(top_k=1), g)[0] for _ in range(20)} == {0}


def test_causal_draws_the_individual_whose_law_is_said(reader):
    """u over 4,000 seeds has the quantiles of Cauchy(loc, scale), and the number that acts on it those of loc_Y, scale_Y."""
    model = made(reader).requires_grad_(False)
    individual = state(model, reader)
    wide = Individual(individual.loc.double(), individual.spread.double())
    draws = [inference.Draw(model, Asked("causal", seed=seed)).act(wide) for seed in range(4000)]
    u = torch.cat([drawn.loc for drawn in draws])
    own = individual.spread - model.noise.abs()
    standard = ((u - individual.loc) / own).numpy()
    for dimension in (0, 31):
        assert stats.kstest(standard[:, dimension], "cauchy").pvalue > 1e-3
    weight = model.regression.weight[0].double()
    numbers = (u @ weight).numpy()
    scale = float((own.double() @ weight.abs()).sum())
    centre = float((individual.loc.double() @ weight).sum())
    assert stats.kstest((numbers - centre) / scale, "cauchy").pvalue > 1e-3
    torch.testing.assert_close(draws[0].spread[0].float(), model.noise.abs())


def test_causal_without_noise_is_the_limit(reader):
    model = made(reader, b_noise=0.0)
    (step,), _ = go(model, reader, mode="causal", seed=5)
    drawn = inference.Draw(model, Asked("causal", seed=5)).act(state(model, reader))
    assert not drawn.spread.any()
    loc, _ = model.scores(drawn)
    assert step.token == int(loc.argmax())
    assert step.p in (0.0, 1.0)


def test_shared_draws_are_one_for_the_whole_sequence(reader):
    model = made(reader)
    wide = Individual(*(t.double() for t in dataclasses.astuple(state(model, reader))))
    for shared in ("individual", "noise"):
        draw = inference.Draw(model, Asked("causal", shared=shared))
        one, other = draw.act(wide), draw.act(wide)
        assert torch.equal(one.loc, other.loc)
        if shared == "noise":
            torch.testing.assert_close(one.spread, wide.spread - model.noise.double().abs())
    apart = inference.Draw(model, Asked("causal"))
    assert not torch.equal(apart.act(wide).loc, apart.act(wide).loc)


@pytest.mark.parametrize(
    ("mode", "shared"),
    [("standard", "none"), ("compatible", "none"), *itertools.product(["causal"], ["none", "individual", "noise"])],
)
def test_every_mode_goes_on_and_repeats_itself(reader, mode, shared):
    model = made(reader)
    steps, text = go(model, reader, mode=mode, shared=shared, new_tokens=5)
    again, same = go(model, reader, mode=mode, shared=shared, new_tokens=5)
    assert (steps, text) == (again, same)
    assert 0 < len(steps) <= 5
    for step in steps:
        assert 0 <= step.p <= 1
        assert (step.value is None) == (step.token != reader.num)
        if step.value is not None:
            assert step.low < step.value < step.high


def test_texts_that_leave_no_room(reader):
    model = made(reader)
    with pytest.raises(HeadtoolError, match="room for 256"):
        go(model, reader, text="word " * 300)


# -- made data ----------------------------------------------------------------------------------------------------------


def test_made_rows_are_what_they_say():
    for text, value in ((e.text, e.label) for e in synthetic.rows("addition", 50, training=False)):
        a, b = text.removesuffix(" is").split(" plus ")
        assert int(a) + int(b) == value
    for example in synthetic.rows("copying", 50, training=False):
        assert float(example.text.split()[1]) == example.label
    extreme = [e.label for e in synthetic.rows("extreme_values", 500, training=False)]
    assert 1e-5 <= min(extreme) < 1e-3
    assert 1e3 < max(extreme) <= 1e5
    assert all(0 <= e.label <= 1 for e in synthetic.rows("boundary_values", 50, training=False))


@pytest.mark.parametrize("name", synthetic.SETS)
def test_made_rows_are_the_same_each_time_and_learnable_ones_are_held_out(name):
    train, test = (synthetic.rows(name, 300, training=training) for training in (True, False))
    assert train == synthetic.rows(name, 300, training=True)
    if synthetic.SETS[name].learnable:
        assert not {e.text for e in train} & {e.text for e in test}


def test_an_unknown_made_set_is_named():
    with pytest.raises(HeadtoolError, match="no made data set named 'additon'") as refused:
        synthetic.rows("additon", 1, training=True)
    assert "did you mean 'addition'?" in refused.value.hint
