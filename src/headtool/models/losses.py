"""The loss of every example of a batch, from the model's own task head run on the positions that are read."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.nn import functional

from headtool.models.attention import full
from headtool.models.batches import IGNORED, Batch
from headtool.models.heads import submodule

if TYPE_CHECKING:
    from headtool.models.adapter import Adapter

LOGITS = 1 << 24  # numbers of logits that are held at a time


def losses(adapter: Adapter, batch: Batch, output: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """(loss, right), each (batch,) float32 (float64 in a float64 model), from what the base model gave for the batch.

    loss: cross-entropy in nats of the example's class, or the mean over its target tokens. right: 1 or 0, or the share
    of its target tokens that are the most likely ones. Logits are computed where they are read and nowhere else.
    """
    assert batch.targets is not None
    if batch.targets.dim() == 1:
        logits = full(head(adapter, batch, output).logits)
        target = batch.targets.to(logits.device)
        return functional.cross_entropy(logits, target, reduction="none"), (logits.argmax(-1) == target).to(logits)
    hidden = output[0]
    read = (batch.targets != IGNORED).to(hidden.device)
    owner = read.nonzero()[:, 0]
    rows, targets = hidden[read], batch.targets.to(hidden.device)[read]
    step = max(1, LOGITS // adapter.model.config.get_text_config().vocab_size)
    loss, right = [], []
    for start in range(0, len(rows), step):
        part = type(output)(last_hidden_state=rows[None, start : start + step])
        logits = full(head(adapter, batch, part).logits[0])
        target = targets[start : start + step].to(logits.device)
        loss.append(functional.cross_entropy(logits, target, reduction="none"))
        right.append((logits.argmax(-1) == target).to(logits))
    zero = loss[0].new_zeros(len(hidden))
    owner = owner.to(zero.device)
    count = zero.index_add(0, owner, torch.ones_like(loss[0][:1]).expand(len(owner)))
    return zero.index_add(0, owner, torch.cat(loss)) / count, zero.index_add(0, owner, torch.cat(right)) / count


def pooling(adapter: Adapter, batch: Batch) -> Literal["targets", "first", "last", "all"]:
    """Where the loss reads the last hidden state: at the target tokens, or for a classifier at its first, last or all
    positions. That is found out: noise at every other position must leave the logits as they are.
    """
    assert batch.targets is not None
    if batch.targets.dim() == 2:
        return "targets"
    clean = head(adapter, batch, adapter.forward(batch)).logits
    places: tuple[Literal["first", "last"], ...] = ("first", "last")
    for where in places:
        read = reads(batch, where)
        assert read is not None
        noise = torch.Generator().manual_seed(0)

        def spoil(module: Any, args: Any, output: Any, read: torch.Tensor = read, noise: Any = noise) -> Any:
            hidden = output if isinstance(output, torch.Tensor) else output[0]
            other = torch.randn(hidden.shape, generator=noise).to(hidden.device, hidden.dtype)
            spoiled = torch.where(read.to(hidden.device)[..., None], hidden, other)
            return spoiled if isinstance(output, torch.Tensor) else (spoiled, *output[1:])

        handle = adapter.block(adapter.geometry.layers - 1).register_forward_hook(spoil)
        try:
            spoiled = head(adapter, batch, adapter.forward(batch)).logits
        finally:
            handle.remove()
        if torch.equal(clean, spoiled):
            return where
    return "all"


def reads(batch: Batch, where: str) -> torch.Tensor | None:
    """The positions (batch, position) bool that a loss with this pooling reads; None: all of them."""
    if where == "targets":
        assert batch.targets is not None
        return batch.targets != IGNORED
    if where == "all":
        return None
    place = torch.arange(batch.ids.shape[1], device=batch.ids.device)
    return place == (batch.first if where == "first" else batch.last)[:, None]


def head(adapter: Adapter, batch: Batch, output: Any) -> Any:
    """The model's task head on what its base model is made to return."""
    owner = adapter.layout.blocks.rpartition(".")[0]  # OPT's head asks the decoder inside its base model
    with contextlib.ExitStack() as stack:
        for module in {adapter.base, submodule(adapter.base, owner)}:
            stack.enter_context(instead(module, lambda *args, **kwargs: output))
        if adapter.kind != "classifier" or not adapter.layout.causal:
            return adapter.model(input_ids=batch.ids)
        # Such a classifier reads the last id that is no padding: the mask knows which, the ids alone do not.
        config, known = adapter.model.config, adapter.model.config.pad_token_id
        stack.callback(setattr, config, "pad_token_id", known)
        config.pad_token_id = -1
        return adapter.model(input_ids=batch.ids.where(batch.mask.bool(), -1))


@contextlib.contextmanager
def instead(module: Any, forward: Callable[..., Any]) -> Iterator[None]:
    """Let a module's forward be another function; one that was set on the instance before (accelerate) is put back."""
    before = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if before is None:
            del module.forward
        else:
            module.forward = before
