"""Row sum: do the weights of a row still sum to 1?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from headtool.models.sites import Sites

NAMES = ("rowsum",)
QUANTITIES = ("sum",)
FACTOR = 4.0
TOLD = "a row of weights that does not sum to 1"


def check(state: None, sites: Sites) -> tuple[torch.Tensor]:
    """|sum of the weights - 1| of each row: (batch, head, query), summed in float32. A sink's share counts as weight."""
    total = sites.weights.sum(-1, dtype=torch.float32)
    if sites.sinks is not None:
        column = sites.sinks.float().view(1, -1, 1)
        total = total + (column - torch.logaddexp(sites.scores.float().logsumexp(-1), column)).exp()
    return ((total - 1).abs(),)
