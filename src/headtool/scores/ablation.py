"""Ablation importance: what each head's absence costs, exactly, example by example."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from headtool.errors import FAILED, HeadtoolError
from headtool.models import hooks, sweep
from headtool.models.batches import Batch, Examples
from headtool.models.losses import losses, pooling, reads
from headtool.record.files import whole_part, write_part

if TYPE_CHECKING:
    from headtool.models.adapter import Adapter

NAMES = ("ablation",)
NEEDS = "ablation"
Mode = Literal["zero", "mean", "resample"]
Reference = dict[int, torch.Tensor] | None
MOST_PARTS = 64  # of a sweep, about: what a kill can lose is one of them
ROWS = {"cpu": 1536, "mps": 4096}  # float32 positions in a forward pass, those of all stacked variants together
ROWS_GPU = 16384
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5, torch.float16: 2e-2, torch.bfloat16: 1e-1}  # of 1 + |loss|


@dataclass(frozen=True)
class Losses:
    """Losses in nats and rights in 0 to 1: with all heads (example,), without each (layer, head, example), where NaN is
    what was not measured.
    """

    base: np.ndarray
    base_right: np.ndarray
    loss: np.ndarray
    right: np.ndarray


def ablation(losses: Losses) -> np.ndarray:
    """The gain of each example's loss when the head goes, whose mean is importance: (layer, head, example) float64.

    I = mean over examples of (loss without the head - loss with it), in nats, signed.

    Source: Michel, Levy and Neubig 2019, "Are Sixteen Heads Really Better than One?".
    """
    return losses.loss.astype(np.float64) - losses.base


class Ablation:
    """The sweep of all heads over examples with targets, as a pass: a part is some buckets of examples of equal
    lengths (of a decoder on a GPU also of nearly equal ones), or where there are few, some layers of them.

    rows is how many positions, of all stacked variants together, are in a forward pass. active (layer, head) bool
    names the heads that are ablated; the others' losses are NaN.
    """

    name = "ablation"
    phase = "ablation"

    def __init__(self, adapter: Adapter, examples: Examples, mode: Mode, rows: int, seed: int) -> None:
        if mode == "resample" and len(examples) < 2:
            raise HeadtoolError("--ablate resample needs a second example", hint="more rows, or --ablate mean")
        self.adapter, self.examples, self.mode, self.rows, self.seed = adapter, examples, mode, rows, seed
        self.batches = examples.buckets(rows, enough=enough_of(adapter, rows))
        self.active = np.ones((adapter.geometry.layers, adapter.geometry.heads), bool)
        self._last: tuple[np.ndarray, sweep.Sweep | Plain] | None = None

    def of(self, name: str, some: np.ndarray, active: np.ndarray) -> Ablation:
        """The sweep of some heads over some examples, under a name of its own; what was found out is shared."""
        part = copy.copy(self)
        part.__dict__.pop("groups", None)
        part.name, part.active, part._last = name, active, None
        part.batches = self.examples.buckets(self.rows, some, enough_of(self.adapter, self.rows))
        return part

    @cached_property
    def groups(self) -> list[tuple[list[np.ndarray], range]]:
        """The buckets and layers of each part. Parts cost about the same."""
        cost = np.array([len(bucket) * int(self.examples.lengths[bucket[0]]) for bucket in self.batches])
        middle = np.cumsum(cost) - cost / 2
        place = (middle * MOST_PARTS / cost.sum()).astype(int)
        buckets = [[b for b, at in zip(self.batches, place, strict=True) if at == each] for each in np.unique(place)]
        layers = self.adapter.geometry.layers
        cuts = np.linspace(0, layers, min(layers, max(1, MOST_PARTS // len(buckets))) + 1).astype(int).tolist()
        return [(some, range(*ends)) for some in buckets for ends in zip(cuts, cuts[1:], strict=False)]

    def part(self, group: int) -> str:
        return f"{self.name}-{group:04d}.part"

    @torch.inference_mode()
    def work(self, adapter: Adapter, group: int, parts: Path) -> dict[str, int]:
        """Sweep one group and write its part. Returns the counts of what was done."""
        buckets, layers = self.groups[group]
        index = np.concatenate(buckets)
        heads = adapter.geometry.heads
        found = np.full((2, len(layers), heads, len(index)), np.nan, np.float32)  # loss and right
        base = np.zeros((2, len(index)), np.float32)
        done, started = 0, time.perf_counter()
        for bucket in buckets:
            at = slice(done, done + len(bucket))
            recorded = self._record(bucket)
            base[:, at] = _numbers(recorded.loss, recorded.right)
            stacked = max(1, self.rows // recorded.batch.ids.numel())
            for i, layer in enumerate(layers):
                wanted = np.flatnonzero(self.active[layer])
                passes = -(-len(wanted) // stacked)
                for some in np.array_split(wanted, passes) if passes else ():
                    found[:, i, some, at] = _numbers(*recorded.without(layer, some.tolist()))
            done = at.stop
            del recorded
            if layers.stop == adapter.geometry.layers:
                self._last = None
        _finite(base, found[:, self.active[layers]])
        ends = np.array([layers.start, layers.stop])
        arrays = {"index": index, "layers": ends, "found": found, "base": base}
        write_part(parts / self.part(group), arrays | {"seconds": np.array(time.perf_counter() - started)})
        return {"ablations": int(self.active[layers].sum()) * len(index)}

    def merge(self, parts: Path) -> Losses:
        """All parts as one. Raises HeadtoolError naming a part that is damaged, which is removed."""
        self._last = None
        g, n = self.adapter.geometry, len(self.examples)
        found = np.full((2, g.layers, g.heads, n), np.nan, np.float32)
        base = np.full((2, n), np.nan, np.float32)
        for group in range(len(self.groups)):
            part = whole_part(parts / self.part(group))
            for layer, each in zip(range(*part["layers"]), part["found"].swapaxes(0, 1), strict=True):
                found[:, layer, :, part["index"]] = each.transpose(2, 0, 1)
            base[:, part["index"]] = part["base"]
        return Losses(base[0], base[1], found[0], found[1])

    def _record(self, bucket: np.ndarray) -> sweep.Sweep | Plain:
        """A bucket's clean pass, kept while the next part may be of further layers of the same bucket."""
        if self._last is None or not np.array_equal(self._last[0], bucket):
            self._last = None  # before the next is in memory
            batch = self.examples.batch(bucket).to(self.adapter.device)
            self._last = bucket, self.engine(self.adapter, batch, self.reference(batch), reads(batch, self.pooling))
        return self._last[1]

    # -- how a model is swept: found out once a process -----------------------------------------------------------

    @cached_property
    def pooling(self) -> str:
        with torch.inference_mode():
            return pooling(self.adapter, self._shortest())

    @cached_property
    def engine(self) -> type[sweep.Sweep] | type[Plain]:
        """The engine where it gives what the naive way gives, for a random head of every layer of a short batch; else
        the naive way. Raises HeadtoolError where gates at 1 change the loss, or all gates at 0 do not.
        """
        adapter, batch = self.adapter, self._shortest()
        with torch.inference_mode():
            reference, g = self.reference(batch), adapter.geometry
            recorded = sweep.Sweep(adapter, batch, reference, reads(batch, self.pooling))
            clean, _ = losses(adapter, batch, adapter.forward(batch))
            _finite(_numbers(clean), _numbers(clean))
            for gate in (1.0, 0.0):
                with hooks.gated(adapter, {layer: torch.full((g.heads,), gate) for layer in range(g.layers)}):
                    gated, _ = losses(adapter, batch, adapter.forward(batch))
                if torch.equal(gated, clean) != (gate == 1):
                    what = "gates at 1 change the loss" if gate else "the loss does not see the heads"
                    raise HeadtoolError(f"{what}: this model cannot be ablated", hint="please report it", code=FAILED)
            rng = np.random.default_rng(self.seed)
            for layer in range(g.layers):
                head = int(rng.integers(g.heads))
                ours, _ = recorded.without(layer, [head])
                naive, _ = sweep.plain(adapter, batch, layer, head, reference)
                if not agree(ours[0], naive, adapter.dtype):
                    return Plain
        return sweep.Sweep

    def reference(self, batch: Batch) -> Reference:
        """What takes the place of an ablated head's output, layer by layer; None is zero."""
        if self.mode == "zero":
            return None
        return self._mean if self.mode == "mean" else self._others(batch)

    @cached_property
    def _mean(self) -> Reference:
        """The mean output of each head over all positions of all examples: (1, 1, head, head_dim) a layer."""
        g, positions = self.adapter.geometry, self.examples.tokens
        sums = [torch.zeros(g.heads, g.head_dim, dtype=torch.float64) for _ in range(g.layers)]
        for bucket in self.examples.buckets(self.rows):
            for layer, z in self._outputs(self.examples.batch(bucket).to(self.adapter.device)).items():
                sums[layer] += z.double().sum((0, 1)).cpu()
        return {layer: (each / positions)[None, None].to(self.adapter.device) for layer, each in enumerate(sums)}

    def _others(self, batch: Batch) -> Reference:
        """The same head's outputs on another example, the next longer one (of equal ones the next in a seeded order),
        position by position; the longest takes the one before it, whose last position stands for those it lacks.
        """
        others = self.examples.batch(self._partner[batch.index]).to(self.adapter.device)
        place = torch.arange(batch.ids.shape[1], device=batch.ids.device)
        at = torch.minimum(place[None], others.last[:, None])
        rows = torch.arange(len(at), device=at.device)[:, None]
        return {layer: z[rows.to(z.device), at.to(z.device)] for layer, z in self._outputs(others).items()}

    @cached_property
    def _partner(self) -> np.ndarray:
        n = len(self.examples)
        order = np.lexsort((np.random.default_rng(self.seed).permutation(n), self.examples.lengths))
        partner = np.empty(n, np.int64)
        partner[order] = order[[*range(1, n), n - 2]]
        return partner

    def _outputs(self, batch: Batch) -> dict[int, torch.Tensor]:
        z: dict[int, torch.Tensor] = {}
        with hooks.observe(self.adapter, outputs=z.__setitem__):
            self.adapter.forward(batch)
        return z

    def _shortest(self) -> Batch:
        shortest = np.argsort(self.examples.lengths, kind="stable")[:1]
        return self.examples.batch(shortest).to(self.adapter.device)


def _finite(base: np.ndarray, found: np.ndarray) -> None:
    """Raise HeadtoolError (exit 1) where a loss is infinite or no number."""
    for what, values in (("the loss", base), ("the loss without a head", found)):
        if not np.isfinite(values).all():
            raise HeadtoolError(f"{what} is not finite", hint="--dtype fp32 or bf16", code=FAILED)


class Plain:
    """What Sweep gives, the naive way: for a model that the engine cannot resume."""

    def __init__(self, adapter: Adapter, batch: Batch, reference: Reference, read: torch.Tensor | None) -> None:
        self.adapter, self.batch, self.reference = adapter, batch, reference
        self.loss, self.right = losses(adapter, batch, adapter.forward(batch))

    def without(self, layer: int, heads: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        each = [sweep.plain(self.adapter, self.batch, layer, head, self.reference) for head in heads]
        loss, right = zip(*each, strict=True)
        return torch.stack(loss), torch.stack(right)


def agree(ours: torch.Tensor, naive: torch.Tensor, dtype: torch.dtype) -> bool:
    """Are two losses of the same example the same, to what a sum in another order may differ by?"""
    close = TOLERANCE.get(dtype, TOLERANCE[torch.bfloat16])
    return bool(((ours - naive).abs() <= close * (1 + naive.abs())).all())


def enough_of(adapter: Adapter, rows: int) -> int:
    """The positions of a batch whose heads, all stacked, are as many rows as a GPU should be given at once.

    It is slow where it has little to do, and a decoder does not see what it is padded with on the right. 0 for any other.
    """
    return 0 if adapter.runs_on.type == "cpu" or not adapter.layout.causal else rows // adapter.geometry.heads


def rows_of(adapter: Adapter, budget: int | None, longest: int) -> int:
    """How many positions a forward pass of the sweep may hold: by the kind of device, or by a budget in bytes.

    A position of a stacked variant is taken to need what a block makes of it, a recorded one 3 vectors a layer.
    """
    if budget is None:
        rows = ROWS.get(adapter.runs_on.type, ROWS_GPU)
        return rows * 4 // adapter.dtype.itemsize if adapter.runs_on.type == "cpu" else rows  # as many bytes
    g = adapter.geometry
    return max(1, budget // (bytes_of(adapter, longest) + 3 * g.layers * g.width * adapter.dtype.itemsize))


def bytes_of(adapter: Adapter, longest: int) -> int:
    """What a block makes of a position, in bytes: about 12 vectors of the model's width, 4 of the feed-forward's, and where
    the family keeps its attention maps, 6 rows of them a head.

    (What a backward pass keeps of Llama 3 8B in bf16 was measured as 164 kB a position and layer; this says 213.)
    """
    g, config = adapter.geometry, adapter.model.config
    inner = getattr(config, "intermediate_size", None) or 4 * g.width
    maps = 0 if adapter.layout.interface else 6 * g.heads * longest
    return (12 * g.width + 4 * inner + maps) * adapter.dtype.itemsize


def _numbers(*tensors: torch.Tensor) -> np.ndarray:
    return torch.stack(tensors).float().cpu().numpy()
