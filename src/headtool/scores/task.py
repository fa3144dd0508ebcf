"""Task attention: how much a head looks at the part of the input that the task is about."""

from __future__ import annotations

import torch

from headtool.scores.views import RowsView

NAMES = ("task",)
NEEDS = "rows"


def task(view: RowsView) -> tuple[torch.Tensor, torch.Tensor]:
    """The attention from the query to a token of the task span: (batch, head, query), 1/token, and where defined.

    task = sum of w_j over the tokens j of the span, over the number of those tokens. An example without a span
    (or whose span was cut away) has no score: it is counted and left out.
    """
    span = view.span[:, : view.weights.shape[-1]]
    tokens = view.span.sum(-1)
    value = view.mass(span) / tokens.clamp(min=1)[:, None, None]
    return value, (tokens > 0)[:, None].expand(-1, value.shape[-1])
