"""A trial of the engine is the naive trial: the whole model run with the fault in it, for every family and site."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

from families import ALL, random_batch, tiny
from headtool.faults import asked, bits, guard, trial
from headtool.faults.fault import Fault, shape_of
from headtool.models import sites, suffix
from headtool.models.batches import IGNORED, Batch

COVERED = [name for name in ALL if sites.covered(tiny(name))]
LENGTH = 12


def sequence(adapter, seed=0) -> Batch:
    batch = random_batch(adapter, (LENGTH,), seed=seed)
    if adapter.kind == "classifier":
        targets = torch.tensor([1])
    else:
        targets = torch.roll(batch.ids, -1, 1)
        targets[:, -1] = IGNORED
    return Batch(batch.ids, batch.mask, batch.index, None, None, targets)


def setup_of(adapter, batch, detectors="range,masked,rowsum", **more) -> trial.Setup:
    kept, _ = guard.usable(adapter, asked.detectors(detectors), kv_equal=False)
    g = adapter.geometry
    limits = guard.Limits(
        {n: torch.full((g.layers, len(m.QUANTITIES)), 1e9, dtype=torch.float64) for n, m in kept.items()}
    )
    return trial.Setup(adapter, suffix.resumable(adapter, batch), kept, limits, **more)


def drawn(adapter, site, layer, seed, chosen, *, pattern="flip", length=LENGTH, row=None) -> list[Fault]:
    """The faults of some bits at one element drawn by the seed."""
    rng = np.random.default_rng([seed, layer, sites.SITES.index(site)])
    head, at, column = (int(rng.integers(n)) for n in shape_of(site, adapter.geometry, length))
    at = at if row is None else row
    made = []
    for bit in chosen:
        keep, flip = bits.masks(bits.parse(pattern), bit, adapter.dtype, rng)
        place = ("forward", site, layer, 0, head, at, column, pattern, bit, keep, flip, seed)
        made.append(Fault(*place, bits.parse(pattern).width))
    return made


# Torch multiplies grouped experts in no wider dtype.
NARROW = dict.fromkeys(("mixtral", "gpt_oss", "qwen2_moe", "qwen3_moe"), torch.float32)


@functools.cache
def recorded(name, dtype=None):
    adapter = tiny(name, "", dtype or NARROW.get(name, torch.float64))
    batch = sequence(adapter)
    with torch.inference_mode():
        made = setup_of(adapter, batch)
        return made, suffix.Suffix(adapter, batch, cut=made.cut)


@pytest.mark.parametrize("site", sites.SITES)
@pytest.mark.parametrize("name", COVERED)
@torch.inference_mode()
def test_a_trial_is_the_naive_trial(name, site):
    """Sign, exponent and mantissa bits, in every layer: the change of the loss is that of the whole model, in float64."""
    made, clean = recorded(name)
    adapter = made.adapter
    top, narrow = bits.bits_of(adapter.dtype) - 1, name in NARROW
    close = {"rel": 1e-3, "abs": 2e-5} if narrow else {"rel": 1e-7, "abs": 1e-10}
    moved = 0
    for layer in range(adapter.geometry.layers):
        faults = drawn(adapter, site, layer, 7, (top, top - 1, top - 6, bits.MANTISSA[adapter.dtype] - 1, 5), row=4)
        results = trial.run(made, clean, faults)
        for fault, result in zip(faults, results, strict=True):
            base, loss = trial.plain(adapter, clean.batch, fault)
            assert result.loss_base == pytest.approx(base, rel=1e-5 if narrow else 1e-9)
            assert result.nonfinite == (not np.isfinite(loss))
            if not result.nonfinite:
                assert result.loss_diff == pytest.approx(loss - base, **close)
                moved += abs(result.loss_diff) > 1e-6
            old, new = result.before[0], result.after[0]
            assert new == old ^ (1 << fault.bit)
    assert moved


@pytest.mark.parametrize("name", ["llama", "gpt2", "bert", "deberta-v2"])
@torch.inference_mode()
def test_faults_of_many_elements_run_together_as_they_run_alone(name):
    made, clean = recorded(name)
    faults = [
        fault
        for site in sites.SITES
        for seed in (1, 2)
        for fault in drawn(made.adapter, site, 1, seed, (63, 62, 60, 50))
    ]
    together = trial.run(made, clean, faults)
    for fault, result in zip(faults, together, strict=True):
        (alone,) = trial.run(made, clean, [fault])
        assert result.fault is fault
        assert repr((result.before, result.after, result.masked)) == repr((alone.before, alone.after, alone.masked))
        assert result.nonfinite == alone.nonfinite
        if not result.nonfinite:
            assert result.loss_diff == pytest.approx(alone.loss_diff, rel=1e-7, abs=1e-10)
            assert result.logit_kl == pytest.approx(alone.logit_kl, rel=1e-5, abs=1e-10)


@pytest.mark.parametrize("name", ["llama", "bert"])
@torch.inference_mode()
def test_logits_divergence_and_answers_against_the_whole_model(name):
    """logit_max_abs, logit_kl and top1_changed from the full logits with and without the fault."""
    made, clean = recorded(name)
    adapter, batch = made.adapter, clean.batch
    g = adapter.geometry
    for site in sites.SITES:
        (fault,) = drawn(adapter, site, 0, 3, (62,), row=2)
        (result,) = trial.run(made, clean, [fault])
        from headtool.faults.fault import editing

        told = []
        for edit in (sites.unchanged, editing([fault], range(g.heads), range(g.kv_heads), range(LENGTH))):
            with sites.opened(adapter, 0, edit):
                logits = adapter.model(input_ids=batch.ids, attention_mask=batch.mask).logits.double()
            told.append(logits[:, : LENGTH - 1] if adapter.kind == "causal" else logits[:, None])
        if not torch.isfinite(told[1]).all():
            assert result.nonfinite
            continue
        a, b = (x.log_softmax(-1) for x in told)
        assert result.logit_max_abs == pytest.approx(float((told[0] - told[1]).abs().max()), rel=1e-3, abs=1e-5)
        assert result.logit_kl == pytest.approx(float((a.exp() * (a - b)).sum(-1).mean()), rel=1e-3, abs=2e-6)
        changed = (told[0].argmax(-1) != told[1].argmax(-1)).double().mean()
        assert result.top1_changed == pytest.approx(float(changed))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@torch.inference_mode()
def test_other_dtypes(dtype):
    adapter = tiny("llama", "", dtype)
    batch = sequence(adapter)
    made = setup_of(adapter, batch)
    clean = suffix.Suffix(adapter, batch, cut=made.cut)
    top = bits.bits_of(dtype) - 1
    for site in sites.SITES:
        faults = drawn(adapter, site, 1, 5, (top, top - 1, 1))
        for fault, result in zip(faults, trial.run(made, clean, faults), strict=True):
            base, loss = trial.plain(adapter, batch, fault)
            assert result.after[0] == result.before[0] ^ (1 << fault.bit)
            assert result.nonfinite == (not np.isfinite(loss))
            if np.isfinite(loss):
                close = 1e-5 if dtype == torch.float32 else 5e-2
                assert result.loss_diff == pytest.approx(loss - base, rel=close, abs=close)


@torch.inference_mode()
def test_what_changes_nothing_downstream_is_none():
    """A flip of a number's last bit that rounding swallows leaves the loss as it is, bit for bit, and so says the trial."""
    made, clean = recorded("llama", torch.bfloat16)
    faults = [f for seed in range(6) for f in drawn(made.adapter, "scores", 0, seed, (0, 1))]
    results = trial.run(made, clean, faults)
    assert any(result.loss_diff == 0 for result in results)
    for fault, result in zip(faults, results, strict=True):
        base, loss = trial.plain(made.adapter, clean.batch, fault)
        assert result.loss_diff == pytest.approx(loss - base, abs=5e-3 * (1 + abs(base)))
