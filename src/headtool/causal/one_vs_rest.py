"""The one-vs-rest loss over a vocabulary, a block of it at a time, with its gradients made in the same pass.

    L = - sum_k [ y_k ln P_k + (1 - y_k) ln(1 - P_k) ],  P_k = P(S_k > C_k)

Materialised, the positions x vocabulary numbers of loc, spread and their gradients would be four logit tensors. Here a
block of them exists at a time; what stays until the backward pass is the gradients by what is small, and by W.
"""

from __future__ import annotations

import contextlib
import math
from types import ModuleType

import torch

from headtool.models.devices import coarsely

# Numbers of a block of loc (as many of spread): on a CPU what stays in the cache, on a GPU what keeps it busy.
BLOCK = {"cpu": 1 << 21, "cuda": 1 << 25}


def loss(
    law: ModuleType,
    loc: torch.Tensor,
    spread: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    labels: torch.Tensor,
    *,
    block: int | None = None,
    coarse: bool = False,
) -> torch.Tensor:
    """The loss summed over positions and vocabulary, in nats. coarse has a CUDA GPU multiply by TF32, which rounds less than
    the bfloat16 of what comes in.

    loc and spread (position, latent) of the individual, noise included; weight (vocabulary, latent) and bias (vocabulary,)
    of the action, thresholds taken off the bias; labels (position,) token ids.
    """
    block = block or BLOCK.get(loc.device.type, BLOCK["cpu"])
    with coarsely(loc.device) if coarse else contextlib.nullcontext():
        return _OneVsRest.apply(law, loc, spread, weight, bias, labels, block)


def sampled(
    law: ModuleType,
    loc: torch.Tensor,
    spread: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    labels: torch.Tensor,
    drawn: torch.Tensor,
) -> torch.Tensor:
    """An unbiased estimate of that loss from some negatives: drawn are token ids, uniform with replacement.

    Each stands for vocabulary / len(drawn) tokens; where one is the position's own label it counts for nothing.
    """
    vocabulary = len(weight)
    own = weight[labels]
    right, _ = law.log_tails((loc * own).sum(-1) + bias[labels], (spread * law.weigh(own)).sum(-1))
    others = weight[drawn]
    _, wrong = law.log_tails(loc @ others.T + bias[drawn], spread @ law.weigh(others).T)
    negative = drawn != labels[:, None]
    return -right.sum() - (wrong * negative).sum() * (vocabulary / len(drawn))


class _OneVsRest(torch.autograd.Function):
    @staticmethod
    def forward(ctx, law, loc, spread, weight, bias, labels, block):
        wanted = ctx.needs_input_grad
        positions, vocabulary = len(loc), len(weight)
        columns = max(1, min(vocabulary, block // max(positions, 1)))
        columns = math.ceil(vocabulary / math.ceil(vocabulary / columns))  # blocks of one size
        total = torch.zeros((), dtype=torch.float64, device=loc.device)
        by_loc, by_spread = torch.zeros_like(loc), torch.zeros_like(spread)
        by_weight = torch.empty_like(weight) if wanted[3] else None
        by_bias = torch.empty_like(bias) if wanted[4] else None
        order = labels.argsort()
        ends = torch.searchsorted(labels[order], torch.arange(0, vocabulary + columns, columns, device=labels.device))
        ends_at = ends.tolist()
        for i, start in enumerate(range(0, vocabulary, columns)):
            part = weight[start : start + columns]
            magnitude = law.weigh(part)
            x = torch.addmm(
                bias[start : start + columns], loc, part.T, beta=-1, alpha=-1
            )  # C - loc: the miss is sought
            y = spread @ magnitude.T
            rows = order[ends_at[i] : ends_at[i + 1]]
            at = (rows, labels[rows] - start)
            right, right_x, right_y = law.surprise(-x[at], y[at])
            missed, gx, gy = law.surprise(x, y)
            missed[at] = right
            total += missed.sum(dtype=torch.float64)
            gx.neg_()
            gx[at], gy[at] = right_x, right_y
            by_loc.addmm_(gx, part)
            by_spread.addmm_(gy, magnitude)
            if by_weight is not None:
                held = by_weight[start : start + columns]
                torch.mm(gy.T, spread, out=held)
                held.mul_(law.slope(part)).addmm_(gx.T, loc)
            if by_bias is not None:
                by_bias[start : start + columns] = gx.sum(0)
        ctx.save_for_backward(by_loc, by_spread, by_weight, by_bias)
        return total.to(loc.dtype)

    @staticmethod
    def backward(ctx, grad):
        kept = ctx.saved_tensors
        scaled = [None if g is None else g.mul_(grad) for g in kept]  # no second backward pass: the memory is theirs
        return None, *scaled, None, None
