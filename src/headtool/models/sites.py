"""The six sites of a layer's attention, computed in the open so that a tensor can be changed where it stands."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from headtool.errors import HeadtoolError
from headtool.models.attention import HANDLER, Call, by_group

if TYPE_CHECKING:
    from headtool.models.adapter import Adapter

SITES = ("q", "k", "v", "scores", "weights", "out")
Edit = Callable[[str, torch.Tensor], torch.Tensor]  # (site, tensor) -> the tensor that takes its place
See = Callable[["Sites"], None]


@dataclass(frozen=True)
class Sites:
    """What stood at the sites of one layer, in the model's dtype.

    q (batch, head, query, head_dim), after RoPE; k and v (batch, kv_head, key, head_dim)
    scores (batch, head, query, key): scaled, capped and masked (a hidden key has the least finite number)
    weights (batch, head, query, key): their softmax; out (batch, head, query, head_dim): the head's output before W_O
    visible (batch or 1, 1, query, key) bool; scaling: what q k^T is multiplied by, None where the scores hold other terms
    reach: the short form of visible, where it has one: "all" keys, or for as many queries as keys the "earlier" ones
    """

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    scores: torch.Tensor
    weights: torch.Tensor
    out: torch.Tensor
    visible: torch.Tensor
    scaling: float | None
    sinks: torch.Tensor | None = None
    reach: Literal["all", "earlier", "mask"] = "mask"


def unchanged(site: str, tensor: torch.Tensor) -> torch.Tensor:
    """The edit that edits nothing."""
    return tensor


def attend(call: Call, edit: Edit = unchanged) -> Sites:
    """Attention as transformers' eager functions compute it, each site passing through an edit on its way.

    softmax(mask(cap(q k^T scaling))) v with the softmax in float32 at least and everything else in the model's dtype.
    """
    visible = call.visible()
    q, k, v = edit("q", call.query), edit("k", call.key), edit("v", call.value)
    scores = by_group(q, k.transpose(2, 3)) * call.scaling
    if call.softcap is not None:
        scores = torch.tanh(scores / call.softcap) * call.softcap
    scores = edit("scores", scores.masked_fill(~visible, torch.finfo(scores.dtype).min))
    weights = edit("weights", _softmax(scores, call.sinks))
    out = edit("out", by_group(weights, v))
    reach: Literal["all", "earlier", "mask"] = "mask"
    if call.mask is None and q.shape[2] == k.shape[2]:
        reach = "earlier" if call.causal else "all"
    return Sites(q, k, v, scores, weights, out, visible, call.scaling, call.sinks, reach)


def _softmax(scores: torch.Tensor, sinks: torch.Tensor | None) -> torch.Tensor:
    wide = torch.promote_types(scores.dtype, torch.float32)
    if sinks is None:
        return scores.softmax(-1, dtype=wide).to(scores.dtype)
    column = sinks.view(1, -1, 1, 1).expand(len(scores), -1, scores.shape[2], 1).to(scores.dtype)
    return torch.cat([scores, column], -1).softmax(-1, dtype=wide)[..., :-1].to(scores.dtype)


def part(call: Call, heads: range, rows: range) -> Call:
    """The same call for some query heads, which are one or more whole groups' or one group's, and some query rows."""
    group = call.query.shape[1] // call.key.shape[1]
    shared = slice(heads.start // group, (heads.stop - 1) // group + 1)
    return replace(
        call,
        query=call.query[:, heads.start : heads.stop, rows.start : rows.stop],
        key=call.key[:, shared],
        value=call.value[:, shared],
        mask=call.visible()[:, :, rows.start : rows.stop],
        sinks=None if call.sinks is None else call.sinks[heads.start : heads.stop],
    )


def covered(adapter: Adapter) -> bool:
    """Do the family's six sites stand where they can be reached?"""
    return adapter.layout.interface or adapter.located.model_type == "deberta-v2"


def require(adapter: Adapter) -> None:
    """Raise HeadtoolError for a family whose attention keeps its sites to itself."""
    if not covered(adapter):
        raise HeadtoolError(
            f"models of type '{adapter.located.model_type}' compute their attention by themselves: nothing can be injected",
            hint="every family but falcon and bloom; see docs/inject.md",
        )


@contextlib.contextmanager
def opened(adapter: Adapter, layer: int, edit: Edit = unchanged, see: See | None = None) -> Iterator[None]:
    """Let a layer compute its attention in the open while the model runs inside; see is shown what stood at its sites."""
    attention = adapter.attention(layer)
    if adapter.layout.interface:

        def handle(call: Call) -> torch.Tensor:
            found = attend(call, edit)
            if see is not None:
                see(found)
            return found.out.transpose(1, 2).contiguous()

        with handled(attention, handle):
            yield
    else:
        with _own(adapter, layer, edit, see):
            yield


@contextlib.contextmanager
def handled(attention: Any, handler: Callable[[Call], torch.Tensor]) -> Iterator[None]:
    """Let a function take a module's attention over: it returns (batch, position, head, head_dim)."""
    setattr(attention, HANDLER, handler)
    try:
        yield
    finally:
        delattr(attention, HANDLER)


@contextlib.contextmanager
def _own(adapter: Adapter, layer: int, edit: Edit, see: See | None) -> Iterator[None]:
    """The sites of DeBERTa's attention: its projections' first outputs, the arguments of its one softmax, its output."""
    g, block, attention = adapter.geometry, adapter.block(layer), adapter.attention(layer)
    found: dict[str, Any] = {}

    def by_head(
        x: torch.Tensor,
    ) -> torch.Tensor:  # (batch, position, head x head_dim) -> (batch, head, position, head_dim)
        return x.unflatten(-1, (g.heads, g.head_dim)).transpose(1, 2)

    def flat(x: torch.Tensor) -> torch.Tensor:
        return x.transpose(1, 2).flatten(-2)

    def projected(site: str) -> Callable[..., Any]:
        def hook(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
            if site in found:  # asked again, about relative distances
                return output
            found[site] = edit(site, by_head(output))
            return flat(found[site])

        return hook

    def leave(module: Any, args: Any, output: Any) -> Any:
        out = edit("out", by_head(output[0]))
        if see is not None:
            visible = found["visible"]
            see(Sites(found["q"], found["k"], found["v"], found["scores"], found["weights"], out, visible, None))
        found.clear()
        return (flat(out), *output[1:])

    handles = [attention.register_forward_hook(leave)]
    for site, path in (("q", adapter.layout.query), ("k", adapter.layout.key), ("v", adapter.layout.value)):
        assert path is not None
        handles.append(block.get_submodule(path).register_forward_hook(projected(site)))
    forward = attention.__dict__.get("forward")
    inner = attention.forward

    def inside(*args: Any, **kwargs: Any) -> Any:
        with _AtSoftmax(edit, found):
            return inner(*args, **kwargs)

    attention.forward = inside
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        if forward is None:
            del attention.forward
        else:
            attention.forward = forward


class _AtSoftmax(TorchFunctionMode):
    """Lets what a softmax is taken of, and what it gives, pass through an edit."""

    def __init__(self, edit: Edit, found: dict[str, Any]) -> None:
        super().__init__()
        self.edit, self.found = edit, found

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is not functional.softmax:
            return function(*args, **kwargs)
        self.found["visible"] = (args[0] != torch.finfo(args[0].dtype).min).any(1, keepdim=True)
        self.found["scores"] = self.edit("scores", args[0])
        self.found["weights"] = self.edit("weights", function(self.found["scores"], *args[1:], **kwargs))
        return self.found["weights"]
