"""What a fault, the bounds and the detectors cost: a batch run again and again with and without them."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Mapping
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import torch

from headtool.faults import bounds, guard
from headtool.faults.fault import Fault, editing
from headtool.models import sites
from headtool.record.clock import peak_memory

if TYPE_CHECKING:
    from headtool.faults.campaign import Campaign
    from headtool.faults.sequences import Sequences
    from headtool.models.adapter import Adapter

LEAST, REPEATS = 0.05, 50  # seconds that a measurement takes at least: a tiny model's pass is repeated
UNITS = {"s": "s", "pct": "%", "mb": "MB", "tflops": "TFLOP/s", "gflop": "GFLOP"}


def measure(
    adapter: Adapter,
    tested: Sequences,
    trials: Campaign,
    detectors: Mapping[str, ModuleType],
    ask: SimpleNamespace,
    *,
    method: str | None,
) -> dict[str, list[float]]:
    """Metric -> its values, one a run (or one): seconds, overheads in %, memory in MB, operations.

    total is the forward pass with the fault, the bounds and the detectors at every layer; open is the plain pass with
    every site in the open (eager attention), which is what bounds and detectors need and are measured against.
    method is that of epsilon; None leaves the bounds out. The first round is not counted.
    """
    g, runs = adapter.geometry, ask.runs
    numbers = tested.tested[: ask.batch_size]
    batch = tested.examples.batch(np.array(numbers)).to(adapter.device)
    size, length = batch.ids.shape
    fault = dataclasses.replace(trials, lengths={i: tested.lengths[i] for i in numbers}).draw(ask.seed, ())[0]
    copies: list[Fault | None] = [None] * size
    copies[fault.sequence - numbers[0]] = fault
    edit = editing(copies, range(g.heads), range(g.kv_heads), range(length))

    def plain() -> None:
        adapter.forward(batch)

    def injected() -> None:
        with sites.opened(adapter, fault.layer, edit):
            adapter.forward(batch)

    def watched(with_detectors: bool, with_bounds: bool, with_fault: bool = False) -> None:
        look = functools.partial(_look, method if with_bounds else None)
        used = detectors if with_detectors else {}
        with contextlib.ExitStack() as stack:
            for layer in range(g.layers):
                what = edit if with_fault and layer == fault.layer else sites.unchanged
                stack.enter_context(guard.watched(adapter, layer, used, look, what))
            adapter.forward(batch)

    steps: dict[str, Callable[[], None]] = {
        "baseline_forward": plain,
        "injected_forward": injected,
        "open_forward": lambda: watched(False, False),
    }
    if detectors:
        steps["detection_forward"] = lambda: watched(True, False)
    if method is not None:
        steps["bounds_forward"] = lambda: watched(False, True)
    steps["total"] = lambda: watched(True, method is not None, with_fault=True)
    times: dict[str, list[float]] = {name: [] for name in steps}
    memory: dict[str, float] = {}
    with torch.inference_mode():
        plain()
        started = time.perf_counter()
        plain()
        _wait(adapter)
        again = max(1, min(REPEATS, round(LEAST / (time.perf_counter() - started))))
        for run in range(runs + 1):
            for name, step in steps.items():
                _reset(adapter)
                started = time.perf_counter()
                for _ in range(again):
                    step()
                _wait(adapter)
                if run:
                    times[name].append((time.perf_counter() - started) / again)
                if adapter.runs_on.type == "cuda":
                    memory[name] = float(torch.cuda.max_memory_allocated(adapter.runs_on))
    seconds = {name: np.array(values) for name, values in times.items()}
    base, opened = seconds["baseline_forward"], seconds["open_forward"]
    made = {f"{name}_s": values for name, values in seconds.items()}
    made["overhead_injection_pct"] = 100 * (seconds["injected_forward"] - base) / base
    made["overhead_open_pct"] = 100 * (opened - base) / base
    if detectors:
        made["detection_s"] = seconds["detection_forward"] - opened
        made["overhead_detection_pct"] = 100 * (seconds["detection_forward"] - opened) / base
    made["overhead_total_pct"] = 100 * (seconds["total"] - base) / base
    if method is not None:
        made["bounds_s"] = seconds["bounds_forward"] - opened
        made["overhead_bounds_pct"] = 100 * (seconds["bounds_forward"] - opened) / base
    attention, rows = 4 * size * g.heads * length**2 * g.head_dim * g.layers, 10 * size * g.heads * length**2 * g.layers
    made |= {
        name: np.array([value]) for name, value in (("attention_gflop", attention / 1e9), ("bounds_gflop", rows / 1e9))
    }
    made["attention_tflops"] = attention / base / 1e12
    if adapter.runs_on.type == "cuda":
        wanted = ("baseline_forward", "injected_forward", "total")
        made |= {f"memory_{name}_mb": np.array([memory[name] / 1e6]) for name in wanted}
        made["memory_reserved_mb"] = np.array([torch.cuda.max_memory_reserved() / 1e6])
    else:  # a process on a CPU has one peak, whatever came first
        made["memory_process_mb"] = np.array([peak_memory() / 1e6])
    facts = {"layers": g.layers, "heads": g.heads, "tokens_a_sequence": length, "batch": size}
    made |= {name: np.array([float(value)]) for name, value in facts.items()}
    return {name: values.tolist() for name, values in made.items()}


def columns(measured: Mapping[str, list[float]]) -> dict[str, list[object]]:
    """The columns of the table performance."""
    made: dict[str, list[object]] = {
        name: [] for name in ("metric", "unit", "mean", "std", "min", "max", "median", "runs")
    }
    for name, values in measured.items():
        array = np.array(values)
        numbers: list[float | None] = [float(f(array)) for f in (np.mean, np.std, np.min, np.max, np.median)]
        if len(values) == 1:
            numbers[1] = None
        row = [name, UNITS.get(name.rpartition("_")[2], ""), *numbers, len(values)]
        for column, value in zip(made.values(), row, strict=True):
            column.append(value)
    return made


def _look(method: str | None, seen: sites.Sites, residuals: object) -> None:
    if method is not None:
        bounds.of_sites(seen, method)


def _wait(adapter: Adapter) -> None:
    if adapter.runs_on.type == "cuda":
        torch.cuda.synchronize(adapter.runs_on)


def _reset(adapter: Adapter) -> None:
    if adapter.runs_on.type == "cuda":
        torch.cuda.reset_peak_memory_stats(adapter.runs_on)
