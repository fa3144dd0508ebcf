"""Detectors on clean data: the limits that it sets, and how often they cry on clean data that the limits did not see."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from headtool.errors import HeadtoolError
from headtool.faults import bounds, compare, guard
from headtool.models.sites import Sites

if TYPE_CHECKING:
    from headtool.models.adapter import Adapter
    from headtool.models.batches import Batch

VERSION = 1
ROW = ("n", "epsilon", "lower1", "middle", "upper1", "upper2", "margin")
FIELDS = ("rows", "row", "violated", "apart", "shapes", "loss")
CLOSE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}  # of K and V, relative


@dataclass(frozen=True)
class Seen:
    """What one clean sequence showed.

    largest: detector -> (layer, quantity) float64 residuals; rows (layer, head, field of ROW) float64: the bounds at one
    drawn row a head; row (layer, head) which; violated (layer,) rows outside their bounds; apart (layer,) the largest
    |k - v| over the largest |v|, NaN where keys and values have other shapes; shapes (layer, 2, 3): (kv_head, position,
    head_dim) of k and of v; loss: of the sequence, nats.
    """

    largest: Mapping[str, np.ndarray]
    rows: np.ndarray
    row: np.ndarray
    violated: np.ndarray
    apart: np.ndarray
    shapes: np.ndarray
    loss: float

    def arrays(self) -> dict[str, np.ndarray]:
        named = {f"largest-{name}": values for name, values in self.largest.items()}
        return named | {name: np.asarray(getattr(self, name)) for name in FIELDS}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Seen:
        named = {name.removeprefix("largest-"): each for name, each in arrays.items() if name.startswith("largest-")}
        rows, row, violated, apart, shapes, loss = (arrays[name] for name in FIELDS)
        return cls(named, rows, row, violated, apart, shapes, float(loss))


@torch.inference_mode()
def clean(
    adapter: Adapter, batch: Batch, detectors: Mapping[str, ModuleType], *, method: str | None, tolerance: float | None
) -> Seen:
    """One clean sequence through the model with the detectors at every layer. method of epsilon; None: no bounds."""
    g, length = adapter.geometry, batch.ids.shape[1]
    largest = {name: np.zeros((g.layers, len(module.QUANTITIES))) for name, module in detectors.items()}
    rows = np.full((g.layers, g.heads, len(ROW)), np.nan)
    violated, apart = np.zeros(g.layers, np.int64), np.full(g.layers, np.nan)
    shapes = np.zeros((g.layers, 2, 3), np.int64)
    drawn = np.random.default_rng(int(batch.index[0])).integers(0, length, (g.layers, g.heads))

    def look(layer: int, seen: Sites, residuals: Mapping[str, tuple[torch.Tensor, ...]]) -> None:
        for name, found in residuals.items():
            largest[name][layer] = guard.worst(found)[:, 0].tolist()
        shapes[layer] = seen.k.shape[1:], seen.v.shape[1:]
        if seen.k.shape == seen.v.shape:
            apart[layer] = float((seen.k - seen.v).abs().max() / seen.v.abs().max().clamp(min=1e-30))
        if method is not None:
            found_bounds = bounds.of_sites(seen, method, tolerance=tolerance)
            at = torch.from_numpy(drawn[layer])
            heads = torch.arange(g.heads)
            for i, name in enumerate(ROW):
                rows[layer, :, i] = getattr(found_bounds, name).expand_as(found_bounds.margin).cpu()[0, heads, at]
            violated[layer] = int((found_bounds.margin < 0).sum())

    with contextlib.ExitStack() as stack:
        for layer in range(g.layers):
            stack.enter_context(guard.watched(adapter, layer, detectors, functools.partial(look, layer)))
        output = adapter.forward(batch)
    loss = float(compare.each_loss(adapter, batch, output).mean())
    return Seen(largest, rows, drawn, violated, apart, shapes, loss)


def limits(detectors: Mapping[str, ModuleType], seen: list[Seen]) -> guard.Limits:
    """The limits that clean sequences set: a detector's FACTOR times the largest residual, layer by layer."""
    over = {name: torch.from_numpy(np.stack([each.largest[name] for each in seen]).max(0)) for name in detectors}
    return guard.Limits({name: guard.allowed(module, over[name]) for name, module in detectors.items()})


def held(facts: Mapping[str, Any], found: guard.Limits, seen: list[str]) -> dict[str, Any]:
    """What a calibration file holds: the model, dtype and length it is for, what it was made on, and the limits (JSON)."""
    return {
        "version": VERSION, **facts, "sequences": seen,
        "detectors": {name: each.tolist() for name, each in found.limits.items()},
    }  # fmt: skip


def read(path: Path) -> dict[str, Any]:
    """What a calibration file holds. Raises HeadtoolError where it holds none."""
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        whole = isinstance(held["detectors"], dict) and all(isinstance(each, str) for each in held["sequences"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        whole = False
    if not whole:
        raise HeadtoolError(f"--calibration {path}: it holds no calibration", hint="an earlier run's calibration.json")
    return held


def load(path: Path, facts: Mapping[str, Any], detectors: Mapping[str, ModuleType], layers: int) -> guard.Limits:
    """The limits of a file. Raises HeadtoolError for one that is no calibration, or of another model, dtype or length."""
    held = read(path)
    named, same = held["detectors"], {name: held.get(name) for name in facts}
    for name, value in facts.items():
        if same[name] != value:
            raise HeadtoolError(
                f"--calibration {path}: it is for {name} {str(same[name])[:16]}, this run has {str(value)[:16]}",
                hint="calibrate anew: leave --calibration out",
            )
    found = {}
    for name, module in detectors.items():
        if name not in named:
            hint = f"--detect without {name}; or leave out --calibration, and limits are set anew"
            raise HeadtoolError(f"--calibration {path}: it knows nothing of the detector {name}", hint=hint)
        try:
            found[name] = torch.tensor(named[name], dtype=torch.float64)
            whole = found[name].shape == (layers, len(module.QUANTITIES)) and bool(torch.isfinite(found[name]).all())
        except (TypeError, ValueError):
            whole = False
        if not whole:
            raise HeadtoolError(f"--calibration {path}: its limits of {name} are damaged", hint="leave it out")
    return guard.Limits(found)


def kv_equal(apart: np.ndarray, dtype: torch.dtype) -> np.ndarray:
    """Are keys and values the same, layer by layer (bool), to what the dtype can say?"""
    return np.asarray(np.nan_to_num(apart, nan=np.inf) <= CLOSE[dtype])


def force_kv_equal(adapter: Adapter) -> None:
    """Give every key projection the weight and bias of the value projection, in the model that is open.

    Raises HeadtoolError where the weights are quantised. Whether keys are then the values is for kv_equal to say: a
    rotation by position, or a norm of the keys, undoes it.
    """
    from headtool.models import heads

    g, layout = adapter.geometry, adapter.layout
    for layer in range(g.layers):
        block = adapter.block(layer)
        k = heads.submodule(block, heads.projection(layout, "k"))
        v = heads.submodule(block, heads.projection(layout, "v"))
        for head in range(g.kv_heads):
            to, source = heads.rows(layout, g, "k", head), heads.rows(layout, g, "v", head)
            heads.matrix(k, layout)[to] = heads.matrix(v, layout)[source]
            if getattr(k, "bias", None) is not None and getattr(v, "bias", None) is not None:
                k.bias[to] = v.bias[source]
