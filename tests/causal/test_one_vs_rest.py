"""The loss in blocks is the loss written out, and so are its gradients."""

from __future__ import annotations

import pytest
import torch

from headtool.causal import one_vs_rest
from headtool.causal.laws import LAWS

POSITIONS, LATENT, VOCABULARY = 7, 5, 23


def parts(seed=0, size=1.0):
    g = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64) * size

    spread = draw(POSITIONS, LATENT).exp()
    labels = torch.randint(0, VOCABULARY, (POSITIONS,), generator=g)
    labels[:2] = torch.tensor([0, VOCABULARY - 1])
    tensors = [draw(POSITIONS, LATENT), spread, draw(VOCABULARY, LATENT), draw(VOCABULARY)]
    return [t.requires_grad_() for t in tensors], labels


def written_out(law, loc, spread, weight, bias, labels):
    """The sum over k, term by term, by autograd."""
    total = torch.zeros((), dtype=torch.float64)
    for n in range(len(loc)):
        for k in range(len(weight)):
            x = (weight[k] * loc[n]).sum() + bias[k]
            y = (law.weigh(weight[k]) * spread[n]).sum()
            p = law.probability(x, y)
            total = total - (p.log() if k == labels[n] else (1 - p).log())
    return total


@pytest.mark.parametrize("block", [1, 20, 60, 10**6])
@pytest.mark.parametrize("name", LAWS)
def test_blocks_are_the_sum_written_out(name, block):
    law = LAWS[name]
    tensors, labels = parts()
    plain = written_out(law, *tensors, labels)
    expected = torch.autograd.grad(plain, tensors)
    ours = one_vs_rest.loss(law, *tensors, labels, block=block)
    torch.testing.assert_close(ours, plain, rtol=1e-12, atol=0)
    for a, b in zip(torch.autograd.grad(ours * 1.0, tensors), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_the_incoming_gradient_scales_and_frozen_weights_have_none():
    law = LAWS["cauchy"]
    tensors, labels = parts(1)
    once = torch.autograd.grad(one_vs_rest.loss(law, *tensors, labels), tensors)
    thrice = torch.autograd.grad(3 * one_vs_rest.loss(law, *tensors, labels), tensors)
    for a, b in zip(once, thrice, strict=True):
        torch.testing.assert_close(3 * a, b)
    frozen = [tensors[0], tensors[1], tensors[2].detach(), tensors[3].detach()]
    got = torch.autograd.grad(one_vs_rest.loss(law, *frozen, labels), frozen[:2])
    for a, b in zip(got, once, strict=False):
        torch.testing.assert_close(a, b)


def test_certain_tokens_are_finite():
    """Scores of 1e12 scales from their threshold: the loss and its gradients are numbers, in float32 too."""
    law = LAWS["cauchy"]
    tensors, labels = parts(2, size=1e4)
    small = [t.detach().float().requires_grad_() for t in tensors]
    small[1] = (small[1].detach().clamp(1e-8, 1e8) * 0 + 1e-8).requires_grad_()
    loss = one_vs_rest.loss(law, *small, labels)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(t.grad).all() for t in small)


def test_no_position_gives_zero():
    law = LAWS["cauchy"]
    (loc, spread, weight, bias), labels = parts(3)
    loss = one_vs_rest.loss(law, loc[:0], spread[:0], weight, bias, labels[:0])
    loss.backward()
    assert loss.item() == 0
    assert not weight.grad.any()


@pytest.mark.parametrize("name", LAWS)
def test_sampled_negatives_are_unbiased(name):
    """Every token drawn once is the whole sum but for the labels' own weight; the mean over draws is the whole loss."""
    law = LAWS[name]
    tensors, labels = parts(4)
    tensors = [t.detach() for t in tensors]
    whole = one_vs_rest.loss(law, *tensors, labels)
    torch.testing.assert_close(one_vs_rest.sampled(law, *tensors, labels, torch.arange(VOCABULARY)), whole)
    g = torch.Generator().manual_seed(5)
    drawn = [
        one_vs_rest.sampled(law, *tensors, labels, torch.randint(0, VOCABULARY, (8,), generator=g)) for _ in range(2000)
    ]
    seen = torch.stack(drawn)
    assert abs(seen.mean() - whole) < 4 * seen.std() / 2000**0.5
