"""Exact ablation of single heads without running the model anew for each: one clean pass is recorded, then for each
layer the heads' variants are stacked in the batch and only the layers from there on are run.

It is the whole model that is called, on the inputs repeated, and no architecture is rebuilt: blocks before the layer pass
the recorded hidden state through, the layer's attention gives its recorded output with the head replaced, and in the last
block only the positions that the loss reads are computed. docs/design/importance.md says what that leaves out and why.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from headtool.models import heads as geometry
from headtool.models import hooks, sites
from headtool.models.attention import Call, ordinary
from headtool.models.batches import Batch
from headtool.models.clean import Clean, fused
from headtool.models.losses import losses

if TYPE_CHECKING:
    from headtool.models.adapter import Adapter


CANCELS = 2.0  # what W_O wrote over what is left of it without a head, from which that is not had by subtracting


class Sweep:
    """One batch, recorded: its losses, and those without any head.

    reference (layer -> (batch or 1, position or 1, head, head_dim)) is what takes the place of an ablated head's output:
    None is zero. read (batch, position) bool marks the positions whose last hidden state the loss depends on: None is all.
    The batch must not be padded where the family's blocks could see it; examples of one length never are.
    """

    def __init__(
        self,
        adapter: Adapter,
        batch: Batch,
        reference: dict[int, torch.Tensor] | None = None,
        read: torch.Tensor | None = None,
    ) -> None:
        self.adapter, self.batch, self.reference = adapter, batch, reference
        self.read = None if read is None or bool(read.all()) else read.flatten().nonzero()[:, 0]
        self.clean = Clean(adapter)
        with fused(adapter), self.clean.recording():
            self.loss, self.right = losses(adapter, batch, adapter.forward(batch))

    def without(self, layer: int, heads: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """(loss, right), each (head, batch) float32, with one of the named heads of a layer ablated at a time."""
        n, size = len(heads), len(self.batch.ids)
        batch = repeated(self.batch, n)
        with contextlib.ExitStack() as stack:
            stack.enter_context(fused(self.adapter))
            stack.enter_context(self.clean.resumed(layer, _stack(self.clean.entering[layer], n)))
            stack.enter_context(self.clean.writing(layer, self._written(layer, heads)))
            if self.read is not None:
                stack.enter_context(self._cut(n, ablated=layer == self.adapter.geometry.layers - 1))
            loss, right = losses(self.adapter, batch, self.adapter.forward(batch))
        return loss.view(n, size), right.view(n, size)

    def _written(self, layer: int, heads: Sequence[int]) -> torch.Tensor:
        """What the output projection makes of a layer's heads, once with each of the named ones ablated.

        W_O is linear: what was recorded, less what the head wrote, plus what its reference writes. Where that leaves little
        of what was recorded, rounding is too much of it, and W_O takes all the heads' outputs.
        """
        out, written = self.adapter.out(layer), self.clean.written[layer]
        if (
            getattr(getattr(out, "weight", None), "dtype", None) != written.dtype
        ):  # quantised: it has no slice of a head
            return self._through(layer, heads)
        weight = self.adapter.out_weight(layer)[list(heads)]
        new = torch.baddbmm(written.flatten(0, 1).expand(len(heads), -1, -1), self._change(layer, heads), weight)
        cancels = _norm(written[None]) > CANCELS * _norm(new)
        if again := [copy for copy, much in enumerate(cancels.tolist()) if much]:
            whole = self._through(layer, [heads[copy] for copy in again])
            new[again] = whole.view(len(again), *new.shape[1:])
        return new.view(-1, *written.shape[1:])

    def _change(self, layer: int, heads: Sequence[int]) -> torch.Tensor:
        """What ablation adds to the outputs of each of the named heads: (named, batch x position, head_dim)."""
        g = self.adapter.geometry
        z = self.clean.heads[layer].unflatten(-1, (g.heads, g.head_dim))
        named = torch.tensor(heads, device=z.device)
        change = -z.index_select(2, named)
        if self.reference is not None:  # which may be on another layer's device
            change = change + self.reference[layer].to(z).index_select(2, named)
        return change.movedim(2, 0).flatten(1, 2)

    def _through(self, layer: int, heads: Sequence[int]) -> torch.Tensor:
        """The same by the whole product."""
        g = self.adapter.geometry
        z = self.clean.heads[layer].unflatten(-1, (g.heads, g.head_dim))
        each = z.expand(len(heads), *z.shape).clone()
        for copy, head in enumerate(heads):
            each[copy, :, :, head] = 0 if self.reference is None else self.reference[layer][:, :, head].to(z)
        return self.adapter.out(layer).forward(each.flatten(0, 1).flatten(-2))

    @contextlib.contextmanager
    def _cut(self, n: int, *, ablated: bool) -> Iterator[None]:
        """In the last block, run what works position by position on the positions that are read alone.

        The others keep zeros, which nobody looks at: keys and values of the block are made before.
        """
        assert self.read is not None
        size, width = self.batch.ids.shape
        rows = (self.read + torch.arange(n, device=self.read.device)[:, None] * size * width).flatten()
        layout, block = self.adapter.layout, self.adapter.block(self.adapter.geometry.layers - 1)
        chains = [layout.ffn] if ablated else [(layout.out,), layout.ffn]
        attends = layout.interface and not ablated  # DeBERTa asks its query about distances as well
        if layout.query is not None and attends:
            chains.append((layout.query,))
        with contextlib.ExitStack() as stack:
            if attends:
                places = (self.read % width).unique()
                # Of a causal model the kernel leaves out half by itself; of any, copies and a mask cost something.
                if 2 * len(places) <= width:
                    attention = self.adapter.attention(self.adapter.geometry.layers - 1)
                    stack.enter_context(sites.handled(attention, _queries_at(places)))
            for chain in chains:
                for path in chain:
                    module = geometry.submodule(block, path)
                    stack.callback(module.register_forward_pre_hook(_gather(rows, n * size * width)).remove)
                    if path == chain[-1]:
                        stack.callback(module.register_forward_hook(_scatter(rows, n * size, width)).remove)
            yield


def _norm(x: torch.Tensor) -> torch.Tensor:
    """The norm of each of the first axis, in float32 at least."""
    return torch.linalg.vector_norm(x.flatten(1), dim=1, dtype=torch.promote_types(x.dtype, torch.float32))


def _queries_at(places: torch.Tensor) -> Any:
    """An attention function that leaves zeros at all positions but some."""

    def attend(call: Call) -> torch.Tensor:
        at = places.to(call.query.device)
        mask = None if call.mask is None and not call.causal else call.visible()[:, :, at]
        some = ordinary(replace(call, query=call.query[:, :, at], mask=mask, causal=False))
        batch, heads, length, _ = call.query.shape
        output = some.new_zeros(batch, length, heads, some.shape[-1])
        output[:, at] = some
        return output

    return attend


def _gather(rows: torch.Tensor, total: int) -> Any:
    def gather(module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(_rows_of(x, rows) if _positions(x) == total else x for x in args)

    return gather


def _rows_of(x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    chosen = x.flatten(0, -2).index_select(0, rows.to(x.device))
    return chosen if x.dim() == 2 else chosen[None]


def _scatter(rows: torch.Tensor, size: int, width: int) -> Any:
    def scatter(module: Any, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        full = output.new_zeros(size * width, output.shape[-1])
        full.index_copy_(0, rows.to(output.device), output.flatten(0, -2))
        return full if output.dim() == 2 else full.view(size, width, -1)

    return scatter


def _positions(x: Any) -> int:
    """How many positions a tensor holds a vector for; 0 for anything else."""
    return x.numel() // x.shape[-1] if isinstance(x, torch.Tensor) and x.dim() > 1 else 0


def plain(
    adapter: Adapter, batch: Batch, layer: int, head: int, reference: dict[int, torch.Tensor] | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """(loss, right), each (batch,), with one head ablated, the naive way: the whole model with a hook at the head."""
    gate = torch.ones(adapter.geometry.heads)
    gate[head] = 0
    with hooks.gated(adapter, {layer: gate}, instead=reference):
        return losses(adapter, batch, adapter.forward(batch))


def repeated(batch: Batch, n: int) -> Batch:
    """N copies of a batch, one after the other."""
    kinds = (batch.types, batch.span, batch.targets)
    types, span, targets = (None if x is None else _stack(x, n) for x in kinds)
    return Batch(_stack(batch.ids, n), _stack(batch.mask, n), batch.index, types, span, targets)


def _stack(x: torch.Tensor, n: int) -> torch.Tensor:
    return x.repeat(n, *[1] * (x.dim() - 1))
