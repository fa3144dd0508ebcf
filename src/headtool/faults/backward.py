"""Faults in the gradient: a training step in which the gradient at a site is hit, and the training that follows.

The model is trained in full on the sequences under test, with AdamW, in eval mode (no dropout), so that what differs
between two trainings is the fault alone.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from headtool.faults import bits
from headtool.faults.fault import Fault
from headtool.models import sites
from headtool.models.devices import repeatably
from headtool.models.losses import losses

if TYPE_CHECKING:
    from headtool.models.adapter import Adapter
    from headtool.models.batches import Batch

WEIGHT_DECAY = 0.0


@dataclass
class Step:
    """What a fault in the gradient did. Losses of the first batch, in nats: base before the step, after each of the asked
    steps, and clean after them without the fault.
    """

    fault: Fault
    before: tuple[int, float]
    after_bits: tuple[int, float]
    norm_ratio: float
    rel_error: float
    base: float
    after: list[float]
    clean: list[float]


class Training:
    """A training that is begun again and again: batches in turn, the fault in the first step (or, permanent, in each).

    marks: after how many steps the loss of the first batch is taken, ascending. The clean training a fault is compared with
    has the same layer in the open, so that what differs is the fault and not the kernel. Leaves the model as it was found.
    """

    def __init__(
        self, adapter: Adapter, batches: Sequence[Batch], marks: Sequence[int], lr: float, *, permanent: bool = False
    ) -> None:
        self.adapter, self.batches, self.marks, self.lr, self.permanent = adapter, batches, tuple(marks), lr, permanent
        self.parameters = [p for p in adapter.model.parameters() if p.is_floating_point()]
        self.start = [p.detach().clone() for p in self.parameters]
        self._clean: dict[int, tuple[float, list[float]]] = {}
        self._first: tuple[int, list[torch.Tensor]] | None = None  # the clean gradients of the layer asked for last

    def clean(self, layer: int) -> tuple[float, list[float]]:
        """(loss of the first batch, losses at the marks) of the training without a fault, a layer in the open."""
        if layer not in self._clean:
            with self._trainable():
                base, gradients = self._gradients(0, layer, None)
                self._first = layer, gradients
                self._clean[layer] = base, self._go_on(gradients, layer, None)
        return self._clean[layer]

    def trial(self, fault: Fault) -> Step:
        """Train with the fault, from the same start."""
        base, after = self.clean(fault.layer)
        with self._trainable():
            if self._first is None or self._first[0] != fault.layer:
                self._first = fault.layer, self._gradients(0, fault.layer, None)[1]
            clean = self._first[1]
            hit: list[tuple[int, float]] = []
            _, gradients = self._gradients(0, fault.layer, fault, hit)
            pairs = list(zip(gradients, clean, strict=True))
            size = sum(float(old.double().square().sum()) for _, old in pairs) ** 0.5
            faulty = sum(float(new.double().square().sum()) for new, _ in pairs) ** 0.5
            apart = sum(float((new.double() - old.double()).square().sum()) for new, old in pairs) ** 0.5
            same = all(torch.equal(new, old) for new, old in pairs)
            if not same or self.permanent:
                after = self._go_on(gradients, fault.layer, fault)
        return Step(fault, hit[0], hit[1], faulty / size, apart / size, base, list(after), self.clean(fault.layer)[1])

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
        self, step: int, layer: int, fault: Fault | None, hit: list[tuple[int, float]] | None = None
    ) -> tuple[float, list[torch.Tensor]]:
        """(loss, gradients) of a step's batch, a layer in the open. hit takes the element before and after the fault."""
        batch = self.batches[step % len(self.batches)]
        edit = sites.unchanged if fault is None else spoiling(self.batches[0], fault, hit)

        def work() -> tuple[torch.Tensor, tuple[torch.Tensor | None, ...]]:
            if hit is not None:
                hit.clear()
            with sites.opened(self.adapter, layer, edit):
                loss, _ = losses(self.adapter, batch, self.adapter.forward(batch))
                mean = loss.mean()
                return mean, torch.autograd.grad(mean, self.parameters, allow_unused=True)

        mean, found = repeatably(self.adapter.runs_on, work)
        filled = [torch.zeros_like(p) if g is None else g for g, p in zip(found, self.parameters, strict=True)]
        return float(mean.detach()), filled

    def _go_on(self, gradients: list[torch.Tensor], layer: int, fault: Fault | None) -> list[float]:
        """The losses at the marks, from the gradients of the first step on."""
        optimizer = torch.optim.AdamW(self.parameters, lr=self.lr, weight_decay=WEIGHT_DECAY)
        found: list[float] = []
        for step in range(self.marks[-1]):
            if step:
                _, gradients = self._gradients(step, layer, fault if self.permanent else None)
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


def spoiling(first: Batch, fault: Fault, hit: list[tuple[int, float]] | None = None) -> sites.Edit:
    """The edit that lets the gradient at the fault's site be hit on its way back. first is the batch that its sequence is of."""
    slot = int((torch.from_numpy(first.index) == fault.sequence).nonzero()[0, 0])

    def strike(gradient: torch.Tensor) -> torch.Tensor:
        changed = gradient.clone()
        columns = slice(fault.column, fault.column + fault.width)
        if slot >= len(changed) or fault.row >= changed.shape[2] or fault.column >= changed.shape[3]:
            return changed  # a later, smaller batch has no such element
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


def plain(training: Training, fault: Fault) -> list[float]:
    """The losses at the marks the naive way: a copy of the model, backward() and AdamW step by step."""
    model = copy.deepcopy(training.adapter.model)
    adapter = dataclasses.replace(training.adapter, model=model)
    model.requires_grad_(True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=training.lr, weight_decay=WEIGHT_DECAY)
    told = []
    for step in range(training.marks[-1]):
        batch = training.batches[step % len(training.batches)]
        struck = step == 0 or training.permanent
        optimizer.zero_grad()
        edit = spoiling(training.batches[0], fault) if struck else sites.unchanged
        with sites.opened(adapter, fault.layer, edit):
            loss, _ = losses(adapter, batch, adapter.forward(batch))
        loss.mean().backward()
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        optimizer.step()
        if step + 1 in training.marks:
            with torch.no_grad():
                loss, _ = losses(adapter, training.batches[0], adapter.forward(training.batches[0]))
            told.append(float(loss.mean()))
    return told
