"""Masked weight: does a key that a query may not see carry weight?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from headtool.faults.detectors.sums import over_hidden

if TYPE_CHECKING:
    from headtool.models.sites import Sites

NAMES = ("masked",)
QUANTITIES = ("weight",)
FACTOR = 4.0
TOLD = "weight on a hidden key"


def check(state: None, sites: Sites) -> tuple[torch.Tensor]:
    """The size of the sum of the weights of hidden keys, exactly 0 when all is well: (batch, head, 1).

    A weight that is not a number, wherever it stands, makes the sum none.
    """
    return (over_hidden(sites.weights, sites).abs(),)
