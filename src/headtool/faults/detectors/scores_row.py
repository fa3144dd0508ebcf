"""Scores row: a checksum of q k^T that a change of q, k or the scores breaks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from headtool.faults.detectors.sums import sum_over

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
    summed = _visible_sum(before).repeat_interleave(group, 1)  # (batch, head, query, head_dim)
    return (before.q.float() * summed).sum(-1) * before.scaling


def _visible_sum(before: Before) -> torch.Tensor:
    """The sum of the keys that each query may see: (batch, kv_head, query or 1, head_dim) float32."""
    k = before.k.float()
    if before.mask is not None:
        return before.mask.float() @ k
    return k.cumsum(2) if before.causal else k.sum(2, keepdim=True)


def check(state: torch.Tensor, sites: Sites) -> tuple[torch.Tensor]:
    """|sum of the visible scores - what it must be| of each row: (batch, head, query).

    Source: Huang and Abraham 1984, "Algorithm-Based Fault Tolerance for Matrix Operations".
    """
    return ((sum_over(sites.scores.float(), sites.visible) - state).abs(),)
