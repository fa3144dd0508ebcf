"""One sequence, recorded, and the model resumed from a layer and a position of it on, many variants at a time.

A fault at a position of a causal model leaves what comes before alone: only the positions from there on are run, against
the recorded keys and values of those before. Inside the faulty layer only the rows that the fault reaches are computed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from headtool.errors import FAILED, HeadtoolError
from headtool.models import sites
from headtool.models.attention import Call, ordinary
from headtool.models.batches import IGNORED, Batch
from headtool.models.clean import Clean, first, fused
from headtool.models.sites import Edit, Sites

if TYPE_CHECKING:
    from headtool.models.adapter import Adapter

CLOSE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}  # of each position's norm


class Suffix:
    """The recorded clean pass of one unpadded sequence: batch.ids is (1, position).

    cut: may positions before a fault be left out? (of a causal model that takes positions; see resumable)
    """

    def __init__(self, adapter: Adapter, batch: Batch, *, cut: bool) -> None:
        self.adapter, self.batch, self.cut = adapter, batch, cut
        self.clean = Clean(adapter)
        self.calls: list[Call] = []  # what each layer's attention function was given
        self.asked: list[tuple[Any, Any]] = []  # the arguments of an attention module that has no such function
        with contextlib.ExitStack() as stack:
            stack.enter_context(fused(adapter))
            stack.enter_context(self.clean.recording())
            for layer in range(adapter.geometry.layers):
                attention = adapter.attention(layer)
                if adapter.layout.interface:
                    stack.enter_context(sites.handled(attention, self._record))
                else:
                    handle = attention.register_forward_pre_hook(self._record_arguments, with_kwargs=True)
                    stack.callback(handle.remove)
            self.output = adapter.forward(batch)

    @property
    def length(self) -> int:
        return int(self.batch.ids.shape[1])

    @cached_property
    def read(self) -> torch.Tensor:
        """The positions whose logits the loss reads; of a classifier's one place."""
        targets = self.batch.targets
        assert targets is not None
        return targets if targets.dim() == 1 else (targets[0] != IGNORED).nonzero()[:, 0]

    def part(self, layer: int, heads: range, rows: range, copies: int) -> Call:
        """So many copies of what a layer's attention function was given, for some query heads and rows.

        The heads must be one group's or whole groups'.
        """
        call = sites.part(self.calls[layer], heads, rows)
        many = [x.expand(copies, *x.shape[1:]) for x in (call.query, call.key, call.value)]
        return replace(call, query=many[0], key=many[1], value=many[2])

    def own(self, layer: int, copies: int, edit: Edit) -> Sites:
        """What stands at the sites of a layer that computes its attention by itself, in so many copies, edited."""
        found: list[Sites] = []
        args, kwargs = self.asked[layer]
        args = tuple(_stacked(x, copies) for x in args)
        kwargs = {name: _stacked(x, copies) for name, x in kwargs.items()}
        with sites.opened(self.adapter, layer, edit, found.append):
            self.adapter.attention(layer)(*args, **kwargs)
        return found[0]

    def resume(self, layer: int, z: torch.Tensor, rows: range) -> tuple[Any, Batch]:
        """(output, batch): what the base model gives where a layer's heads put out z (variant, row, head x head_dim) at
        some rows and what was recorded at the others; the batch has the positions that were run, the variants' copies.
        """
        clean, n, adapter = self.clean, len(z), self.adapter
        start = rows.start if self.cut else 0
        if not clean.shortcut[layer]:  # its attention module runs, and wants all that comes after too
            full = clean.heads[layer][:, start:].repeat(n, 1, 1)
            full[:, rows.start - start : rows.stop - start] = z
            z, rows = full, range(start, self.length)
        hidden = clean.entering[layer][:, rows.start : rows.stop].expand(n, -1, -1)
        batch = self._copies(n, start)
        more = {}
        if start:
            position = torch.arange(start, self.length, device=batch.ids.device)
            more["position_ids"] = position.expand(n, -1)
        with contextlib.ExitStack() as stack:
            stack.enter_context(fused(adapter))
            stack.enter_context(clean.resumed(layer, hidden))
            stack.enter_context(clean.writing(layer, adapter.out(layer).forward(z)))
            stack.enter_context(self._widened(layer, rows, start))
            if start:
                for later in range(layer, adapter.geometry.layers):
                    stack.enter_context(self._after_prefix(later, start))
            return adapter.forward(batch, **more), batch

    @contextlib.contextmanager
    def _widened(self, layer: int, rows: range, start: int) -> Iterator[None]:
        """After the layer, what was recorded stands beside the rows that were computed."""
        left = self.clean.left[layer]

        def widen(module: Any, args: Any, output: Any) -> Any:
            new = first(output)
            sides = (left[:, start : rows.start], left[:, rows.stop :])
            before, after = (side.expand(len(new), -1, -1) for side in sides)
            whole = torch.cat([before, new, after], 1)
            return whole if isinstance(output, torch.Tensor) else (whole, *output[1:])

        handle = self.adapter.block(layer).register_forward_hook(widen)
        try:
            yield
        finally:
            handle.remove()

    def _after_prefix(self, layer: int, start: int) -> Any:
        recorded = self.calls[layer]
        mask = recorded.visible()[:, :, start:]

        def handle(call: Call) -> torch.Tensor:
            n = len(call.query)
            key = torch.cat([recorded.key[:, :, :start].expand(n, -1, -1, -1), call.key], 2)
            value = torch.cat([recorded.value[:, :, :start].expand(n, -1, -1, -1), call.value], 2)
            return ordinary(replace(call, key=key, value=value, mask=mask, causal=False))

        return sites.handled(self.adapter.attention(layer), handle)

    def _copies(self, n: int, start: int) -> Batch:
        b = self.batch
        sequence = (None if x is None else x[:, start:].expand(n, -1) for x in (b.ids, b.mask, b.types, b.span))
        ids, mask, types, span = sequence
        assert ids is not None
        assert mask is not None
        targets = b.targets
        if targets is not None:
            targets = targets.expand(n) if targets.dim() == 1 else targets[:, start:].expand(n, -1)
        return Batch(ids, mask, b.index.repeat(n), types, span, targets)

    def _record(self, call: Call) -> torch.Tensor:
        self.calls.append(call)
        return ordinary(call)

    def _record_arguments(self, module: Any, args: Any, kwargs: Any) -> None:
        self.asked.append((args, kwargs))


def _stacked(x: Any, n: int) -> Any:
    """Copies of hidden states; masks and distances, of a batch of one, serve all, and embeddings of distances have none."""
    many = isinstance(x, torch.Tensor) and x.is_floating_point() and x.dim() > 2 and len(x) == 1
    return x.expand(n, *x.shape[1:]) if many else x


def resumable(adapter: Adapter, batch: Batch) -> bool:
    """May positions before a fault be left out? Found out: the clean pass, resumed in the middle, must be itself.

    Raises HeadtoolError (exit 1) where not even the pass resumed at all positions is.
    """
    for cut in (True, False):
        if cut and not (adapter.layout.causal and adapter.layout.interface and "position_ids" in adapter.accepts):
            continue
        recorded = Suffix(adapter, batch, cut=cut)
        middle = recorded.length // 2
        for layer in range(adapter.geometry.layers):
            z = recorded.clean.heads[layer][:, middle : middle + 1].repeat(2, 1, 1)
            output, _ = recorded.resume(layer, z, range(middle, middle + 1))
            whole, again = recorded.output[0][:, middle if cut else 0 :].float(), output[0].float()
            apart = torch.linalg.vector_norm(again - whole, dim=-1) / torch.linalg.vector_norm(whole, dim=-1)
            if not bool((apart <= CLOSE[adapter.dtype]).all()):
                break
        else:
            return cut
    raise HeadtoolError("this model cannot be resumed from the middle", hint="please report it", code=FAILED)
