"""Chunks into parts: each tensor examined, each layer's heads, by a few threads under one bound of memory."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from headtool.weights import circuits, lapack
from headtool.weights.examine import BLOCK, DEEP, WHOLE, Held, Seeing, Wish, examine
from headtool.weights.plan import Attention, Chunk, Item
from headtool.weights.source import Checkpoint
from headtool.weights.stored import Stored

POINTS = 65  # singular values kept of each spectrum for the figure, evenly spaced from the first to the last
ROOM = 64 << 20  # bytes that work may take whatever the tensors

INTEGERS = ("rank", "rank_resolved", "rank_90", "rank_99", "n_nan", "n_inf")
NUMBERS = (
    "mean", "std", "var", "min", "max", "abs_max", "kurtosis", "sparsity", "n_nan", "n_inf", "fro_norm", "rank",
    "rank_resolved", "spectral_norm", "stable_rank", "effective_rank", "rank_90", "rank_99", "condition", "alpha",
)  # fmt: skip


def examine_chunk(
    checkpoint: Checkpoint, chunk: Chunk, attention: Attention | None, wish: Wish, room: Room
) -> dict[str, np.ndarray]:
    """The arrays of a chunk's part: NUMBERS of each item, how its rank was found, points of its spectrum; its layers' heads."""
    seen: dict[str, Seeing] = {}
    heads: list[dict[str, np.ndarray]] = []
    for layer in chunk.layers:
        assert attention is not None
        grams = {}
        parts = attention.layers[layer]
        for name in dict.fromkeys(item.name for item in parts.values()):
            which = [part for part, item in parts.items() if item.name == name]
            item = parts[which[0]]
            with room.take(need(item, wish, held=True)):
                values = Held(Stored(checkpoint, item).whole(), _eps(item))
                seen[name] = examine(values, wish, item.skip)
                for part in which:
                    grams[part] = circuits.slice_grams(values.matrix, attention.layout, attention.geometry, part)
        if all(np.isfinite(gram).all() for gram in grams.values()):
            told = circuits.rows(grams, attention.geometry)
            heads.append({"layer": np.full(attention.geometry.heads, layer)} | told)
    for item in chunk.items:
        if item.name not in seen:
            with room.take(need(item, wish)):
                seen[item.name] = _one(checkpoint, item, wish)
    found = [seen[item.name] for item in chunk.items]
    return {
        "numbers": table([each.numbers for each in found], NUMBERS),
        "method": np.array([each.method for each in found]),
        "spectrum": np.array([_points(each.values) for each in found]),
    } | heads_of(heads)


def table(rows: Sequence[Mapping[str, float]], names: Sequence[str]) -> np.ndarray:
    """Numbers as (row, name), NaN where a row has none: few arrays in a part are read many times faster than many."""
    return np.array([[row.get(name, np.nan) for name in names] for row in rows], float).reshape(-1, len(names))


def heads_of(layers: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The columns of some layers' heads as two arrays of a part; none where there are no layers."""
    if not layers:
        return {}
    names = list(layers[0])
    return {
        "heads": np.concatenate([np.column_stack([each[name] for name in names]) for each in layers]),
        "heads_names": np.array(names),
    }


def _one(checkpoint: Checkpoint, item: Item, wish: Wish) -> Seeing:
    if item.skip.startswith("type"):
        return Seeing({}, f"skipped:{item.skip}", None)
    return examine(Stored(checkpoint, item), wish, item.skip)


def _eps(item: Item) -> float:
    from headtool.weights.formats import FORMATS

    return FORMATS[item.tensor.dtype].eps or 0.0


def _points(values: np.ndarray | None) -> np.ndarray:
    if values is None or not values[0] > 0:
        return np.full(POINTS, np.nan)
    at = np.round(np.linspace(0, len(values) - 1, POINTS)).astype(int)
    return values[at] / values[0]


def need(item: Item, wish: Wish, held: bool = False) -> int:
    """About the bytes that examining an item takes."""
    side, length = sorted((item.rows, item.cols))
    lines = max(BLOCK, 4 * side * min(side, DEEP))
    if item.cols > item.rows and 4 * item.rows * item.cols <= WHOLE:
        lines = WHOLE
    block = 3 * lines  # in float32, and again in float64
    whole = 4 * item.rows * item.cols if held else 0
    if item.tensor.dtype == "F64":
        whole = 3 * item.bytes
    gram = 16 * side * side if wish.spectra and not item.skip else 0
    return min(block, 12 * item.rows * item.cols) + whole + gram


@dataclass
class Room:
    """Memory that threads share: one that wants more than is left waits, unless nobody else holds any."""

    limit: int
    held: int = 0
    _turn: threading.Condition = field(default_factory=threading.Condition)

    @contextmanager
    def take(self, wanted: int) -> Iterator[None]:
        with self._turn:
            self._turn.wait_for(lambda: self.held == 0 or self.held + wanted <= self.limit)
            self.held += wanted
        try:
            yield
        finally:
            with self._turn:
                self.held -= wanted
                self._turn.notify_all()


def ready(wish: Wish) -> None:
    """Import what examining needs, before its threads are limited: a BLAS that comes later would take all cores."""
    if wish.spectra:
        lapack.ready()


def spread(tasks: Sequence[Any], do: Callable[[Any], Any], threads: int) -> Iterator[tuple[Any, Any]]:
    """(task, what it came to) as they are done, by so many threads, each with one BLAS thread: two matrices side by side use two
    cores better than one matrix does. The first error ends it.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, user_api="blas"):
        if threads == 1:
            for task in tasks:
                yield task, do(task)
            return
        with ThreadPoolExecutor(threads) as pool:
            left = iter(tasks)
            running = {pool.submit(do, task): task for task in itertools.islice(left, threads)}
            try:
                while running:
                    done, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        task = running.pop(future)
                        result = future.result()
                        for following in itertools.islice(left, 1):
                            running[pool.submit(do, following)] = following
                        yield task, result
            finally:
                for future in running:
                    future.cancel()
