"""Scores against loops written here, which run each example alone, unpadded, with eager attention and its full maps."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from families import ALL, random_batch, tiny
from headtool.errors import HeadtoolError
from headtool.models import hooks
from headtool.models.batches import Batch
from headtool.scores.tally import score_batch

FORWARD = ("out", "resid", "ent", "ent_rel", "task")
PATTERNS = ("previous", "first", "duplicate", "induction")


def naive(adapter, batch, query, exclude_bos=False, even=False):
    """{score: (example, layer, head)}, NaN where not defined, by loops over single examples; even, with attention spread evenly."""
    g = adapter.geometry
    found = {name: np.full((len(batch.ids), g.layers, g.heads), math.nan) for name in (*FORWARD, *PATTERNS)}
    for b in range(len(batch.ids)):
        keep = batch.mask[b].bool()
        alone = Batch(batch.ids[b : b + 1, keep], torch.ones(1, int(keep.sum()), dtype=torch.int64), np.arange(1))
        ids, span = alone.ids[0].tolist(), batch.span[b, keep].tolist()
        z = {}
        if adapter.layout.interface:
            adapter.model.set_attn_implementation("eager")
        try:
            with hooks.observe(adapter, outputs=z.__setitem__), torch.inference_mode():
                maps = adapter.forward(alone, output_attentions=True).attentions
        finally:
            if adapter.layout.interface:
                adapter.model.set_attn_implementation("headtool")
        n = len(ids)
        queries = {"last": [n - 1], "first": [0], "all": range(n)}[query]
        for layer in range(g.layers):
            for h in range(g.heads):
                per_query = {name: [] for name in found}
                for q in queries:
                    vector = z[layer][0, q, h].double()
                    per_query["out"].append(vector.norm().item())
                    per_query["resid"].append((vector @ adapter.out_weight(layer)[h].double()).norm().item())
                    row = maps[layer][0, h, q].double().tolist()
                    sink = 1 - sum(row) if adapter.located.label == "gpt_oss" else 0.0
                    visible = [j for j in range(n) if row[j] > 0]
                    if exclude_bos:
                        visible = [j for j in visible if j != 0]
                        total = sum(row[j] for j in visible) + sink
                        if not visible:
                            continue
                        row = [row[j] / total if j in visible else 0.0 for j in range(n)]
                        sink /= total
                    keys = len(visible) + bool(sink)
                    if even:
                        row, sink = [(j in visible) / keys for j in range(n)], bool(sink) / keys
                    ent = sum(row[j] * math.log(row[j]) for j in visible) + (sink * math.log(sink) if sink else 0)
                    per_query["ent"].append(ent)
                    if keys > 1:
                        per_query["ent_rel"].append(ent / math.log(keys))
                    marked = [j for j in range(n) if span[j] and not (exclude_bos and j == 0)]
                    if marked:
                        per_query["task"].append(sum(row[j] for j in marked) / len(marked))
                    per_query["previous"].append(row[q - 1] if q > 0 else 0.0)
                    if q > 0:
                        per_query["first"].append(row[0])
                    per_query["duplicate"].append(sum(row[j] for j in range(q) if ids[j] == ids[q]))
                    per_query["induction"].append(sum(row[j] for j in range(1, q + 1) if ids[j - 1] == ids[q]))
                for name, values in per_query.items():
                    if values:
                        found[name][b, layer, h] = np.mean(values)
    return found


@pytest.mark.parametrize("query", ["last", "first", "all"])
@pytest.mark.parametrize("name", ALL)
def test_scores_are_those_of_a_naive_loop(name, query):
    adapter = tiny(name)
    batch = random_batch(adapter)
    expected = naive(adapter, batch, query)
    spread_evenly = naive(adapter, batch, query, even=True)
    values, defined, evenly = score_batch(adapter, batch, FORWARD, query)
    for s, score in enumerate(FORWARD):
        wanted = expected[score]
        assert np.array_equal(defined[s], ~np.isnan(wanted[:, 0, 0])), score
        if score in ("out", "resid"):
            assert np.isnan(evenly[s]).all()
        else:
            spread = spread_evenly[score].mean((1, 2))
            np.testing.assert_allclose(evenly[s][defined[s]], spread[defined[s]], rtol=1e-5, err_msg=score)
        np.testing.assert_allclose(values[s][defined[s]], wanted[defined[s]], rtol=2e-4, atol=2e-5, err_msg=score)


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt_oss", "gpt2", "bloom", "bert", "deberta-v2"])
def test_patterns_are_those_of_a_naive_loop(name):
    adapter = tiny(name)
    batch = random_batch(adapter, (10, 10))
    batch.ids[:, 5:] = batch.ids[:, :5]  # repeated tokens
    expected = naive(adapter, batch, "all")
    spread_evenly = naive(adapter, batch, "all", even=True)
    values, _, evenly = score_batch(adapter, batch, PATTERNS, "all")
    for s, score in enumerate(PATTERNS):
        np.testing.assert_allclose(values[s], expected[score], rtol=2e-4, atol=2e-5, err_msg=score)
        assert values[s].max() > 0.01
        np.testing.assert_allclose(evenly[s], spread_evenly[score].mean((1, 2)), rtol=1e-5, err_msg=score)


@pytest.mark.parametrize("query", ["last", "all"])
@pytest.mark.parametrize("name", ["llama", "gpt_oss", "bert", "deberta-v2", "falcon, alibi"])
def test_exclude_bos_renormalises_over_the_rest(name, query):
    adapter = tiny(name)
    batch = random_batch(adapter)
    batch.span[:, 0] = True  # the span may hold the first token: it is no part of it then
    expected = naive(adapter, batch, query, exclude_bos=True)
    spread_evenly = naive(adapter, batch, query, exclude_bos=True, even=True)
    values, defined, evenly = score_batch(adapter, batch, ("ent", "ent_rel", "task"), query, exclude_bos=True)
    for s, score in enumerate(("ent", "ent_rel", "task")):
        np.testing.assert_allclose(
            values[s][defined[s]], expected[score][defined[s]], rtol=5e-4, atol=5e-5, err_msg=score
        )
        spread = spread_evenly[score].mean((1, 2))[defined[s]]
        np.testing.assert_allclose(evenly[s][defined[s]], spread, rtol=1e-5, atol=1e-7, err_msg=score)


@pytest.mark.parametrize("query", ["last", "first", "all"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "bloom", "opt", "bert", "roberta", "distilbert", "deberta-v2"])
def test_the_side_of_the_padding_does_not_matter(name, query):
    adapter = tiny(name)
    right, *_ = score_batch(adapter, random_batch(adapter), FORWARD, query)
    left, *_ = score_batch(adapter, random_batch(adapter, left=True), FORWARD, query)
    np.testing.assert_allclose(right, left, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("exclude_bos", [False, True])
@pytest.mark.parametrize("name", ["gemma2", "gpt_oss", "llama", "bert"])
def test_a_block_of_queries_at_a_time_gives_the_same(name, exclude_bos, monkeypatch):
    """With blocks of one query row, and of three, the scores of "all" do not change."""
    from headtool.models import attention

    adapter = tiny(name)
    batch = random_batch(adapter)
    whole, defined, evenly = score_batch(adapter, batch, FORWARD, "all", exclude_bos)
    for rows in (1, 3):
        monkeypatch.setattr(attention, "BLOCK_ELEMENTS", {"cpu": 1, "cuda": 1})
        monkeypatch.setattr(attention, "BLOCK_ROWS", rows)
        blocks, also, even = score_batch(adapter, batch, FORWARD, "all", exclude_bos)
        np.testing.assert_allclose(blocks, whole, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(also, defined)
        np.testing.assert_allclose(even, evenly, rtol=1e-5, atol=1e-6)


def test_an_example_without_a_span_is_left_out_not_averaged_in():
    adapter = tiny("llama")
    batch = random_batch(adapter)
    batch.span[1] = False
    _, defined, *_ = score_batch(adapter, batch, ("task", "out"), "last")
    assert defined.tolist() == [[True, False, True], [True, True, True]]


def test_one_visible_key_has_no_relative_entropy():
    """The first position of a decoder sees itself alone: ent is 0 there, ent_rel is not defined."""
    adapter = tiny("llama")
    values, defined, *_ = score_batch(adapter, random_batch(adapter), ("ent", "ent_rel"), "first")
    assert not defined[1].any()
    assert defined[0].all()
    np.testing.assert_allclose(values[0], 0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gives_numbers(dtype):
    adapter = tiny("llama", "", dtype)
    values, *_ = score_batch(adapter, random_batch(adapter), FORWARD, "all")
    expected, *_ = score_batch(tiny("llama"), random_batch(adapter), FORWARD, "all")
    np.testing.assert_allclose(values, expected, rtol=0.3, atol=0.1)


def test_double_precision_passes_the_check():
    from headtool.models.verify import verify

    for name in ("llama", "gpt2", "bert", "gpt_neox", "gemma2"):
        verify(tiny(name, "", torch.float64))


def test_numbers_that_are_not_finite_are_an_error_not_a_mean():
    adapter = tiny("gpt2", "headless")
    weight = adapter.block(1).ln_1.weight
    kept = weight.clone()
    weight.fill_(math.inf)
    try:
        with pytest.raises(HeadtoolError, match="layer 1 gives numbers that are not finite"):
            score_batch(adapter, random_batch(adapter), ("out",), "last")
    finally:
        weight.copy_(kept)
