"""Sums over keys that a mask chooses, in one pass over the attention map."""

from __future__ import annotations

import torch


def sum_over(x: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Sums over the chosen keys: x (batch, head, query, key), chosen (batch or 1, 1, query, key) bool; in x's dtype.

    As a product of matrices where the mask is the same for all sequences: nothing of the map's size is written.
    """
    if len(chosen) == 1:
        flat = x.flatten(0, 1).transpose(0, 1)  # (query, batch x head, key)
        found = torch.bmm(flat, chosen[0, 0].to(x.dtype).unsqueeze(-1))  # (query, batch x head, 1)
        return found[..., 0].T.unflatten(0, x.shape[:2])
    return (x * chosen.to(x.dtype)).sum(-1)
