"""Sums over the keys that are visible, or hidden, in one pass over the attention map and without a copy of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from headtool.models.sites import Sites

ROWS = 32  # of a block along the diagonal


def over_visible(x: torch.Tensor, sites: Sites) -> torch.Tensor:
    """The sum of each row of x over its visible keys: x (batch, head, query, key) -> (batch, head, query), in x's dtype."""
    if sites.reach == "all":
        return x.sum(-1)
    if sites.reach == "earlier" and not x.is_cuda:  # on a GPU its many small sums take longer than what they leave out
        return _triangle(x)
    return x.masked_fill(~sites.visible, 0).sum(-1)  # not times 0: a hidden key's score may not be a number


def over_hidden(x: torch.Tensor, sites: Sites) -> torch.Tensor:
    """The sum of a head's x over all that is hidden: x (batch, head, query, key) -> (batch, head, 1), in x's dtype."""
    if sites.reach == "all":
        return x.new_zeros(*x.shape[:2], 1)
    hidden = (~sites.visible[:, 0]).flatten(1).to(x.dtype)  # (batch or 1, query x key)
    if len(hidden) == 1:  # the same for all sequences: one product of a matrix and a vector
        return (x.flatten(2).flatten(0, 1) @ hidden[0]).view(*x.shape[:2], 1)
    return x.flatten(2) @ hidden.unsqueeze(-1)


def _triangle(x: torch.Tensor) -> torch.Tensor:
    """Row sums of a lower triangle: what is left of a block of rows as it is, of the block on the diagonal its own triangle."""
    sums = []
    for start in range(0, x.shape[2], ROWS):
        stop = min(start + ROWS, x.shape[2])
        rows = x[:, :, start:stop]
        found = rows[..., start:stop].tril().sum(-1)
        sums.append(found + rows[..., :start].sum(-1) if start else found)
    return torch.cat(sums, 2)
