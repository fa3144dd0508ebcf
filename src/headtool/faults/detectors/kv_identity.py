"""K = V identity: with shared keys and values, <out, q> scaling is the weighted mean of the scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from headtool.faults.detectors.sums import over_visible

if TYPE_CHECKING:
    from headtool.models.sites import Sites

NAMES = ("kv-identity",)
QUANTITIES = ("row",)
FACTOR = 4.0
TOLD = "<out, q> scaling that is not the mean of the scores (needs K = V)"


def check(state: None, sites: Sites) -> tuple[torch.Tensor]:
    """|<out, q> scaling - sum of w a| of each row: (batch, head, query).

    out = sum w k where K = V, so <out, q> scaling = sum w (k . q) scaling = sum w a.
    """
    assert sites.scaling is not None
    told = (sites.out.float() * sites.q.float()).sum(-1) * sites.scaling
    return ((told - over_visible(sites.weights.float() * sites.scores.float(), sites)).abs(),)
