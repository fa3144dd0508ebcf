"""What variants of one sequence lose against the clean one: losses, logits, answers, position by position."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from headtool.models.attention import full
from headtool.models.batches import IGNORED, Batch
from headtool.models.losses import LOGITS, head

if TYPE_CHECKING:
    from headtool.models.adapter import Adapter


@dataclass(frozen=True)
class Change:
    """Of each variant against the first, which is clean: (variant,) float64.

    loss: sum over the positions read of the loss with the fault minus without, nats
    logit: the largest |logit with the fault - without|; kl: sum over positions of KL(clean || faulty), nats
    top1: positions whose most likely token or class is another; finite: are all logits numbers, and what the last layer
    gave at every position?
    """

    loss: torch.Tensor
    logit: torch.Tensor
    kl: torch.Tensor
    top1: torch.Tensor
    finite: torch.Tensor


def change(adapter: Adapter, batch: Batch, output: Any) -> Change:
    """The change of all variants of a batch but the first, from what the base model gave for them."""
    n = len(batch.ids)
    loss, kl = torch.zeros(n - 1, dtype=torch.float64), torch.zeros(n - 1, dtype=torch.float64)
    logit, top1 = torch.zeros(n - 1, dtype=torch.float64), torch.zeros(n - 1, dtype=torch.float64)
    finite = torch.isfinite(output[0]).flatten(1).all(1)[1:].cpu()
    for logits, targets in read(adapter, batch, output):  # (variant, position, class), (position,)
        level, told = _level(logits), logits.gather(-1, targets.expand(n, -1)[..., None])[..., 0].double()
        apart = logits[1:] - logits[0]
        divergence = (level[1:] - level[0]) - torch.einsum("cv,ncv->nc", logits[0].softmax(-1), apart).double()
        largest = torch.maximum(apart.amax(-1), -apart.amin(-1))
        finite &= torch.isfinite(largest).all(-1).cpu()
        loss += ((level[1:] - level[0]) - (told[1:] - told[0])).sum(-1).cpu()
        kl += divergence.clamp(min=0).sum(-1).cpu()
        logit = torch.maximum(logit, largest.amax(-1).double().cpu())
        answer = logits.argmax(-1)
        top1 += (answer[1:] != answer[0]).sum(-1).cpu()
    return Change(loss, logit, kl, top1, finite)


def each_loss(adapter: Adapter, batch: Batch, output: Any) -> torch.Tensor:
    """(example, position read) float64: the cross-entropy at each position that the loss reads, in nats."""
    found = [torch.zeros(len(batch.ids), 0, dtype=torch.float64)]
    for logits, targets in read(adapter, batch, output):
        told = logits.gather(-1, targets.expand(len(logits), -1)[..., None])[..., 0].double()
        found.append((_level(logits) - told).cpu())
    return torch.cat(found, 1)


def _level(logits: torch.Tensor) -> torch.Tensor:
    """The log of the sum of exp over classes, summed in float64."""
    largest = logits.amax(-1, keepdim=True)
    return (logits - largest).exp_().sum(-1, dtype=torch.float64).log() + largest[..., 0].double()


def read(adapter: Adapter, batch: Batch, output: Any) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """(logits (example, position, class) float32, targets (position,)), a few of the positions that are read at a time.

    The examples of the batch are variants of one: they have the same targets.
    """
    assert batch.targets is not None
    n = len(batch.ids)
    if batch.targets.dim() == 1:
        logits = full(head(adapter, batch, output).logits)
        yield logits[:, None], batch.targets[:1].to(logits.device)
        return
    hidden = output[0]
    at = (batch.targets[0] != IGNORED).nonzero()[:, 0].to(hidden.device)
    step = max(1, LOGITS // (n * adapter.model.config.get_text_config().vocab_size))
    for start in range(0, len(at), step):
        some = at[start : start + step]
        rows = hidden[:, some].flatten(0, 1)[None]
        logits = full(head(adapter, batch, type(output)(last_hidden_state=rows)).logits[0])
        yield logits.view(n, len(some), -1), batch.targets[0].to(logits.device)[some.to(logits.device)]
