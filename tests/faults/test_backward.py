"""Faults in the gradient: what reaches the weights is what linearity says, and the training is a plain loop's."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from test_trial import COVERED, NARROW, drawn

from families import tiny
from headtool.faults import work
from headtool.faults.backward import Training, plain
from headtool.models import sites
from headtool.models.batches import IGNORED, Batch
from headtool.models.losses import losses

LENGTH = 9


def batches(adapter, count=2):
    made = []
    for number in range(count):
        ids = torch.randint(3, 90, (2, LENGTH), generator=torch.Generator().manual_seed(number))
        targets = torch.tensor([0, 2]) if adapter.kind == "classifier" else torch.roll(ids, -1, 1)
        if targets.dim() == 2:
            targets[:, -1] = IGNORED
        made.append(Batch(ids, torch.ones_like(ids), np.arange(2), None, None, targets))
    return made


@pytest.mark.parametrize("name", COVERED)
def test_the_gradient_with_a_fault_is_the_clean_one_plus_the_fault_carried_on(name):
    """A gradient is linear in what comes back to a site: clean gradients + (d site / d weights)^T (after - before)."""
    adapter = tiny(name, "", NARROW.get(name, torch.float64))
    data = batches(adapter)
    training = Training(adapter, data, (1,), 1e-3)
    for site in sites.SITES:
        (fault,) = drawn(adapter, site, 1, 3, (-1,), pattern="value:1", length=LENGTH, row=3)
        with training._trainable():
            hit = []
            _, ours = training._gradients(0, 1, fault, hit)
            _, before = training._gradients(0, 1, None)
            seen = []
            with sites.opened(adapter, 1, see=seen.append):
                loss, _ = losses(adapter, data[0], adapter.forward(data[0]))
            tensor = getattr(seen[0], site)
            parameters = training.parameters
            (back,) = torch.autograd.grad(loss.mean(), tensor, retain_graph=True)
            at = (0, fault.head, fault.row, fault.column)
            assert float(back[at]) == pytest.approx(hit[0][1], rel=1e-3, abs=1e-6)
            assert hit[1][1] == 1
            delta = torch.zeros_like(back)
            delta[at] = hit[1][1] - hit[0][1]
            carried = torch.autograd.grad(tensor, parameters, grad_outputs=delta, allow_unused=True)
        scale = max(float((a - b).abs().max()) for a, b in zip(ours, before, strict=True))
        assert scale > 1e-4 or not seen[0].visible[0, 0, 3, fault.column if tensor.shape[-1] == LENGTH else 0]
        for a, clean, more in zip(ours, before, carried, strict=True):
            told = clean if more is None else clean + more
            # Some families' norms round to float32 whatever the model's dtype.
            torch.testing.assert_close(a, told, rtol=0, atol=1e-5 * max(scale, 1e-2))


@pytest.mark.parametrize("name", ["llama", "bert", "deberta-v2"])
@pytest.mark.parametrize("permanent", [False, True])
def test_the_training_is_a_plain_loop(name, permanent):
    """Losses after 1 and 4 steps of AdamW step by step, on a copy of the model, with the faulty gradient put in."""
    adapter = tiny(name, "", torch.float64)
    data = batches(adapter)
    start = [p.clone() for p in adapter.model.parameters()]
    training = Training(adapter, data, (1, 4), 1e-2, permanent=permanent)
    (fault,) = drawn(adapter, "v", 0, 5, (60,), length=LENGTH, row=2)
    found = training.trial(fault)
    assert all(torch.equal(a, b) for a, b in zip(adapter.model.parameters(), start, strict=True)), (
        "the model is as it was"
    )
    assert not any(p.requires_grad for p in adapter.model.parameters())
    harmless = dataclasses.replace(fault, flip=0)
    assert found.after == pytest.approx(plain(training, fault), rel=1e-9)
    assert found.clean == pytest.approx(plain(training, harmless), rel=1e-9)
    assert found.after != found.clean
    assert found.base == pytest.approx(float(losses(adapter, data[0], adapter.forward(data[0]))[0].mean()), rel=1e-9)
    again = training.trial(fault)
    assert again.after == found.after, "trials leave nothing behind"
    assert found.norm_ratio > 0
    assert found.rel_error > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_fault_that_hits_nothing_does_nothing(dtype):
    """The clean training takes the same kernels as the faulty one: what is left is the fault, not their difference."""
    adapter = tiny("llama", "", dtype)
    training = Training(adapter, batches(adapter), (1, 3), 1e-3)
    for site in sites.SITES:
        (fault,) = drawn(adapter, site, 1, 3, (2,), length=LENGTH, row=3)
        found = training.trial(dataclasses.replace(fault, flip=0))
        assert found.rel_error == 0
        assert found.norm_ratio == 1
        assert found.after == found.clean


def test_a_permanent_fault_passes_a_smaller_batch_by():
    adapter = tiny("llama", "", torch.float64)
    whole, last = batches(adapter)
    small = Batch(last.ids[:1, :6], last.mask[:1, :6], np.array([2]), None, None, last.targets[:1, :6])
    training = Training(adapter, [whole, small], (1, 2), 1e-3, permanent=True)
    (fault,) = drawn(adapter, "q", 0, 1, (60,), length=LENGTH, row=7)
    found = training.trial(dataclasses.replace(fault, sequence=1))
    assert np.isfinite(found.after).all()


def test_a_gradient_that_is_not_finite_is_said():
    adapter = tiny("llama", "", torch.float32)
    training = Training(adapter, batches(adapter), (1, 2), 1e-3)
    (fault,) = drawn(adapter, "out", 1, 1, (-1,), pattern="value:inf", length=LENGTH, row=1)
    found = training.trial(fault)
    assert np.isnan(found.after).all()
    assert not np.isfinite(found.norm_ratio)
    arrays = work.Backward(training).run([fault])
    assert np.isnan(arrays["after"]).all()
