"""Negative: is an attention weight below zero? A softmax gives none, whatever its scores are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from headtool.models.sites import Sites

NAMES = ("negative",)
QUANTITIES = ("weight",)
FACTOR = 1.0  # times the largest of clean data, which is 0: any negative weight is an alarm
TOLD = "an attention weight below zero"


def check(state: None, sites: Sites) -> tuple[torch.Tensor]:
    """The size of the most negative weight of each row, 0 without one: (batch, head, query)."""
    return ((-sites.weights.float()).clamp(min=0).amax(-1),)  # clamp keeps NaN
