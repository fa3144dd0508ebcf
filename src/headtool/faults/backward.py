"""Faults in the gradient: a training step in which the gradient at a site is hit, and the training that follows.

The model is trained in full on the sequences under test, with AdamW, in eval mode (no dropout), so that what differs
between two trainings is the fault alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from headtool.faults import bits
from headtool.faults.fault import Fault
from headtool.models import sites
from headtool.models.losses import losses

if TYPE_CHECKING:
    from headtool.models.adapter import Adapter
    from headtool.models.batches import Batch

WEIGHT_DECAY = 0.0


@dataclass
class Step:
    """What a fault in the gradient did. after: loss of the first batch, in nats, after each of the asked steps."""

    fault: Fault
    before: tuple[int, float]
    after_bits: tuple[int, float]
    norm_ratio: float
    rel_error: float
    after: list[float]


class Training:
    """A training that is begun again and again: batches in turn, the fault in the first step (or, permanent, in each).

    marks: after how many steps the loss of the first batch is taken, ascending. Leaves the model as it was found.
    """

    def __init__(
        self, adapter: Adapter, batches: Sequence[Batch], marks: Sequence[int], lr: float, *, permanent: bool = False
    ) -> None:
        self.adapter, self.batches, self.marks, self.lr, self.permanent = adapter, batches, tuple(marks), lr, permanent
        self.parameters = [p for p in adapter.model.parameters() if p.is_floating_point()]
        self.start = [p.detach().clone() for p in self.parameters]
        with self._trainable():
            self.base, self.gradients = self._gradients(0, None)
            self.clean = self._go_on(self.gradients, None)

    def trial(self, fault: Fault) -> Step:
        """Train with the fault, from the same start."""
        with self._trainable():
            hit: list[tuple[int, float]] = []
            _, gradients = self._gradients(0, fault, hit)
            pairs = list(zip(gradients, self.gradients, strict=True))
            size = sum(float(clean.double().square().sum()) for _, clean in pairs) ** 0.5
            faulty = sum(float(found.double().square().sum()) for found, _ in pairs) ** 0.5
            apart = sum(float((found.double() - clean.double()).square().sum()) for found, clean in pairs) ** 0.5
            same = all(torch.equal(found, clean) for found, clean in pairs)
            after = list(self.clean) if same and not self.permanent else self._go_on(gradients, fault)
        return Step(fault, hit[0], hit[1], faulty / size, apart / size, after)

    @contextlib.contextmanager
    def _trainable(self) -> Iterator[None]:
        for parameter, start in zip(self.parameters, self.start, strict=True):
            parameter.data.copy_(start)
            parameter.requires_grad_(True)
        try:
            with torch.enable_grad():
                yield
        finally:
            for parameter, start in zip(self.parameters, self.start, strict=True):
                parameter.requires_grad_(False)
                parameter.data.copy_(start)

    def _gradients(
        self, step: int, fault: Fault | None, hit: list[tuple[int, float]] | None = None
    ) -> tuple[float, list[torch.Tensor]]:
        """(loss, gradients) of a step's batch. hit takes the element of the gradient before and after the fault."""
        batch = self.batches[step % len(self.batches)]
        with contextlib.ExitStack() as stack:
            if fault is not None:
                stack.enter_context(sites.opened(self.adapter, fault.layer, self._spoiling(fault, hit)))
            loss, _ = losses(self.adapter, batch, self.adapter.forward(batch))
            mean = loss.mean()
            found = torch.autograd.grad(mean, self.parameters, allow_unused=True)
        filled = [torch.zeros_like(p) if g is None else g for g, p in zip(found, self.parameters, strict=True)]
        return float(mean.detach()), filled

    def _spoiling(self, fault: Fault, hit: list[tuple[int, float]] | None) -> sites.Edit:
        slot = int((torch.from_numpy(self.batches[0].index) == fault.sequence).nonzero()[0, 0])

        def strike(gradient: torch.Tensor) -> torch.Tensor:
            changed = gradient.clone()
            columns = slice(fault.column, fault.column + fault.width)
            if fault.row >= changed.shape[2] or fault.column >= changed.shape[3]:
                return changed  # a later, shorter batch has no such element
            old = changed[slot, fault.head, fault.row, columns]
            keep, flip = (bits.signed([each], gradient.dtype).to(gradient.device) for each in (fault.keep, fault.flip))
            new = bits.apply(old, keep.expand(len(old)), flip.expand(len(old)))
            if hit is not None:
                hit.extend((bits.stored(old[0]), bits.stored(new[0])))
            changed[slot, fault.head, fault.row, columns] = new
            return changed

        def edit(site: str, tensor: torch.Tensor) -> torch.Tensor:
            if site == fault.site:
                tensor = tensor.clone()  # the gradient of this use alone passes through the hook
                tensor.register_hook(strike)
            return tensor

        return edit

    def _go_on(self, gradients: list[torch.Tensor], fault: Fault | None) -> list[float]:
        """The losses at the marks, from the gradients of the first step on."""
        optimizer = torch.optim.AdamW(self.parameters, lr=self.lr, weight_decay=WEIGHT_DECAY)
        found: list[float] = []
        for step in range(self.marks[-1]):
            if step:
                _, gradients = self._gradients(step, fault if self.permanent else None)
            for parameter, gradient in zip(self.parameters, gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()
            if step + 1 in self.marks:
                with torch.no_grad():
                    loss, _ = losses(self.adapter, self.batches[0], self.adapter.forward(self.batches[0]))
                found.append(float(loss.mean()))
                if found[-1] != found[-1]:  # NaN stays NaN
                    found += [float("nan")] * (len(self.marks) - len(found))
                    break
        for parameter in self.parameters:
            parameter.grad = None
        return found
