"""Attention to the diagonal: how much a head looks at the query's own token."""

from __future__ import annotations

import torch

from headtool.scores.views import RowsView

NAMES = ("self_attention",)
NEEDS = "rows"


def self_attention(view: RowsView) -> torch.Tensor:
    """The attention weight of the query's own position: (batch, head, query), from 0 to 1."""
    keys = torch.arange(view.weights.shape[-1], device=view.weights.device)
    return view.mass(keys == view.query[:, :, None])
