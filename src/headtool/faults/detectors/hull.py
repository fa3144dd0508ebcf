"""Convex hull: does each output lie between the smallest and the largest visible value, component by component?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from headtool.models.sites import Sites

NAMES = ("hull",)
QUANTITIES = ("component",)
FACTOR = 4.0
TOLD = "an output outside the range of the visible values"
ROWS = 16  # query rows at a time


def check(state: None, sites: Sites) -> tuple[torch.Tensor]:
    """How far the farthest component of an output is outside [min v, max v] of the visible keys, and of 0 where a sink
    takes part: (batch, head, query), 0 inside.

    A softmax gives weights that are positive and sum to 1, so every output is a mean of values.
    """
    group = sites.q.shape[1] // sites.k.shape[1]
    v = sites.v.float()
    outside = []
    for start in range(0, sites.out.shape[2], ROWS):
        seen = sites.visible[:, :, start : start + ROWS, :, None]  # (batch or 1, 1, rows, key, 1)
        low = v.unsqueeze(2).masked_fill(~seen, torch.inf).amin(3)  # (batch, kv_head, rows, head_dim)
        high = v.unsqueeze(2).masked_fill(~seen, -torch.inf).amax(3)
        if sites.sinks is not None:
            low, high = low.clamp(max=0), high.clamp(min=0)
        out = sites.out[:, :, start : start + ROWS].float()
        low, high = (x.repeat_interleave(group, 1) for x in (low, high))
        outside.append(torch.maximum(low - out, out - high).amax(-1).clamp(min=0))  # clamp keeps NaN
    return (torch.cat(outside, 2),)
