"""Ablation, gradients and updates against loops, differences and slices written here."""

from __future__ import annotations

import dataclasses
import weakref

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy import stats

from families import ALL, CONFIGS, VOCABULARY, random_batch, tiny
from headtool.errors import HeadtoolError
from headtool.models import hooks
from headtool.models.batches import IGNORED, Encoding, Examples
from headtool.models.losses import losses
from headtool.models.sweep import Sweep, plain
from headtool.scores import ablation
from headtool.scores import update as update_module
from headtool.scores.ablation import Ablation, rows_of
from headtool.scores.certainty import bootstrap_means, certainty, holm, p_of_zero
from headtool.scores.gradient import Gradient, first_order
from headtool.scores.update import update

LENGTHS = (9, 5, 9, 7, 5, 9, 6)


def examples(adapter, lengths=LENGTHS, seed=0):
    """Random tokens; a class each, or the last two tokens to be predicted."""
    rng = np.random.default_rng(seed)
    made = []
    for i, length in enumerate(lengths):
        ids = rng.integers(3, VOCABULARY, length).tolist()
        targets = [IGNORED] * (length - 2) + rng.integers(3, VOCABULARY, 2).tolist()
        made.append(Encoding(ids, targets=i % 3 if adapter.kind == "classifier" else targets))
    return Examples(made, pad=adapter.pad, types=False)


def swept(adapter, data, tmp_path, mode="zero", rows=40, **more):
    run = Ablation(adapter, data, mode, rows, seed=7)
    for group in range(len(run.groups)):
        run.work(adapter, group, tmp_path)
    return run, run.merge(tmp_path)


@pytest.mark.parametrize("mode", ["zero", "mean", "resample"])
@pytest.mark.parametrize("name", ["llama", "bert", "deberta-v2"])
def test_ablation_is_the_loop_over_heads(name, mode, tmp_path):
    adapter = tiny(name)
    data = examples(adapter)
    run, found = swept(adapter, data, tmp_path, mode)
    assert max(len(batch) for batch in run.batches) > 1
    g = adapter.geometry
    z = [{} for _ in data.lengths]  # each example's heads, alone
    with torch.inference_mode():
        for i in range(len(data)):
            with hooks.observe(adapter, outputs=z[i].__setitem__):
                adapter.forward(data.batch(np.array([i])))
        mean = {
            layer: (sum(each[layer].sum((0, 1)) for each in z) / data.tokens)[None, None] for layer in range(g.layers)
        }
        for i in range(len(data)):
            batch = data.batch(np.array([i]))
            reference = {"zero": None, "mean": mean}.get(mode)
            if mode == "resample":
                other, width = z[run._partner[i]], int(data.lengths[i])
                at = [min(t, other[0].shape[1] - 1) for t in range(width)]
                reference = {layer: other[layer][:, at] for layer in range(g.layers)}
            base, _ = losses(adapter, batch, adapter.forward(batch))
            assert found.base[i] == pytest.approx(base.item(), abs=1e-5)
            for layer in range(g.layers):
                for head in range(g.heads):
                    loss, right = plain(adapter, batch, layer, head, reference)
                    assert found.loss[layer, head, i] == pytest.approx(loss.item(), abs=1e-5)
                    assert found.right[layer, head, i] == right.item()


def test_partners_are_others_of_about_the_same_length(tmp_path):
    adapter = tiny("llama")
    run = Ablation(adapter, examples(adapter), "resample", 40, seed=7)
    lengths = run.examples.lengths
    for i, partner in enumerate(run._partner):
        assert partner != i
        assert lengths[partner] >= lengths[i] or lengths[i] == lengths.max()


@pytest.mark.parametrize("rows", [5, 20, 500])
def test_how_many_heads_are_stacked_does_not_matter(rows, tmp_path):
    adapter = tiny("gpt2")
    data = examples(adapter)
    _, wanted = swept(adapter, data, tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    _, found = swept(adapter, data, other, rows=rows)
    np.testing.assert_allclose(found.loss, wanted.loss, atol=1e-5)


@pytest.mark.parametrize("mode", ["zero", "mean", "resample"])
@pytest.mark.parametrize("name", [name for name in ALL if tiny(name).layout.causal])
def test_a_decoder_may_be_swept_padded(name, mode, tmp_path, monkeypatch):
    """As on a GPU, where a batch of little work takes in shorter examples."""
    adapter = tiny(name)
    data = examples(adapter, (9, 5, 8, 7, 5, 9, 7))
    run, wanted = swept(adapter, data, tmp_path, mode)
    assert all(len(set(data.lengths[batch])) == 1 for batch in run.batches)
    monkeypatch.setattr(ablation, "enough_of", lambda adapter, rows: 40)
    other = tmp_path / "other"
    other.mkdir()
    run, found = swept(adapter, data, other, mode)
    assert [data.lengths[batch].tolist() for batch in run.batches] == [[9, 9, 8, 7], [7], [5, 5]]
    np.testing.assert_allclose(found.loss, wanted.loss, atol=1e-5)
    np.testing.assert_allclose(found.base, wanted.base, atol=1e-5)


def test_one_recording_is_in_memory_and_none_after_the_sweep(tmp_path, monkeypatch):
    """Parts of a bucket's layers share its clean pass; it goes with the last of them."""
    adapter, alive, most = tiny("llama"), weakref.WeakSet(), []
    run = Ablation(adapter, examples(adapter, (9, 9, 7, 7, 5, 5)), "zero", 20, seed=7)

    class Counted(Sweep):
        def __init__(self, *given):
            most.append(len(alive) + 1)
            super().__init__(*given)
            alive.add(self)

    assert run.engine is Sweep
    run.__dict__["engine"] = Counted
    assert len(run.groups) > len(run.batches)
    for group in range(len(run.groups)):
        run.work(adapter, group, tmp_path)
    assert most == [1] * len(run.batches)
    assert not alive


def test_the_budget_sets_how_many():
    adapter = tiny("gpt2")
    assert rows_of(adapter, None, 10) == 1536
    assert rows_of(adapter, 1, 10) == 1
    assert rows_of(adapter, 2_000_000, 10) == pytest.approx(2 * rows_of(adapter, 1_000_000, 10), abs=1)
    assert rows_of(tiny("deberta-v2"), 10**7, 10) > rows_of(tiny("deberta-v2"), 10**7, 500)


def test_a_model_that_cannot_be_resumed_is_swept_the_naive_way(tmp_path, monkeypatch):
    """A family whose layers read what other layers left: the engine must notice, and the numbers stay right."""
    from headtool.models import sweep
    from headtool.scores.ablation import Plain

    adapter = tiny("llama")
    data = examples(adapter)
    _, wanted = swept(adapter, data, tmp_path)
    monkeypatch.setattr(sweep.Sweep, "without", lambda self, layer, heads: (self.loss[None] + 0.1, self.right[None]))
    other = tmp_path / "other"
    other.mkdir()
    run, found = swept(adapter, data, other)
    assert run.engine is Plain
    np.testing.assert_allclose(found.loss, wanted.loss, atol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_first_order_is_the_slope(name):
    """Against central differences, in float64 where the family's kernels know it."""
    experts = "experts" in str(CONFIGS.get(name))
    adapter = tiny(name, dtype=torch.float32 if experts else torch.float64)
    batch = random_batch(adapter, (6, 6))
    targets = torch.arange(2) if adapter.kind == "classifier" else batch.ids.roll(-1, 1)
    batch = dataclasses.replace(batch, targets=targets)
    g, step, close = adapter.geometry, *((1e-2, 3e-2) if experts else (1e-3, 2e-3))
    found, _ = first_order(adapter, batch)
    for layer, head in ((0, 1), (g.layers - 1, g.heads - 1)):
        ends = []
        for sign in (1, -1):
            gate = torch.ones(g.heads, dtype=torch.float64)
            gate[head] -= sign * step
            with hooks.gated(adapter, {layer: gate}):
                ends.append(losses(adapter, batch, adapter.forward(batch))[0].detach().double())
        slope = (ends[0] - ends[1]) / (2 * step)
        np.testing.assert_allclose(found[:, layer, head], slope.numpy(), atol=close * max(1, slope.abs().max()))


@pytest.mark.parametrize("name", ["llama", "bert", "deberta-v2", "bloom"])
def test_gradients_do_not_depend_on_the_batch_size(name, tmp_path):
    adapter = tiny(name)
    data = examples(adapter)
    found = []
    for size in (1, 3, 7):
        folder = tmp_path / str(size)
        folder.mkdir()
        run = Gradient(data, data.plan(size, 0))
        for group in range(len(run.groups)):
            run.work(adapter, group, folder)
        found.append(run.merge(folder))
    for other in found[1:]:
        for name in ("G", "F", "Ppred", "first_order", "G_se", "F_se"):
            np.testing.assert_allclose(getattr(other, name), getattr(found[0], name), rtol=2e-3, atol=1e-6)


def test_gradient_scores_are_what_the_formulas_say(tmp_path):
    adapter = tiny("bert")
    data = examples(adapter)
    run = Gradient(data, data.plan(2, 0))
    for group in range(len(run.groups)):
        run.work(adapter, group, tmp_path)
    found = run.merge(tmp_path)
    each = np.concatenate([first_order(adapter, data.batch(np.array([i])))[0] for i in range(len(data))]).astype(float)
    n = len(each)
    np.testing.assert_allclose(found.G, np.abs(each).mean(0), rtol=1e-4)
    np.testing.assert_allclose(found.F, (each**2).mean(0), rtol=1e-4)
    np.testing.assert_allclose(found.first_order, each.mean(0), rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(found.G_se, np.abs(each).std(0, ddof=1) / n**0.5, rtol=1e-3)
    np.testing.assert_allclose(found.F_se, (each**2).std(0, ddof=1) / n**0.5, rtol=1e-3)
    F = (each**2).mean(0)
    np.testing.assert_allclose(found.Ppred, np.abs(each).mean(0) ** 2 / (F + 1e-6 * F.mean()), rtol=1e-3)


# -- updates -----------------------------------------------------------------------------------------------------------


def saved(adapter, folder, change=0.0):
    """The adapter's weights in a folder, moved by a random step; returns them by name."""
    folder.mkdir()
    generator = torch.Generator().manual_seed(9)
    state = {
        name: (value + change * torch.randn(value.shape, generator=generator)).contiguous()
        for name, value in adapter.model.state_dict().items()
    }
    save_file({name: value.clone() for name, value in state.items()}, folder / "model.safetensors")
    return dataclasses.replace(adapter.located, folder=folder)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("name", list(CONFIGS))
def test_update_is_the_norm_of_what_reaches_the_head(name, bias, tmp_path):
    """A head's slices by another road: what a change of its rows alone does to q, k and v."""
    adapter = tiny(name)
    before, after = saved(adapter, tmp_path / "a"), saved(adapter, tmp_path / "b", 0.1)
    found = update(before, after, adapter.layout, adapter.geometry, bias)
    g, layout = adapter.geometry, adapter.layout
    old, new = (update_module.Tensors(each.folder) for each in (before, after))
    for layer in range(g.layers):
        change = {}
        for part in "qkvo":
            path = (
                layout.out
                if part == "o"
                else layout.qkv or {"q": layout.query, "k": layout.key, "v": layout.value}[part]
            )
            ending = f"{layout.blocks}.{layer}.{path}"
            delta, was = new.read(f"{ending}.weight") - old.read(f"{ending}.weight"), old.read(f"{ending}.weight")
            if layout.transposed:
                delta, was = delta.T, was.T
            if bias and part != "o" and old.read(f"{ending}.bias") is not None:
                delta = np.column_stack([delta, new.read(f"{ending}.bias") - old.read(f"{ending}.bias")])
                was = np.column_stack([was, old.read(f"{ending}.bias")])
            change[part] = (delta, was)
        for head in (0, g.heads - 1):
            kv, d, total, size = head // (g.heads // g.kv_heads), g.head_dim, 0.0, 0.0
            for part in "qkvo":
                delta, was = change[part]
                if part == "o":
                    rows, delta, was = range(head * d, head * d + d), delta.T, was.T
                elif layout.qkv is None:
                    rows = range((head if part == "q" else kv) * d, ((head if part == "q" else kv) + 1) * d)
                elif layout.packing == "concat":
                    start = {"q": head, "k": g.heads + kv, "v": g.heads + g.kv_heads + kv}[part]
                    rows = range(start * d, start * d + d)
                else:
                    size_of_group = g.heads // g.kv_heads + 2
                    inside = {"q": head % (g.heads // g.kv_heads), "k": size_of_group - 2, "v": size_of_group - 1}[part]
                    start = kv * size_of_group + inside
                    rows = range(start * d, start * d + d)
                norm = np.sqrt((delta[list(rows)] ** 2).sum())
                assert getattr(found, f"U{part}")[layer, head] == pytest.approx(norm)
                total, size = total + norm**2, size + np.sqrt((was[list(rows)] ** 2).sum())
            assert found.U[layer, head] == pytest.approx(total**0.5)
            assert found.Urel[layer, head] == pytest.approx(total**0.5 / size)


def test_update_of_nothing_is_nothing_and_of_another_model_an_error(tmp_path):
    llama, wider = tiny("llama"), tiny("bert")
    a, b = saved(llama, tmp_path / "a"), saved(llama, tmp_path / "b")
    assert update(a, b, llama.layout, llama.geometry, False).U.max() == 0
    c = saved(wider, tmp_path / "c")
    with pytest.raises(HeadtoolError, match="no matrix"):
        update(c, a, llama.layout, llama.geometry, False)
    small = saved(tiny("qwen2"), tmp_path / "d")
    with pytest.raises(HeadtoolError, match="fine-tuned|weights are"):
        update(small, a, llama.layout, llama.geometry, False)


# -- certainty -----------------------------------------------------------------------------------------------------


def test_p_is_that_of_the_paired_t_test():
    effects = np.random.default_rng(0).normal(0.1, 1, (2, 3, 40))
    se = effects.std(-1, ddof=1) / 40**0.5
    np.testing.assert_allclose(p_of_zero(effects.mean(-1), se, 40), stats.ttest_1samp(effects, 0, axis=-1).pvalue)
    assert p_of_zero(np.zeros(1), np.zeros(1), 5) == 1
    assert p_of_zero(np.ones(1), np.zeros(1), 5) == 0


def test_holm_by_hand():
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])).tolist() == [True, False, False, True]
    assert holm(np.array([0.2, 0.001])).tolist() == [False, True]
    assert holm(np.array([0.001, 0.002])).all()


def test_the_bootstrap_interval_holds_the_truth():
    """Of 400 heads with a known mean, about 95% must lie in their intervals."""
    effects = np.random.default_rng(1).exponential(1, (20, 20, 200)) - 1
    sure = certainty(effects, 10, seed=3)
    held = ((sure.low <= 0) & (sure.high >= 0)).mean()
    assert 0.90 <= held <= 0.99
    np.testing.assert_allclose(bootstrap_means(effects, 3).std(0), sure.se, rtol=0.2)
    assert sure.differs.sum() <= 2


def test_ranks_that_are_plain_are_settled():
    effects = np.arange(12).reshape(3, 4)[..., None] * 10.0 + np.random.default_rng(0).normal(0, 1, (3, 4, 50))
    sure = certainty(effects, 3, seed=0)
    assert sure.rank.ravel().tolist() == list(range(12, 0, -1))
    assert (sure.rank_low == sure.rank).all()
    assert (sure.rank_high == sure.rank).all()
    assert sure.top_k_share.ravel().tolist() == [0.0] * 9 + [1.0] * 3
