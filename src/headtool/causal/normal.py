"""The normal law, for the ablation that asks what the heavy tails are worth: closed under linear maps with squared weights."""

from __future__ import annotations

import math
from statistics import NormalDist

import torch

from headtool.causal.derivatives import Known

ROOT = math.sqrt(2 * math.pi)


def spread(scale: torch.Tensor) -> torch.Tensor:
    """What adds up: the variance."""
    return scale.square()


def scale(spread: torch.Tensor) -> torch.Tensor:
    """The standard deviation of a variance."""
    return spread.sqrt()


def weigh(weight: torch.Tensor) -> torch.Tensor:
    """What a weight multiplies the variance by: w^2."""
    return weight.square()


def slope(weight: torch.Tensor) -> torch.Tensor:
    """The derivative of weigh."""
    return 2 * weight


def surprise(x: torch.Tensor, spread: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """-ln Phi(z), z = x / sqrt(spread), and its derivatives by x and by the spread.

    The hazard phi(z) / Phi(z) comes from the log of both, so that it is right where both underflow.
    """
    deviation = spread.sqrt()
    z = x / deviation
    log_p = torch.special.log_ndtr(z)
    hazard = torch.exp(-z.square() / 2 - math.log(ROOT) - log_p)
    return -log_p, -hazard / deviation, hazard * z / (2 * spread)


def log_tails(x: torch.Tensor, spread: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Ln P(S > C) and ln P(S <= C), as surprise has them, for autograd."""
    return -Known.apply(surprise, x, spread), -Known.apply(surprise, -x, spread)


def probability(x: torch.Tensor, spread: torch.Tensor) -> torch.Tensor:
    """P(S > C), x = loc - C."""
    return torch.special.log_ndtr(x / spread.sqrt()).exp()  # ndtr itself cancels in the lower tail


def standing(x: torch.Tensor, spread: torch.Tensor) -> torch.Tensor:
    """A number that grows with P(S > C)."""
    return x / spread.sqrt()


def nll(value: torch.Tensor, loc: torch.Tensor, spread: torch.Tensor) -> torch.Tensor:
    """ln(2 pi variance) / 2 + (value - loc)^2 / (2 variance): minus the log density, in nats."""
    return (2 * math.pi * spread).log() / 2 + (value - loc).square() / (2 * spread)


def quantile(e: torch.Tensor) -> torch.Tensor:
    """The quantile of the standard law."""
    return torch.special.ndtri(e)


def half_width(level: float) -> float:
    """Half the width of the central interval of a level, in standard deviations: 1.96 for 0.95."""
    return NormalDist().inv_cdf((1 + level) / 2)
