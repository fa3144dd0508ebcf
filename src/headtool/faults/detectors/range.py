"""Range: is any number larger than anything seen on clean data?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from headtool.models.sites import Sites

NAMES = ("range",)
QUANTITIES = ("q", "k", "v", "scores", "out")
FACTOR = 1.5  # times the largest of clean data
TOLD = "a number of q, k, v, scores or out beyond 1.5 times the largest of clean data"


def check(state: None, sites: Sites) -> tuple[torch.Tensor, ...]:
    """The largest |x| of each row of q, k, v and out, and the largest score of each row: (batch, head, row) each.

    A score far below the others only takes its key's weight away, which is for `scores-row` to see.

    Source: Chen et al. 2021, "A Low-cost Fault Corrector for Deep Neural Networks through Range Restriction" (Ranger).
    """
    sizes = [_largest(x) for x in (sites.q, sites.k, sites.v, sites.out)]
    return *sizes[:3], sites.scores.amax(-1), sizes[3]


def _largest(x: torch.Tensor) -> torch.Tensor:
    """The largest |x| of each row, without a copy of |x|: one kernel on a GPU, where a CPU is ten times slower so."""
    return torch.linalg.vector_norm(x, torch.inf, -1) if x.is_cuda else torch.maximum(x.amax(-1), -x.amin(-1))
