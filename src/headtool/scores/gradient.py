"""Gradients of the loss by each head's gate, example by example: gradient importance and Fisher information."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from headtool.errors import FAILED, HeadtoolError
from headtool.models import hooks
from headtool.models.batches import Batch, Examples
from headtool.models.devices import repeatably
from headtool.models.losses import losses
from headtool.record.files import whole_part, write_part

if TYPE_CHECKING:
    from headtool.models.adapter import Adapter

NAMES = ("gradient", "fisher")
NEEDS = "gradient"
MOST_PARTS = 64
POWERS = ("first_order", "size", "square", "fourth")  # of which the sums over examples are kept
EPS = 1e-6  # of the mean of F over heads, in Ppred


@dataclass(frozen=True)
class Gradients:
    """G, F, their standard errors (None for one example), Ppred and the first order of I: (layer, head) each."""

    G: np.ndarray
    G_se: np.ndarray | None
    F: np.ndarray
    F_se: np.ndarray | None
    Ppred: np.ndarray
    first_order: np.ndarray
    n: int


class Gradient:
    """One backward pass over examples with targets. Its parts are sums over examples."""

    name = "gradient"
    phase = "backward"

    def __init__(self, examples: Examples, batches: Sequence[np.ndarray]) -> None:
        self.examples, self.batches = examples, batches

    @cached_property
    def groups(self) -> list[Sequence[np.ndarray]]:
        """The batches of each part."""
        return grouped(self.batches)

    def part(self, group: int) -> str:
        return f"{self.name}-{group:04d}.part"

    def work(self, adapter: Adapter, group: int, parts: Path) -> dict[str, int]:
        """Measure one group and write its part. Returns the counts of what was done."""
        g = adapter.geometry
        sums, tokens, n = np.zeros((len(POWERS), g.layers, g.heads)), 0, 0
        for index in self.groups[group]:
            batch = self.examples.batch(index).to(adapter.device)
            slope = first_order(adapter, batch)[0].astype(np.float64)
            for each, power in zip(sums, (slope, np.abs(slope), slope**2, slope**4), strict=True):
                each += power.sum(0)
            if not np.isfinite(sums).all():
                raise HeadtoolError("the gradient of the loss is not finite", hint="--dtype fp32 or bf16", code=FAILED)
            tokens, n = tokens + int(batch.mask.sum()), n + len(index)
        write_part(parts / self.part(group), {"sums": sums, "n": np.array(n)})
        return {"backward_examples": n, "backward_tokens": tokens}

    def merge(self, parts: Path) -> Gradients:
        """All parts added up, in order."""
        added = [whole_part(parts / self.part(group)) for group in range(len(self.groups))]
        n = sum(int(part["n"]) for part in added)
        mean = dict(zip(POWERS, np.add.reduce([part["sums"] for part in added]) / n, strict=True))
        G, F = gradient(mean), fisher(mean)
        predicted = np.divide(G**2, F + EPS * F.mean(), out=np.zeros_like(F), where=F > 0)
        G_se, F_se = _se(F - G**2, n), _se(mean["fourth"] - F**2, n)
        return Gradients(G, G_se, F, F_se, predicted, mean["first_order"], n)


def gradient(mean: Mapping[str, np.ndarray]) -> np.ndarray:
    """The gradient importance (layer, head), in nats.

    G = mean over examples of |dL_b/dg|, g the gate that multiplies the head's output, at 1.

    Source: Michel, Levy and Neubig 2019, "Are Sixteen Heads Really Better than One?", with every example's own gradient.
    """
    return mean["size"]


def fisher(mean: Mapping[str, np.ndarray]) -> np.ndarray:
    """The diagonal of the empirical Fisher information of the gates (layer, head), in nats squared.

    F = mean over examples of (dL_b/dg)^2.

    Source: Kunstner, Balles and Hennig 2019, "Limitations of the Empirical Fisher Approximation".
    """
    return mean["square"]


def grouped(batches: Sequence[np.ndarray]) -> list[Sequence[np.ndarray]]:
    """Batches in at most 64 groups, in order."""
    size = -(-len(batches) // MOST_PARTS)
    return [batches[start : start + size] for start in range(0, len(batches), size)]


class FirstOrder:
    """The first order of ablation of every head on every example, and the losses and rights of the whole model.

    Its parts keep every example; reference says what takes an ablated head's place (see scores.ablation).
    """

    name = "first-order"
    phase = "backward"

    def __init__(self, examples: Examples, batches: Sequence[np.ndarray], reference: Callable[[Batch], Any]) -> None:
        self.examples, self.batches, self.reference = examples, batches, reference

    @cached_property
    def groups(self) -> list[Sequence[np.ndarray]]:
        """The batches of each part."""
        return grouped(self.batches)

    def part(self, group: int) -> str:
        return f"{self.name}-{group:04d}.part"

    def work(self, adapter: Adapter, group: int, parts: Path) -> dict[str, int]:
        """Measure one group and write its part. Returns the counts of what was done."""
        found, bases = [], []
        for index in self.groups[group]:
            batch = self.examples.batch(index).to(adapter.device)
            slopes, base = first_order(adapter, batch, self.reference(batch))
            found.append(slopes)
            bases.append(base)
        index = np.concatenate(self.groups[group])
        arrays = {"index": index, "first": np.concatenate(found), "base": np.concatenate(bases, 1)}
        write_part(parts / self.part(group), arrays)
        return {"backward_examples": len(index)}

    def merge(self, parts: Path) -> tuple[np.ndarray, np.ndarray]:
        """(first, base): first order (layer, head, example), loss and right (2, example)."""
        added = [whole_part(parts / self.part(group)) for group in range(len(self.groups))]
        order = np.argsort(np.concatenate([part["index"] for part in added]))
        first = np.concatenate([part["first"] for part in added])[order]
        return first.transpose(1, 2, 0), np.concatenate([part["base"] for part in added], 1)[:, order]


def first_order(
    adapter: Adapter, batch: Batch, reference: dict[int, torch.Tensor] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """What ablation does to each example's loss to first order: (batch, layer, head) float32, in nats; and each
    example's loss and right, (2, batch) float32.

    dL_b/de of z' = z + e (reference - z) at e = 0, which for a reference of zero is -dL_b/dg, g the head's gate.
    One backward pass of the summed losses: an example's loss depends on its own dials alone.
    """
    g = adapter.geometry

    @torch.enable_grad()
    def work() -> tuple[torch.Tensor, torch.Tensor]:
        dials = [
            torch.zeros(len(batch.ids), g.heads, device=batch.ids.device, requires_grad=True) for _ in range(g.layers)
        ]
        with hooks.dialled(adapter, dials, reference):
            loss, right = losses(adapter, batch, adapter.forward(batch))
        slopes = torch.autograd.grad(loss.sum(), dials)
        return torch.stack([slope.to(dials[0].device) for slope in slopes], 1), torch.stack([loss.detach(), right])

    slopes, base = repeatably(adapter.runs_on, work)
    return slopes.float().cpu().numpy(), base.float().cpu().numpy()


def _se(variance: np.ndarray, n: int) -> np.ndarray | None:
    """The standard error of a mean over n examples, from their population variance."""
    return np.sqrt(np.maximum(variance, 0) / (n - 1)) if n > 1 else None
