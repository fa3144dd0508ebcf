"""What a score gets to see of one layer on one batch."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True)
class OutputView:
    """The heads' outputs at the queries.

    z        (batch, query, head, head_dim), the heads of one layer or of several side by side
    factors  (head, head_dim, head_dim): R of W_O[:, h] = Q R, so that |W_O[:, h] z| = |R z|; None where not needed
    """

    z: torch.Tensor
    factors: torch.Tensor | None = None


@dataclass(frozen=True)
class RowsView:
    """The heads' attention rows at the queries, float32.

    weights  (batch, head, query, key), the heads of one layer or of several side by side; a row sums to 1 with its
             sink, masked keys weigh 0
    visible  (batch or 1, head or 1, query, key) bool
    scores   (batch, head, query, key) or None: ln(weights) up to a constant a row, 0 where the row is largest
    sink     (batch, head, query) or None: what a learned sink takes; it counts as one more visible key
    span     (batch, key) bool: the task span
    ids      (batch, position): the tokens
    query    (batch or 1, query): the position of each query
    """

    weights: torch.Tensor
    visible: torch.Tensor
    scores: torch.Tensor | None
    sink: torch.Tensor | None
    span: torch.Tensor
    ids: torch.Tensor
    query: torch.Tensor

    @property
    def keys(self) -> torch.Tensor:
        """How many keys each query sees, a sink included: (batch or 1, head or 1, query)."""
        return self.visible.sum(-1) + (self.sink is not None)

    def mass(self, keys: torch.Tensor) -> torch.Tensor:
        """The attention that goes to the marked keys, (batch, key) bool or (batch, query, key) bool: (batch, head, query)."""
        marked = keys.to(self.weights.dtype)
        return (self.weights * (marked[:, None, None] if marked.dim() == 2 else marked[:, None])).sum(-1)

    def even(self) -> RowsView:
        """The same rows with attention spread evenly over what each query sees, a sink included."""
        visible = self.visible.expand(len(self.weights), -1, -1, -1)
        share = 1 / self.keys.clamp(min=1).float().expand(visible.shape[:-1])
        sink = None if self.sink is None else share
        return replace(self, weights=visible * share[..., None], visible=visible, scores=None, sink=sink)

    def without_first(self, first: torch.Tensor) -> RowsView:
        """The same rows without the first valid key of each sequence, first (batch,), renormalised over the rest.

        Where nothing is left the row is zero and sees no key.
        """
        keys = self.weights.shape[-1]
        spared = torch.arange(self.span.shape[-1], device=first.device) != first[:, None]
        others = spared[:, :keys]  # a block of queries sees no later keys; the span has all of its tokens
        weights = self.weights * others[:, None, None]
        total = weights.sum(-1) + (0 if self.sink is None else self.sink)
        scale = torch.where(total > 0, 1 / total.clamp(min=torch.finfo(torch.float32).tiny), 0)
        sink = None if self.sink is None else self.sink * scale
        seen = self.visible & others[:, None, None]
        return RowsView(weights * scale[..., None], seen, None, sink, self.span & spared, self.ids, self.query)
