"""The causal model: where it starts, what each loss is, what the variants change, that it is saved whole."""

from __future__ import annotations

import copy
import dataclasses
import math

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

import families
from headtool.causal import tokens
from headtool.causal.model import CausalModel, Individual
from headtool.causal.settings import Settings
from headtool.errors import HeadtoolError
from headtool.models import language, layout
from headtool.models.batches import IGNORED
from headtool.models.locate import locate

DECODERS = [name for name in families.ALL if layout.find(families.VARIANTS.get(name, (name,))[0]).causal]
NUM = 5


def backbone(name="llama", **settings):
    """A tiny random decoder with the library's own attention."""
    if settings:
        torch.manual_seed(0)
        config = AutoConfig.for_model(settings.pop("family", name), **(families.CONFIGS[name] | settings))
        return AutoModelForCausalLM.from_config(config).eval()
    model = copy.deepcopy(families.tiny(name).model)
    model.set_attn_implementation("eager")
    return model.requires_grad_(True).eval()


def model(name="llama", **settings):
    torch.manual_seed(1)
    return CausalModel(backbone(name), Settings(**settings), NUM)


def batch(seed=0, numbers=True):
    b = families.random_batch(families.tiny("llama"), seed=seed)
    ids = b.ids.clone()
    ids[ids == NUM] = 6
    values, targets = torch.zeros(ids.shape, dtype=torch.float64), torch.full(ids.shape, math.nan, dtype=torch.float64)
    labels = torch.full_like(ids, IGNORED)
    if numbers:
        ids[0, 4], values[0, 4] = NUM, 12.5
        ids[1, 3], values[1, 3] = NUM, -3.0
        targets[0, 3], targets[1, 2] = 12.5, -3.0
    for row, n in enumerate(b.mask.sum(1).tolist()):
        labels[row, : n - 1] = ids[row, 1:n]
    return {"input_ids": ids, "attention_mask": b.mask, "values": values, "labels": labels, "targets": targets}


def individual_of(made, given):
    z = made.features(given["input_ids"], given["attention_mask"], given["values"])
    valid = given["labels"] != IGNORED
    return made.abduct(z[valid]), given["labels"][valid], given["targets"][valid]


# -- where it starts ----------------------------------------------------------------------------------------------------


def same_logits(made, given):
    """softmax(loc_S) against the decoder's own softmax, before any final soft cap."""
    mask = given["attention_mask"].bool()
    z = made.features(given["input_ids"], given["attention_mask"], given["values"])
    loc, _ = made.scores(made.abduct(z[mask]))
    own = made.backbone(input_ids=given["input_ids"], attention_mask=given["attention_mask"]).logits[mask]
    if made.cap:
        loc = made.cap * torch.tanh(loc / made.cap)
    torch.testing.assert_close(loc.softmax(-1), own.softmax(-1), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", DECODERS)
def test_it_starts_as_the_decoder_it_is_made_from(name):
    same_logits(CausalModel(backbone(name), Settings(), NUM), batch())


@pytest.mark.parametrize(
    ("family", "settings", "factor"),
    [("granite", {"logits_scaling": 8.0}, 1 / 8), ("cohere", {"logit_scale": 0.0625}, 0.0625)],
)
def test_logit_scales_are_folded_in(family, settings, factor):
    made = CausalModel(backbone("llama", family=family, **settings), Settings(), NUM)
    assert made.factor == factor
    same_logits(made, batch())


def test_a_larger_individual_starts_there_too_and_a_smaller_one_as_near_as_it_can():
    given = batch()
    large, small = (CausalModel(backbone(), Settings(causal_dim=dim), NUM) for dim in (60, 47))
    same_logits(large, given)
    own = small.backbone.get_output_embeddings().weight
    error = torch.linalg.matrix_norm(small.weight @ small.loc.weight - own)
    assert error.item() == pytest.approx(torch.linalg.svdvals(own)[47:].norm().item(), rel=1e-3)  # Eckart-Young


@pytest.mark.parametrize("gamma", [1e-4, 0.1, 10.0, 300.0])
def test_every_scale_starts_at_gamma0(gamma):
    made = model(gamma0=gamma, b_noise=0.25)
    individual, *_ = individual_of(made, batch())
    torch.testing.assert_close(individual.spread, torch.full_like(individual.spread, gamma + 0.25))


def test_heads_that_are_no_linear_map_are_refused():
    odd = backbone()
    odd.get_output_embeddings().forward = lambda z: z[..., :1].expand(*z.shape[:-1], families.VOCABULARY) ** 2
    with pytest.raises(HeadtoolError, match="is no linear map"):
        CausalModel(odd, Settings(), NUM)


# -- the head stays tied, or is knowingly untied -------------------------------------------------------------------------


def test_a_tied_head_stays_tied():
    made = model("gpt2")
    assert made.tied
    assert made.shared
    weight, _ = made.action()
    assert weight is made.backbone.get_input_embeddings().weight
    made(**batch())["loss"].backward()
    with torch.no_grad():
        weight -= weight.grad
    assert made.backbone.get_output_embeddings().weight is made.backbone.get_input_embeddings().weight


def test_other_dimensions_have_a_head_of_their_own():
    tied, untied = model("gpt2", causal_dim=7), model(causal_dim=7)
    assert not tied.shared
    assert tied.backbone.get_input_embeddings().weight.requires_grad  # still the embedding
    assert not untied.backbone.get_output_embeddings().weight.requires_grad  # nothing reads it


def test_a_new_row_is_the_mean_of_the_digits_and_keeps_the_tie():
    for name in ("gpt2", "llama"):
        made = backbone(name)
        before = made.get_input_embeddings().weight.detach().clone()
        assert language.add_row(made, len(before), [3, 4, 9])
        table, head = made.get_input_embeddings().weight, made.get_output_embeddings().weight
        assert len(table) == len(head) == len(before) + 1
        torch.testing.assert_close(table[:-1], before)
        torch.testing.assert_close(table[-1], before[[3, 4, 9]].mean(0))
        assert (head is table) == (name == "gpt2")
        assert not language.add_row(made, len(before), [3])  # there is room: the table keeps its size


# -- the losses ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("law", ["cauchy", "normal"])
def test_the_losses_are_their_formulas_written_out(law):
    settings = {"distribution": law, "gate_alpha": 0.25, "reg_weight": 3.0, "threshold": 0.5, "gamma0": 0.7}
    made = model(**settings, centre=2.0, unit=4.0)
    given = batch()
    told = made(**given)
    individual, labels, targets = individual_of(made, given)
    loc, spread = made.scores(individual)
    scale = spread if law == "cauchy" else spread.sqrt()
    one = torch.distributions.Cauchy(0, 1) if law == "cauchy" else torch.distributions.Normal(0, 1)
    p = one.cdf((loc - 0.5).double() / scale.double())
    y = torch.nn.functional.one_hot(labels, p.shape[1]).bool()
    cls = -torch.where(y, p, 1 - p).log().sum(1).mean()
    torch.testing.assert_close(told["loss_cls"].double(), cls, rtol=1e-4, atol=0)
    value, width = made.value(individual)
    width = width if law == "cauchy" else width.sqrt()
    density = type(one)(value.double(), width.double())
    is_number = targets.isfinite()
    nll = -density.log_prob(targets.where(is_number, 0))[is_number] - math.log(4.0)  # in units
    gate = 0.25 + 0.75 * p[is_number][:, NUM]
    torch.testing.assert_close(told["loss_reg"].double(), (gate * nll).sum() / is_number.sum(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(told["loss"], told["loss_cls"] + 3 * told["loss_reg"])


def test_rows_without_numbers_add_nothing_to_the_number_loss():
    """Upstream averaged before it masked: a row without numbers changed the loss. Here two texts with the same numbers agree."""
    made = model()
    one = batch()
    keep = one["targets"].isfinite().any(1)
    fewer = {name: tensor[keep] for name, tensor in one.items()}
    torch.testing.assert_close(made(**one)["loss_reg"], made(**fewer)["loss_reg"], rtol=1e-5, atol=1e-6)


def test_no_number_at_all_is_zero_with_a_gradient():
    made = model()
    told = made(**batch(numbers=False))
    assert told["loss_reg"].item() == 0
    told["loss"].backward()
    assert made.regression.weight.grad is not None  # all processes of a training reduce the same tensors
    assert not made.regression.weight.grad.any()
    assert all(torch.isfinite(p.grad).all() for p in made.parameters() if p.grad is not None)


def test_numbers_of_every_size_give_finite_losses_and_gradients():
    made = model()
    given = batch()
    given["values"][0, 4] = given["targets"][0, 3] = 1.7e308
    given["values"][1, 3] = given["targets"][1, 2] = -5e-324
    told = made(**given)
    told["loss"].backward()
    assert torch.isfinite(told["loss"])
    assert all(torch.isfinite(p.grad).all() for p in made.parameters() if p.grad is not None)


def test_values_enter_by_their_logarithm_or_as_they_are():
    for encoding, expected in (("log", -math.log(4.0)), ("linear", -3.0)):
        made = model(number_encoding=encoding)
        with torch.no_grad():
            made.number.fill_(1.0)
        seen = {}
        handle = made.backbone.base_model.register_forward_pre_hook(
            lambda m, args, kwargs, seen=seen: seen.update(kwargs), with_kwargs=True
        )
        given = batch()
        made(**given)
        handle.remove()
        added = seen["inputs_embeds"] - made.backbone.get_input_embeddings()(given["input_ids"])
        torch.testing.assert_close(added[1, 3], torch.full_like(added[1, 3], expected), rtol=1e-5, atol=1e-5)
        assert not added[2].any()


def test_the_four_ablations_are_four_models():
    """Different losses, and one step of training moves each elsewhere. Upstream's four were one."""
    losses, weights = [], []
    for head in ("ovr", "softmax"):
        for distribution in ("cauchy", "normal"):
            made = model(head=head, distribution=distribution, gamma0=1.0)
            told = made(**batch())
            told["loss"].backward()
            losses.append((round(told["loss_cls"].item(), 4), round(told["loss_reg"].item(), 6)))
            weights.append(made.scale.bias.grad.clone())
    assert len({reg for _, reg in losses}) == 4
    assert len({cls for cls, _ in losses}) == 3  # softmax of loc knows no distribution
    for i in range(4):
        for j in range(i):
            assert not torch.allclose(weights[i], weights[j])


def test_the_mean_is_the_sum_over_the_vocabulary_and_thresholds_move_the_loss():
    total, mean, high = (
        model(**s)(**batch())["loss_cls"] for s in ({}, {"ovr_reduction": "mean"}, {"threshold": 10.0})
    )
    torch.testing.assert_close(total / families.VOCABULARY, mean)
    assert not torch.isclose(total, high)


def test_negatives_are_drawn_in_training():
    made, given = model(negatives=8), batch()
    whole = made(**given)["loss_cls"]
    drawn = made(**given, drawn=torch.arange(families.VOCABULARY))["loss_cls"]
    torch.testing.assert_close(whole, drawn)
    assert not torch.isclose(whole, made(**given, drawn=torch.arange(8))["loss_cls"])


def test_the_plain_baseline_is_cross_entropy_and_absolute_error():
    made = model(plain=True, head="softmax", gate_alpha=1.0, centre=1.0, unit=2.0)
    given = batch()
    told = made(**given)
    valid = given["labels"] != IGNORED
    z = made.features(given["input_ids"], given["attention_mask"], given["values"])[valid]
    logits = made.backbone.get_output_embeddings()(z)
    torch.testing.assert_close(told["loss_cls"], torch.nn.functional.cross_entropy(logits, given["labels"][valid]))
    targets = given["targets"][valid]
    some = targets.isfinite()
    error = (targets[some].float() - 1 - 2 * made.regression(z[some])[:, 0]).abs() / 2
    torch.testing.assert_close(told["loss_reg"], error.mean())


@pytest.mark.parametrize("name", ["llama", "qwen2", "gpt2", "opt"])
def test_a_few_steps_learn(name):
    made = model(name, gamma0=0.1)
    optimiser = torch.optim.AdamW(made.parameters(), lr=1e-2)
    given, losses = batch(), []
    for _ in range(30):
        told = made(**given)
        optimiser.zero_grad()
        told["loss"].backward()
        optimiser.step()
        losses.append(told["loss"].item())
    assert losses[-1] < 0.5 * losses[0]


def test_qwens_shape_builds():
    """Qwen2.5-0.5B, on the meta device: shapes alone."""
    config = AutoConfig.for_model(
        "qwen2", vocab_size=151936, hidden_size=896, num_hidden_layers=24, num_attention_heads=14, num_key_value_heads=2,
        intermediate_size=4864, tie_word_embeddings=True,
    )  # fmt: skip
    with torch.device("meta"):
        made = CausalModel(AutoModelForCausalLM.from_config(config), Settings(), 151700)
    assert made.action()[0].shape == (151936, 896)
    assert made.loc.weight.shape == made.scale.weight.shape == (896, 896)
    assert made.tied
    assert made.shared


def test_an_encoder_or_a_headless_model_is_refused():
    with pytest.raises(HeadtoolError, match="is an encoder"):
        language.open_language_model(locate("demo-encoder"))
    located = dataclasses.replace(locate("demo"), config={**locate("demo").config, "architectures": ["LlamaModel"]})
    with pytest.raises(HeadtoolError, match="has no language model head"):
        language.open_language_model(located)


def test_an_individual_without_a_spread_has_scores_alone():
    made = model(plain=True, head="softmax")
    loc, spread = made.scores(Individual(torch.zeros(1, 48), None))
    assert spread is None
    assert loc.shape == (1, families.VOCABULARY)


def test_the_demo_tokenizer_and_model_agree_on_the_number():
    reader, _ = tokens.reserve(AutoTokenizer.from_pretrained(locate("demo").folder))
    adapter = language.open_language_model(locate("demo"))
    assert language.add_row(adapter.model, reader.num, tokens.digits(reader.tokenizer))
    made = CausalModel(adapter.model, Settings(), reader.num)
    assert len(made.bias) == reader.num + 1
