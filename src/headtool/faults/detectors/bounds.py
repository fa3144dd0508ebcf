"""Softmax bounds: is epsilon, how far the mean score is below the largest, where any scores would put it?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from headtool.faults.bounds import of_sites

if TYPE_CHECKING:
    from headtool.models.sites import Sites

NAMES = ("bounds",)
QUANTITIES = ("row",)
FACTOR = 4.0
TOLD = "a row whose mean score is outside what its scores allow (self reference, epsilon from scores and weights)"


def check(state: None, sites: Sites) -> tuple[torch.Tensor]:
    """How far epsilon is outside its bounds, 0 inside: (batch, head, query). See headtool.faults.bounds."""
    found = of_sites(sites)
    return ((-found.margin).clamp(min=0).nan_to_num(nan=0.0, posinf=torch.inf),)  # NaN: one visible key, no bounds
