"""Is a model really what its layout says? Checked on a few tokens whenever one is opened."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from headtool.errors import HeadtoolError
from headtool.models import hooks
from headtool.models.attention import Rows
from headtool.models.batches import Batch

if TYPE_CHECKING:
    from headtool.models.adapter import Adapter

TOLERANCE = {torch.float64: 2e-4, torch.float32: 2e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
HINT = "it may be another family's layout (see --family), or a family of its own"


@torch.no_grad()
def verify(adapter: Adapter, positions: int = 8) -> None:
    """Check on two short sequences, one of them padded, that in every layer

    - the heads' outputs through W_O, plus its bias, are what the output projection gives;
    - the rows of attention (with a sink's share) sum to 1, and see no later position where the family is causal;
    - headtool's attention gives the heads' outputs that the family's own eager attention gives.

    Raises HeadtoolError, naming the layer, where one does not hold.
    """
    g = adapter.geometry
    ids = torch.arange(2 * positions).view(2, positions) * 7919 % adapter.model.config.vocab_size
    mask = torch.ones_like(ids)
    mask[1, -2:] = 0
    ids[1, -2:] = adapter.pad
    batch = Batch(ids, mask, np.arange(2)).to(adapter.device)
    close = TOLERANCE.get(adapter.dtype, 1e-1)
    ours: dict[int, torch.Tensor] = {}
    given: dict[int, torch.Tensor] = {}

    def rows(layer: int, seen: Rows) -> None:
        start = seen.first or 0
        query = torch.arange(start, start + seen.weights.shape[2], device=seen.weights.device)
        valid = batch.mask.bool().to(query.device)[:, None, query]  # padded rows are nobody's
        total = seen.weights.sum(-1) + (0 if seen.sink is None else seen.sink)
        if not bool((((total - 1).abs() <= close) | ~valid).all()):
            raise HeadtoolError(f"layer {layer}: the rows of its attention do not sum to 1", hint=HINT)
        hidden = seen.weights * ~seen.visible
        if adapter.layout.causal:
            hidden = hidden + seen.weights * (torch.arange(seen.weights.shape[3], device=query.device) > query[:, None])
        if bool(((hidden.abs().amax(-1) > 0) & valid).any()):
            raise HeadtoolError(f"layer {layer}: its attention sees positions that it should not", hint=HINT)

    handles = [
        adapter.out(layer).register_forward_hook(lambda m, args, out, layer=layer: given.__setitem__(layer, out))
        for layer in range(g.layers)
    ]
    try:
        with hooks.observe(adapter, outputs=ours.__setitem__, rows=rows, mask=batch.mask):
            adapter.forward(batch)
    finally:
        for handle in handles:
            handle.remove()
    if len(ours) != g.layers:
        raise HeadtoolError(f"only {len(ours)} of {g.layers} layers passed through their output projection", hint=HINT)
    for layer in range(g.layers):
        if adapter.out(layer).weight.is_floating_point():
            by_head = torch.einsum("bthd,hdw->btw", ours[layer], adapter.out_weight(layer))
            bias = adapter.out_bias(layer)
            _same(
                by_head + bias if bias is not None else by_head,
                given[layer],
                mask,
                close,
                f"layer {layer}: the heads through W_O",
            )
    if adapter.layout.interface:
        eager: dict[int, torch.Tensor] = {}
        adapter.model.set_attn_implementation("eager")
        try:
            with hooks.observe(adapter, outputs=eager.__setitem__):
                adapter.forward(batch)
        finally:
            adapter.model.set_attn_implementation("headtool")
        for layer in range(g.layers):
            _same(ours[layer], eager[layer], mask, close, f"layer {layer}: headtool's attention")


def _same(ours: torch.Tensor, theirs: torch.Tensor, mask: torch.Tensor, close: float, what: str) -> None:
    valid = mask.bool().to(ours.device)
    a, b = ours[valid].float(), theirs[valid].float()
    if not bool(torch.isfinite(b).all()):
        raise HeadtoolError(f"{what}: the model gives numbers that are not finite", hint="try --dtype fp32 or bf16")
    worst, scale = (a - b).abs().max().item(), b.abs().max().item()
    if not worst <= close * max(scale, 1e-3):  # NaN is no agreement
        raise HeadtoolError(f"{what} and the model's own differ by {worst:.2g} (largest value {scale:.2g})", hint=HINT)
