"""Scores row: a checksum of q k^T that a change of q, k or the scores breaks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from headtool.faults.detectors.sums import over_visible

if TYPE_CHECKING:
    from headtool.faults.guard import Before
    from headtool.models.sites import Sites

NAMES = ("scores-row",)
QUANTITIES = ("row",)
FACTOR = 4.0
TOLD = "a row of scores that does not sum to q . (sum of k)"


def entry(before: Before) -> torch.Tensor:
    """What each row of scores must sum to: q . (sum of k over the visible keys) scaling, (batch, head, query) float32."""
    assert before.scaling is not None
    group = before.q.shape[1] // before.k.shape[1]
    q = before.q.float().transpose(1, 2).unflatten(2, (-1, group))  # (batch, query, kv_head, group, head_dim)
    told = (q * _visible_sum(before).unsqueeze(3)).sum(-1)
    return told.flatten(2).transpose(1, 2) * before.scaling


def _visible_sum(before: Before) -> torch.Tensor:
    """The sum of the keys that each query may see: (batch, query or 1, kv_head, head_dim) float32."""
    k = before.k.float().transpose(1, 2)  # as the projection laid it out
    if before.mask is not None:
        return torch.einsum("bhqk,bkgd->bqgd", before.mask.float().expand(len(k), -1, -1, -1), k)
    if not before.causal:
        return k.sum(1, keepdim=True)
    flat = k.flatten(2)
    return (flat.cumsum(1) if flat.is_cuda else _running(flat)).unflatten(2, k.shape[2:])


def _running(x: torch.Tensor) -> torch.Tensor:
    """Cumulative sums over positions, x (batch, position, feature): on a CPU several times faster than cumsum, which goes
    through each feature by itself.
    """
    sums = torch.empty_like(x)
    above = torch.zeros_like(x[:, 0])
    for row, into in zip(x.unbind(1), sums.unbind(1), strict=True):
        above = torch.add(above, row, out=into)
    return sums


def check(state: torch.Tensor, sites: Sites) -> tuple[torch.Tensor]:
    """|sum of the visible scores - what it must be| of each row: (batch, head, query).

    Source: Huang and Abraham 1984, "Algorithm-Based Fault Tolerance for Matrix Operations".
    """
    return ((over_visible(sites.scores.float(), sites) - state).abs(),)
