"""Attention entropy: how concentrated a head's attention is."""

from __future__ import annotations

import torch

from headtool.scores.views import RowsView

NAMES = ("ent", "ent_rel")
NEEDS = "rows"


def ent(view: RowsView) -> torch.Tensor:
    """The negative entropy of each head's attention at the query: (batch, head, query), nats, float32.

    ent = sum_j w_j ln w_j over visible keys j, so 0 is one key and -ln n is uniform over n keys.
    Higher means more concentrated. Masked keys carry weight 0 and add nothing (xlogy(0, 0) = 0); the share of a
    learned sink is one more term.

    Source: Clark et al. 2019, "What Does BERT Look At? An Analysis of BERT's Attention".
    """
    if view.scores is None:
        value = torch.special.xlogy(view.weights, view.weights).sum(-1)
    else:  # ln w = score + ln of the row's largest weight: no logarithm for each key, which is a quarter of "all"
        total = 1.0 if view.sink is None else view.weights.sum(-1)
        value = (view.weights * view.scores).sum(-1) + total * view.weights.amax(-1).log()
    return value if view.sink is None else value + torch.special.xlogy(view.sink, view.sink)


def ent_rel(view: RowsView) -> tuple[torch.Tensor, torch.Tensor]:
    """The negative entropy over its largest possible size: (batch, head, query) in [-1, 0], and where it is defined.

    ent_rel = ent / ln n, n the number of visible keys: 0 is one key, -1 uniform. A query that sees one key alone
    has no entropy to compare with, and is left out.
    """
    n = view.keys
    return ent(view) / n.clamp(min=2).log(), (n > 1).all(1).expand(view.weights.shape[0], -1)
