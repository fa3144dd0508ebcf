"""Bounds on a softmax row: how far the mean score must and can be below the largest.

For a row of n visible keys with scores a and weights w = softmax(a), in units of the scaling s:

    epsilon = (a* - sum w a) / s            a* = max a, w* = max w, gamma = a* minus the second largest
    lower1  = gamma e^-gamma / (1 + e^-gamma) / s
    middle  = gamma (1 - w*) / s
    upper1  = (a* - mean a) / s
    upper2  = [gamma (n-1) e^-gamma / (1 + (n-1) e^-gamma) if gamma >= W + 1 else W] / s,  W = LambertW((n-1)/e)

and lower1 <= middle <= epsilon <= min(upper1, upper2) for any scores. docs/methods.md has the argument.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.special import lambertw

if TYPE_CHECKING:
    from headtool.models.sites import Sites

METHODS = ("s@w", "q@o", "comb")
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}


@dataclass(frozen=True)
class Bounds:
    """Each (batch, head, query) float64; NaN where a row has one visible key. n: visible keys, a sink counted.

    margin: how far epsilon is inside [middle, upper] widened by the tolerance; negative is a violation.
    """

    n: torch.Tensor
    epsilon: torch.Tensor
    lower1: torch.Tensor
    middle: torch.Tensor
    upper1: torch.Tensor
    upper2: torch.Tensor
    margin: torch.Tensor


def of_sites(sites: Sites, method: str = "s@w", golden: Sites | None = None, tolerance: float | None = None) -> Bounds:
    """The bounds of each row, and epsilon by a method: from scores and weights (s@w), from <out, q> where K = V (q@o), or
    the one of the two that is farther outside (comb). golden: the clean sites, whose scores give the bounds instead.

    tolerance: relative, of max(1, |a*|); None is that of the dtype.
    """
    scale = sites.scaling or 1.0
    reference = golden if golden is not None else sites
    a, seen = reference.scores.double(), reference.visible
    a = a.masked_fill(~seen, -torch.inf)
    n = seen.sum(-1).expand(a.shape[:-1]).double()
    top = a.topk(min(2, a.shape[-1]), -1).values
    largest, second = top[..., 0], top[..., -1] if a.shape[-1] > 1 else torch.full_like(top[..., 0], -torch.inf)
    total = (a - largest[..., None]).exp().sum(-1)
    mean = a.masked_fill(~seen, 0).sum(-1) / n
    if reference.sinks is not None:
        sink = reference.sinks.double().view(1, -1, 1).expand_as(largest)
        above = torch.maximum(largest, sink)
        second = torch.where(sink > largest, largest, torch.maximum(second, sink))
        total = total * (largest - above).exp() + (sink - above).exp()
        mean, n, largest = (mean * n + sink) / (n + 1), n + 1, above
    gamma = largest - second
    others = (total - 1).clamp(min=0) / total  # 1 - w*, as the sum of the others
    e = (-gamma).exp()
    w = torch.from_numpy(np.real(lambertw(((n - 1) / np.e).cpu().numpy()))).to(n)
    upper2 = torch.where(gamma >= w + 1, gamma * (n - 1) * e / (1 + (n - 1) * e), w)
    lower1, middle, upper1 = gamma * e / (1 + e), gamma * others, largest - mean
    close = TOLERANCE.get(sites.scores.dtype, 2e-2) if tolerance is None else tolerance
    slack = close * largest.abs().clamp(min=1)
    upper = torch.minimum(upper1, upper2)

    def inside(epsilon: torch.Tensor) -> torch.Tensor:
        return (torch.minimum(epsilon - middle, upper - epsilon) + slack).nan_to_num(
            nan=-torch.inf
        )  # outside everything

    ways = {"s@w": (_from_scores,), "q@o": (_from_output,), "comb": (_from_scores, _from_output)}[method]
    found = [largest_of(sites) - way(sites) for way in ways]
    epsilon = found[0]
    if len(found) > 1:
        epsilon = torch.where(inside(found[1]) < inside(found[0]), found[1], found[0])
    skip = n < 2
    shaped = (lower1, middle, upper1, upper2, epsilon, inside(epsilon))
    lower1, middle, upper1, upper2, epsilon, margin = (x.masked_fill(skip, torch.nan) / scale for x in shaped)
    bad = ~skip & ~torch.isfinite(margin)  # a row that is not finite violates everything
    return Bounds(n, epsilon, lower1, middle, upper1, upper2, margin.masked_fill(bad, -torch.inf))


def largest_of(sites: Sites) -> torch.Tensor:
    """The largest score of each row over visible keys, and the sink's: (batch, head, query) float64."""
    largest = sites.scores.double().masked_fill(~sites.visible, -torch.inf).amax(-1)
    return largest if sites.sinks is None else torch.maximum(largest, sites.sinks.double().view(1, -1, 1))


def _from_scores(sites: Sites) -> torch.Tensor:
    """Sum of w a over visible keys, and the sink's."""
    a, w = sites.scores.double().masked_fill(~sites.visible, 0), sites.weights.double().masked_fill(~sites.visible, 0)
    mean = (w * a).sum(-1)
    if sites.sinks is not None:
        column = sites.sinks.double().view(1, -1, 1)
        rows = sites.scores.double().masked_fill(~sites.visible, -torch.inf).logsumexp(-1)
        mean = mean + column * (column - torch.logaddexp(rows, column)).exp()
    return mean


def _from_output(sites: Sites) -> torch.Tensor:
    """<out, q> scaling, which is the sum of w a where K = V (and nothing else takes part in the softmax)."""
    assert sites.scaling is not None
    return (sites.out.double() * sites.q.double()).sum(-1) * sites.scaling
