"""Out checksum: a random projection of w v that a change of v or of the output breaks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from headtool.models.attention import by_group

if TYPE_CHECKING:
    from headtool.faults.guard import Before
    from headtool.models.sites import Sites

NAMES = ("out-checksum",)
QUANTITIES = ("row",)
FACTOR = 4.0
TOLD = "an output that is not the weights times v"
SEED = 20  # of r


def _projection(head_dim: int, like: torch.Tensor) -> torch.Tensor:
    """R (head_dim,): numbers of either sign between 1/2 and 1, the same in every call."""
    generator = torch.Generator().manual_seed(SEED)
    r = (torch.rand(head_dim, generator=generator) + 1) / 2
    return (r * (torch.randint(0, 2, (head_dim,), generator=generator) * 2 - 1)).to(like.device)


def entry(before: Before) -> torch.Tensor:
    """V r before anything can happen to v: (batch, kv_head, key, 1) float32."""
    return before.v.float() @ _projection(before.v.shape[-1], before.v)[:, None]


def check(state: torch.Tensor, sites: Sites) -> tuple[torch.Tensor]:
    """|out . r - w (v r)| of each row: (batch, head, query).

    Source: Freivalds 1977, "Probabilistic Machines Can Use Less Running Time"; Huang and Abraham 1984.
    """
    told = sites.out.float() @ _projection(sites.out.shape[-1], sites.out)
    return ((told - by_group(sites.weights.float(), state)[..., 0]).abs(),)
