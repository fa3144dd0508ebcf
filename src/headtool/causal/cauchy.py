"""The Cauchy law: closed under linear maps with |weights|, and with tails that neither P nor 1 - P underflows in."""

from __future__ import annotations

import math

import torch

from headtool.causal.derivatives import Known

WIDE = 1e8  # from this ratio on r^2 + 1 is r^2, and r^2 may not be representable


def spread(scale: torch.Tensor) -> torch.Tensor:
    """What adds up: the scale itself."""
    return scale


def scale(spread: torch.Tensor) -> torch.Tensor:
    """The scale that a spread belongs to."""
    return spread


def weigh(weight: torch.Tensor) -> torch.Tensor:
    """What a weight multiplies the spread by: |w|."""
    return weight.abs()


def slope(weight: torch.Tensor) -> torch.Tensor:
    """The derivative of weigh."""
    return weight.sign()


def surprise(x: torch.Tensor, spread: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """-ln P(S > C) and its derivatives by x = loc - C and by the spread, each of the shape of x.

    P = 1/2 + atan(x / spread) / pi = atan2(spread, -x) / pi. The smaller of P and 1 - P is t = atan2(spread, |x|) / pi,
    accurate however small it is, and ln P is ln t or ln(1 - t): no epsilon, no cancellation in either tail.
    """
    inside = x > 0
    tail = torch.atan2(spread, x.abs()).div_(math.pi)
    p = torch.where(inside, 1 - tail, tail)
    loss = torch.where(inside, torch.log1p(-tail), tail.log()).neg_()
    common = (x.square() + spread.square()).mul_(p).mul_(math.pi).reciprocal_()
    return loss, -spread * common, x * common


def log_tails(x: torch.Tensor, spread: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Ln P(S > C) and ln P(S <= C), as surprise has them, for autograd."""
    return -Known.apply(surprise, x, spread), -Known.apply(surprise, -x, spread)


def probability(x: torch.Tensor, spread: torch.Tensor) -> torch.Tensor:
    """P(S > C), x = loc - C."""
    return torch.atan2(spread, -x) / math.pi


def standing(x: torch.Tensor, spread: torch.Tensor) -> torch.Tensor:
    """A number that grows with P(S > C): x in units of the scale."""
    return x / spread


def nll(value: torch.Tensor, loc: torch.Tensor, spread: torch.Tensor) -> torch.Tensor:
    """ln(pi scale) + ln(1 + r^2), r = (value - loc) / scale: minus the log density, in nats."""
    return _Density.apply(value, loc, spread)


def quantile(e: torch.Tensor) -> torch.Tensor:
    """The quantile of the standard law: tan(pi (e - 1/2)), as the cotangent where e is small."""
    low = torch.minimum(e, 1 - e)  # of the two halves the lower: its quantile is -1 / tan(pi e)
    return torch.where(low < 0.25, -1 / torch.tan(math.pi * low) * torch.sign(0.5 - e), torch.tan(math.pi * (e - 0.5)))


def half_width(level: float) -> float:
    """Half the width of the central interval of a level, in scales: tan(pi level / 2), 12.706 for 0.95."""
    return math.tan(math.pi * level / 2)


class _Density(torch.autograd.Function):
    """nll, with derivatives that do not cancel: by loc -2 d / (s^2 + d^2), by scale (s - d)(s + d) / (s (s^2 + d^2))."""

    @staticmethod
    def forward(ctx, value, loc, spread):
        away = value - loc
        ratio = (away / spread).abs()
        near = torch.log1p(ratio.clamp(max=WIDE).square())
        far = 2 * (away.abs().clamp(min=torch.finfo(away.dtype).tiny).log() - spread.log())  # the ratio may be infinite
        ctx.save_for_backward(away, spread)
        return math.log(math.pi) + spread.log() + torch.where(ratio < WIDE, near, far)

    @staticmethod
    def backward(ctx, grad):
        away, spread = ctx.saved_tensors
        length = torch.hypot(away, spread)
        by_loc = -2 * (away / length) / length
        by_spread = ((spread - away) / length) * ((spread + away) / length) / spread
        return -grad * by_loc, grad * by_loc, grad * by_spread
