"""Bit sum: are q, k and v at use, bit for bit, what they were at entry?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from headtool.faults.bits import INTEGERS

if TYPE_CHECKING:
    from headtool.faults.guard import Before
    from headtool.models.sites import Sites

NAMES = ("bit-sum",)
QUANTITIES = ("q", "k", "v")
FACTOR = 1.0  # nothing may differ
TOLD = "a row of q, k or v whose bits have changed since entry"


def entry(before: Before) -> tuple[torch.Tensor, ...]:
    """The sum of the bit patterns of each row of q, k and v: (batch, head, row) int64, wrapping around."""
    return tuple(_sum(x) for x in (before.q, before.k, before.v))


def check(state: tuple[torch.Tensor, ...], sites: Sites) -> tuple[torch.Tensor, ...]:
    """1 where a row's sum has changed, else 0. One changed row cannot cancel out: the sum is modulo 2^64."""
    now = (_sum(x) for x in (sites.q, sites.k, sites.v))
    return tuple((a != b).float() for a, b in zip(state, now, strict=True))


def _sum(x: torch.Tensor) -> torch.Tensor:
    return x.contiguous().view(INTEGERS[x.dtype.itemsize]).sum(-1, dtype=torch.int64)
