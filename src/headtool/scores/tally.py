"""One batch: run the model, show the scores what they need layer by layer, and add up over the queries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Literal

import numpy as np
import torch

from headtool import folder
from headtool.errors import FAILED, HeadtoolError
from headtool.models import hooks
from headtool.models.adapter import Adapter
from headtool.models.attention import Rows
from headtool.models.batches import Batch
from headtool.scores.output import factors
from headtool.scores.views import OutputView, RowsView

SCORES = "headtool.scores"
Query = Literal["last", "first", "all"]
MOST_HELD = 1 << 22  # attention weights of rows at one position that wait to be scored with other layers


def score_module(name: str) -> ModuleType:
    """The module of a score. Raises HeadtoolError for an unknown name."""
    return folder.load(SCORES, name, "score")


@torch.inference_mode()
def score_batch(
    adapter: Adapter, batch: Batch, scores: Sequence[str], query: Query, exclude_bos: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The scores of each example of a batch: values (score, batch, layer, head) float64, where defined (score, batch), and what
    even attention would score (score, batch), NaN for scores of outputs.

    An example's score is the mean over its queries: its last or first valid position, or all valid positions.
    Raises HeadtoolError where the model gives numbers that are not finite.
    """
    tally = _Tally(adapter, batch, scores, query, exclude_bos)
    rows = tally.rows if tally.by_need["rows"] or tally.by_need["repeats"] else None
    outputs = tally.outputs if tally.by_need["output"] else None
    with hooks.observe(adapter, outputs=outputs, rows=rows, at=tally.at, mask=batch.mask):
        adapter.forward(batch)
    return tally.result()


class _Tally:
    """Sums over the queries of one batch, filled layer by layer while the model runs."""

    def __init__(self, adapter: Adapter, batch: Batch, scores: Sequence[str], query: Query, exclude_bos: bool) -> None:
        self.adapter, self.batch, self.scores, self.exclude_bos = adapter, batch, scores, exclude_bos
        self.at = {"last": batch.last, "first": batch.first, "all": None}[query]
        self.valid = batch.mask.bool()
        self.by_need: dict[str, list[tuple[int, Callable]]] = {"output": [], "rows": [], "repeats": []}
        for s, name in enumerate(scores):
            module = score_module(name)
            self.by_need[module.NEEDS].append((s, getattr(module, name)))
        g = adapter.geometry
        self.sums = torch.zeros(len(scores), g.layers, len(batch.ids), g.heads, device=batch.ids.device)
        self.n = torch.zeros(len(scores), g.layers, len(batch.ids), device=batch.ids.device)
        self.even = torch.zeros_like(self.n)
        self.evenly: dict[int, tuple[torch.Tensor, dict[int, torch.Tensor]]] = {}
        self.needs_factors = "resid" in scores
        # At one position a sequence little is kept of a layer, and the layers are scored together: on a small model
        # the calls would cost as much as the model.
        self.outputs_kept: list[tuple[int, torch.Tensor]] = []
        self.rows_kept: list[tuple[int, Rows]] = []

    def outputs(self, layer: int, z: torch.Tensor) -> None:
        if self.at is None:
            self._score_outputs([layer], z, self.valid)
            return
        self.outputs_kept.append((layer, z[torch.arange(len(z), device=z.device), self.at.to(z.device)].unsqueeze(1)))
        if layer == self.adapter.geometry.layers - 1:
            layers, kept = zip(*self.outputs_kept, strict=True)
            self._score_outputs(layers, torch.cat([each.to(self.sums.device) for each in kept], 2), None)

    def rows(self, layer: int, seen: Rows) -> None:
        if self.at is None:
            self._score_rows([layer], seen)
            return
        self.rows_kept.append((layer, seen))
        held = sum(each.weights.numel() for _, each in self.rows_kept)
        if layer == self.adapter.geometry.layers - 1 or held > MOST_HELD:
            layers, kept = zip(*self.rows_kept, strict=True)
            self.rows_kept.clear()
            self._score_rows(layers, _side_by_side(kept, self.sums.device))

    def _score_outputs(self, layers: Sequence[int], z: torch.Tensor, counted: torch.Tensor | None) -> None:
        factors = None
        if self.needs_factors:
            factors = torch.cat([_factors(self.adapter, layer).to(z.device) for layer in layers])
        self._add(layers, "output", OutputView(z, factors), counted)

    def _score_rows(self, layers: Sequence[int], seen: Rows) -> None:
        batch, device = self.batch, seen.weights.device
        assert batch.span is not None
        counted: torch.Tensor | None = None
        start = seen.first or 0
        if self.at is None:
            stop = start + seen.weights.shape[2]
            query = torch.arange(start, stop, device=device)[None]
            counted = self.valid[:, start:stop]
        else:
            query = self.at.to(device)[:, None]
        span, ids = batch.span.to(device), batch.ids.to(device)
        view = RowsView(seen.weights, seen.visible, seen.scores, seen.sink, span, ids, query)
        if self.exclude_bos:
            view = view.without_first(batch.first.to(device))
            left = view.visible.any(-1).all(1)
            counted = left if counted is None else counted.to(device) & left
        self._add(layers, "rows", view, counted)
        self._add(layers, "repeats", view, counted)
        for s, evenly in self._evenly(view, start, counted).items():
            self.even[s, list(layers)] += evenly.to(self.even.device)

    def _evenly(self, view: RowsView, start: int, counted: torch.Tensor | None) -> dict[int, torch.Tensor]:
        """What the scores of rows are with even attention: (batch,) each, summed over the queries from start on. Most layers see
        what the one before them saw, and need no new answer.
        """
        keys = view.keys
        known = self.evenly.get(start)
        if known is None or not torch.equal(known[0], keys.to(known[0].device)):
            even = view.even()
            on_rows = [*self.by_need["rows"], *self.by_need["repeats"]]
            # alike in all heads, but where layers at one position have windows of their own
            known = keys, {s: _counted(function(even), counted)[0].mean(1).sum(-1) for s, function in on_rows}
            self.evenly[start] = known
        return known[1]

    def _add(self, layers: Sequence[int], need: str, view: OutputView | RowsView, counted: torch.Tensor | None) -> None:
        """Add the scores of layers, whose heads stand side by side in the view, at the queries that count.

        counted is (batch, query), or None for all of them.
        """
        at, heads = list(layers), self.adapter.geometry.heads
        for s, function in self.by_need[need]:
            values, defined = _counted(function(view), counted)
            by_layer = values.sum(-1).unflatten(1, (len(at), heads)).transpose(0, 1)  # (layer, batch, head)
            self.sums[s, at] += by_layer.to(self.sums.device)
            self.n[s, at] += values.shape[-1] if defined is None else defined.sum(-1).to(self.n.device)

    def result(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        means = (self.sums / self.n.clamp(min=1)[..., None]).cpu().double().numpy()  # (score, layer, batch, head)
        bad = np.argwhere(~np.isfinite(means))
        if len(bad):
            s, layer = bad[0][:2]
            raise HeadtoolError(
                f"layer {layer} gives numbers that are not finite ('{self.scores[s]}')",
                hint="--dtype fp32 or bf16",
                code=FAILED,
            )
        even = (self.even / self.n.clamp(min=1)).mean(1).cpu().double().numpy()
        even[[s for s, _ in self.by_need["output"]]] = np.nan
        return means.transpose(0, 2, 1, 3), (self.n[:, 0] > 0).cpu().numpy(), even


def _counted(
    given: torch.Tensor | tuple[torch.Tensor, torch.Tensor], counted: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """What a score gave (batch, head, query), 0 where it is not defined or counted; where it is both, None for everywhere."""
    values, defined = given if isinstance(given, tuple) else (given, None)
    if counted is not None:
        defined = counted.to(values.device) if defined is None else defined & counted.to(values.device)
    return (values if defined is None else values.masked_fill(~defined[:, None], 0)), defined


def _side_by_side(rows: Sequence[Rows], device: torch.device) -> Rows:
    """Rows of several layers at the same queries as rows of so many more heads."""

    def join(parts: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.cat([part.to(device) for part in parts], 1)

    shape = rows[0].weights.shape
    alike = all(torch.equal(each.visible, rows[0].visible) for each in rows)  # no layer has a window of its own
    visible = rows[0].visible if alike else join([each.visible.expand(shape) for each in rows])
    scores = [each.scores for each in rows if each.scores is not None]
    sinks = [each.sink for each in rows if each.sink is not None]
    weights = join([each.weights for each in rows])
    return Rows(weights, visible.to(device), join(scores) if scores else None, join(sinks) if sinks else None, None)


def _factors(adapter: Adapter, layer: int) -> torch.Tensor:
    """The R factors of a layer's output projection, computed once a model."""
    known = adapter.__dict__.setdefault("_factors", {})
    if layer not in known:
        known[layer] = factors(adapter.out_weight(layer))
    return known[layer]
