"""headtool's own attention function, registered with transformers under one name together with its mask.

Unwatched it is the fused kernel. Watched at one position a sequence it computes those rows beside the kernel;
watched at all positions it computes the rows itself, a block of queries at a time, and the output from them.
So no more than one block of one layer's attention map is ever in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from headtool.errors import HeadtoolError

if TYPE_CHECKING:
    from torch import nn

NAME = "headtool"
WATCH = "_headtool_watch"  # the attribute of an attention module that holds its watch
HANDLER = "_headtool_handler"  # the attribute that holds a function (Call -> output) which takes the computation over
# Of a block's (batch, head, query, key), and its least rows: on a CPU a block should fit in the cache, on a GPU it
# should fill the device.
BLOCK_ELEMENTS = {"cpu": 1 << 17, "cuda": 1 << 24, "mps": 1 << 22}
BLOCK_ROWS = 16
# What families pass that changes nothing here: windows are in the mask, the rest is for other kernels.
IGNORED = frozenset(
    [
        "sliding_window",
        "deterministic",
        "position_ids",
        "output_attentions",
        "output_router_logits",
        "use_cache",
        "is_causal",
        "cache_position",
        "token_type_ids",
    ]
)


@dataclass(frozen=True)
class Rows:
    """Rows of attention: of each head, from one or more query positions to the keys.

    weights  (batch, head, query, key), float32; a row sums to 1, or to 1 - sink
    visible  (batch or 1, 1, query, key) bool: the keys that the query may see
    scores   (batch, head, query, key), float32: what the softmax was taken of, less the largest visible one of the row
             (so weights = exp(scores) times the row's largest weight); None where the family returns weights alone
    sink     (batch, head, query) or None: the weight that a learned sink takes (gpt-oss)
    first    the position of the first of the query rows, when they are consecutive positions; else None
    """

    weights: torch.Tensor
    visible: torch.Tensor
    scores: torch.Tensor | None
    sink: torch.Tensor | None
    first: int | None


@dataclass(frozen=True)
class Watch:
    """What to show of a layer's attention: rows at one position a sequence (at), or all rows (at=None)."""

    see: Callable[[Rows], None]
    at: torch.Tensor | None


@dataclass(frozen=True)
class Call:
    """What an attention module hands to its attention function.

    query (batch, head, position, head_dim), key and value (batch, kv_head, position, head_dim), mask bool
    (batch or 1, 1, query, key) or None, where `causal` says whether later positions are hidden.
    """

    module: nn.Module
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    mask: torch.Tensor | None
    causal: bool
    scaling: float
    softcap: float | None
    sinks: torch.Tensor | None  # one logit a head
    dropout: float = 0.0

    def visible(self) -> torch.Tensor:
        """(batch or 1, 1, query, key) bool: the keys that each query may see."""
        return _visible_block(self.mask, self.causal, 0, self.query.shape[2], self.key.shape[2], self.query.device)


def headtool_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention for transformers' AttentionInterface: query (batch, head, position, head_dim), key and value with
    their kv heads not repeated, mask bool or None; returns (batch, position, head, head_dim) and None.

    softcap: scores become softcap tanh(scores / softcap). s_aux: one sink logit a head.
    Raises HeadtoolError for an argument of the family that is not understood: nothing is ignored silently.
    """
    for name, given in kwargs.items():
        if given is not None and name not in IGNORED:
            raise HeadtoolError(
                f"this family's attention is given '{name}', which headtool does not understand",
                hint="see docs/families.md",
            )
    if attention_mask is not None and attention_mask.dtype != torch.bool:
        raise HeadtoolError(
            "this family adds a bias to its scores, which headtool does not understand", hint="see docs/families.md"
        )
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    causal = attention_mask is None and query.shape[2] > 1 and getattr(module, "is_causal", True)
    call = Call(module, query, key, value, attention_mask, causal, scaling, softcap, s_aux, dropout)
    handler: Callable[[Call], torch.Tensor] = getattr(module, HANDLER, None) or ordinary
    return handler(call), None


def ordinary(call: Call) -> torch.Tensor:
    """What the call comes to, (batch, position, head, head_dim), by the fused kernel where nobody wants to see more."""
    module, query, key, value, attention_mask = call.module, call.query, call.key, call.value, call.mask
    causal, scaling, softcap, s_aux = call.causal, call.scaling, call.softcap, call.sinks
    dropout = call.dropout
    watch: Watch | None = getattr(module, WATCH, None)
    plain = softcap is None and s_aux is None
    if watch is not None and watch.at is not None:
        at = watch.at.to(query.device)
        one = query[torch.arange(len(at), device=query.device), :, at].unsqueeze(2)  # (batch, head, 1, head_dim)
        seen = _visible_at(attention_mask, causal, at, key.shape[2])
        weights, scores, sink = _weights(one, key, seen, scaling, softcap, s_aux)
        watch.see(Rows(weights, seen, scores, sink, None))
    if plain and (watch is None or watch.at is not None):
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling)[0]
    output = torch.empty_like(query)
    for start, stop, keys in _blocks(query, key, causal_only=bool(getattr(module, "is_causal", False))):
        seen = _visible_block(attention_mask, causal, start, stop, keys, query.device)
        weights, scores, sink = _weights(query[:, :, start:stop], key[:, :, :keys], seen, scaling, softcap, s_aux)
        if watch is not None and watch.at is None:
            watch.see(Rows(weights, seen, scores, sink, start))
        dropped = torch.nn.functional.dropout(weights, dropout, training=module.training).to(value.dtype)
        output[:, :, start:stop] = by_group(dropped, value[:, :, :keys])
    return output.transpose(1, 2).contiguous()


def _blocks(query: torch.Tensor, key: torch.Tensor, causal_only: bool) -> list[tuple[int, int, int]]:
    """(start, stop, keys) of the blocks of query rows; a causal block needs no key beyond its last row."""
    batch, heads, length, _ = query.shape
    elements = BLOCK_ELEMENTS.get(query.device.type, BLOCK_ELEMENTS["cuda"])
    step = min(length, max(BLOCK_ROWS, elements // (batch * heads * key.shape[2])))
    triangular = causal_only and length == key.shape[2]
    return [
        (a, min(a + step, length), min(a + step, length) if triangular else key.shape[2])
        for a in range(0, length, step)
    ]


def _visible_at(mask: torch.Tensor | None, causal: bool, at: torch.Tensor, keys: int) -> torch.Tensor:
    if mask is not None:
        mask = mask.expand(len(at), *mask.shape[1:])
        return mask[torch.arange(len(at), device=mask.device), :, at].unsqueeze(2)
    if causal:
        return (torch.arange(keys, device=at.device) <= at[:, None])[:, None, None]
    return torch.ones(1, 1, 1, keys, dtype=torch.bool, device=at.device)


def _visible_block(
    mask: torch.Tensor | None, causal: bool, start: int, stop: int, keys: int, device: torch.device
) -> torch.Tensor:
    if mask is not None:
        return mask[:, :, start:stop, :keys]
    if causal:
        return (torch.arange(keys, device=device) <= torch.arange(start, stop, device=device)[:, None])[None, None]
    return torch.ones(1, 1, stop - start, keys, dtype=torch.bool, device=device)


def _weights(
    query: torch.Tensor,
    key: torch.Tensor,
    visible: torch.Tensor,
    scaling: float,
    softcap: float | None,
    sinks: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """softmax(mask(softcap(q k^T scaling))) in float32 at least, what it was taken of, and the sink's share; see Rows."""
    scores = full(by_group(query, key.transpose(2, 3))).mul_(scaling)
    if softcap is not None:
        scores = scores.div_(softcap).tanh_() * softcap  # a gradient needs what tanh gave
    # Added, not filled in: several times faster on a CPU, and the largest float swallows any score.
    scores += torch.where(visible, 0.0, torch.finfo(torch.float32).min).to(scores.dtype)
    largest = scores.detach().amax(-1, keepdim=True)  # a softmax does not see what all scores share
    scores -= largest
    if sinks is None:
        return scores.softmax(-1), scores, None
    column = sinks.to(scores.dtype).view(1, -1, 1, 1) - largest
    weights = torch.cat([scores, column], -1).softmax(-1)
    return weights[..., :-1], scores, weights[..., -1]


def full(x: torch.Tensor) -> torch.Tensor:
    """A tensor in float32 at least: a softmax or a cross-entropy in half precision is worth nothing."""
    return x if x.dtype == torch.float64 else x.float()


def by_group(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Left (batch, head, a, b) @ right (batch, kv_head, b, c), each kv head serving its group, without repeating it."""
    batch, heads, a, b = left.shape
    kv_heads = right.shape[1]
    if heads == kv_heads:
        return left @ right
    grouped = left.reshape(batch, kv_heads, heads // kv_heads * a, b) @ right
    return grouped.view(batch, heads, a, right.shape[-1])


AttentionInterface.register(NAME, headtool_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
