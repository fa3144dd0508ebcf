"""See and edit a model at its sites while it runs: context managers, whose hooks are always removed."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from headtool.models.attention import WATCH, Rows, Watch

if TYPE_CHECKING:
    from torch import nn

    from headtool.models.adapter import Adapter


@contextlib.contextmanager
def observe(
    adapter: Adapter,
    *,
    outputs: Callable[[int, torch.Tensor], None] | None = None,
    rows: Callable[[int, Rows], None] | None = None,
    at: torch.Tensor | None = None,
    mask: torch.Tensor | None = None,
) -> Iterator[None]:
    """Show what each layer's heads do while the model runs inside.

    outputs(layer, z) gets the heads' outputs z (batch, position, head, head_dim): the input of the output projection.
    rows(layer, rows) gets attention rows: at one position a sequence, at (batch,), or with None at all positions,
    in blocks. mask (batch, position), 1 valid, is needed with rows by families that return their own weights.
    """
    g, layout = adapter.geometry, adapter.layout
    with contextlib.ExitStack() as stack:
        for layer in range(g.layers):
            if outputs is not None:

                def show_output(module: nn.Module, args: tuple[Any, ...], layer: int = layer) -> None:
                    outputs(layer, args[0].unflatten(-1, (g.heads, g.head_dim)))

                handle = adapter.out(layer).register_forward_pre_hook(show_output)
                stack.callback(handle.remove)
            if rows is not None:
                attention = adapter.attention(layer)

                def show_rows(seen: Rows, layer: int = layer) -> None:
                    rows(layer, seen)

                if layout.interface:
                    setattr(attention, WATCH, Watch(show_rows, at))
                    stack.callback(delattr, attention, WATCH)
                else:
                    assert mask is not None
                    stack.enter_context(_returned_weights(attention, show_rows, at, mask, layout.causal))
        yield


@contextlib.contextmanager
def gated(
    adapter: Adapter, gates: Mapping[int, torch.Tensor], instead: Mapping[int, torch.Tensor] | None = None
) -> Iterator[None]:
    """Multiply the heads' outputs by gates while the model runs inside.

    gates: layer -> (head,) or (batch, head). A gate of 0 is the head with its columns of W_O set to zero; all
    gates at 1 change nothing, bit for bit. instead: layer -> what a gate of 0 lets through in the head's place,
    (batch or 1, position or 1, head, head_dim).
    """
    g = adapter.geometry
    with contextlib.ExitStack() as stack:
        for layer, gate in gates.items():

            def apply(
                module: nn.Module, args: tuple[Any, ...], gate: torch.Tensor = gate, layer: int = layer
            ) -> tuple[Any, ...]:
                z = args[0].unflatten(-1, (g.heads, g.head_dim))
                factor = gate.to(z.device, z.dtype).view(-1, 1, g.heads, 1)
                if instead is not None:
                    return ((z * factor + instead[layer].to(z) * (1 - factor)).flatten(-2), *args[1:])
                return ((z * factor).flatten(-2), *args[1:])

            handle = adapter.out(layer).register_forward_pre_hook(apply)
            stack.callback(handle.remove)
        yield


@contextlib.contextmanager
def dialled(
    adapter: Adapter, dials: Sequence[torch.Tensor], reference: Mapping[int, torch.Tensor] | None = None
) -> Iterator[None]:
    """Move the heads' outputs towards a reference while the model runs inside: z + e (reference - z).

    dials: for each layer e (batch, head). reference: layer -> (batch or 1, position or 1, head, head_dim); None is zero.
    """
    g = adapter.geometry
    with contextlib.ExitStack() as stack:
        for layer, dial in enumerate(dials):

            def turn(
                module: nn.Module, args: tuple[Any, ...], dial: torch.Tensor = dial, layer: int = layer
            ) -> tuple[Any, ...]:
                z = args[0].unflatten(-1, (g.heads, g.head_dim))
                way = -z if reference is None else reference[layer].to(z) - z
                return ((z + dial.to(z.device, z.dtype)[:, None, :, None] * way).flatten(-2), *args[1:])

            stack.callback(adapter.out(layer).register_forward_pre_hook(turn).remove)
        yield


@contextlib.contextmanager
def _returned_weights(
    attention: nn.Module, see: Callable[[Rows], None], at: torch.Tensor | None, mask: torch.Tensor, causal: bool
) -> Iterator[None]:
    """Rows of a family whose attention returns its own weights (batch, head, query, key): asked for, shown, dropped."""
    signature = inspect.signature(attention.forward)
    asked = []

    def ask(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        bound = signature.bind(*args, **kwargs)
        asked.append(bool(bound.arguments.get("output_attentions", False)))
        bound.arguments["output_attentions"] = True
        return bound.args, bound.kwargs

    def take(module: nn.Module, args: tuple[Any, ...], output: tuple[Any, ...]) -> tuple[Any, ...]:
        weights = output[1].float()
        seen = mask.bool()[:, None, None, :].to(weights.device)
        positions = torch.arange(weights.shape[2], device=weights.device)
        if at is None:
            if causal:
                seen = seen & (positions <= positions[:, None])
            see(Rows(weights, seen, None, None, 0))
        else:
            batch = torch.arange(len(at), device=weights.device)
            where = at.to(weights.device)
            if causal:
                seen = seen & (positions <= where[:, None])[:, None, None]
            see(Rows(weights[batch, :, where].unsqueeze(2), seen, None, None, None))
        return output if asked.pop() else (output[0], None, *output[2:])

    handles = [attention.register_forward_pre_hook(ask, with_kwargs=True), attention.register_forward_hook(take)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
