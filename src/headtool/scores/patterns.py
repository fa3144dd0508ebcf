"""Attention patterns on repeated random tokens: previous token, first token, duplicate token, induction.

Each is the share of a head's attention that goes to the keys a pattern names, the mean over queries. On random
tokens that come twice nothing but the repetition can be made use of, so the score is the head's, not the text's.

Source: Olsson et al. 2022, "In-context Learning and Induction Heads"; the patterns and the measure ("mul") are those
of TransformerLens' head detector.
"""

from __future__ import annotations

import torch

from headtool.scores.views import RowsView

NAMES = ("previous", "first", "duplicate", "induction")
NEEDS = "repeats"


def previous(view: RowsView) -> torch.Tensor:
    """The share of attention that goes to the token before: (batch, head, query)."""
    return view.mass(_positions(view) == view.query[:, :, None] - 1)


def first(view: RowsView) -> tuple[torch.Tensor, torch.Tensor]:
    """The share of attention that goes to the first token: (batch, head, query); the first query itself is left out."""
    to_first = (_positions(view) == 0).expand(len(view.ids), -1)
    return view.mass(to_first), (view.query > 0).expand(len(view.ids), -1)


def duplicate(view: RowsView) -> torch.Tensor:
    """The share of attention that goes to earlier copies of the query's token: (batch, head, query)."""
    return view.mass(_same_token(view, 0) & (_positions(view) < view.query[:, :, None]))


def induction(view: RowsView) -> torch.Tensor:
    """The share of attention that goes to tokens right after earlier copies of the query's: (batch, head, query)."""
    return view.mass(_same_token(view, 1) & (_positions(view) <= view.query[:, :, None]))


def _positions(view: RowsView) -> torch.Tensor:
    return torch.arange(view.weights.shape[-1], device=view.ids.device)


def _same_token(view: RowsView, shift: int) -> torch.Tensor:
    """(batch, query, key): the token shift places before the key is the query's."""
    query = view.ids.gather(1, view.query.expand(len(view.ids), -1))
    key = torch.nn.functional.pad(view.ids, (shift, 0), value=-1)[:, : view.weights.shape[-1]]
    return query[:, :, None] == key[:, None, :]
