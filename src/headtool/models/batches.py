"""Encoded examples on disk, and the batches they are dealt out in."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Encoding:
    """One example as tokens.

    span is the task span (start, stop) in tokens, second the start of a second text; cut: were there more tokens?
    """

    ids: Sequence[int]
    span: tuple[int, int] | None = None
    second: int | None = None
    cut: bool = False


@dataclass(frozen=True)
class Batch:
    """Padded examples: ids, mask (1 is valid) and, where the tokenizer has them, token types, each (batch, position).

    span (batch, position) bool marks the task span; index (batch,) is the place of each example in the data.
    """

    ids: torch.Tensor
    mask: torch.Tensor
    index: np.ndarray
    types: torch.Tensor | None = None
    span: torch.Tensor | None = None

    @property
    def first(self) -> torch.Tensor:
        """The first valid position of each example: (batch,)."""
        return self.mask.int().argmax(1)

    @property
    def last(self) -> torch.Tensor:
        """The last valid position of each example, whatever the side of the padding: (batch,)."""
        return self.mask.shape[1] - 1 - self.mask.flip(1).int().argmax(1)

    def to(self, device: torch.device) -> Batch:
        moved = [t.to(device) if t is not None else None for t in (self.types, self.span)]
        return Batch(self.ids.to(device), self.mask.to(device), self.index, *moved)


class Examples:
    """Encoded examples: token ids in a temporary file, 24 bytes an example in memory."""

    def __init__(self, encodings: Iterable[Encoding], *, pad: int, types: bool) -> None:
        self.pad = pad
        self.types = types
        lengths: list[int] = []
        marks: list[tuple[int, int, int]] = []
        self.cut = 0  # how many had more tokens than fit
        self.largest = 0  # the largest token id
        self._file = tempfile.TemporaryFile(prefix="headtool-")  # noqa: SIM115 - lives as long as the examples
        weakref.finalize(self, self._file.close)
        for encoding in encodings:
            np.asarray(encoding.ids, np.int32).tofile(self._file)
            lengths.append(len(encoding.ids))
            self.cut += encoding.cut
            self.largest = max(self.largest, *encoding.ids, 0)
            start, stop = encoding.span or (0, 0)
            marks.append((start, stop, len(encoding.ids) if encoding.second is None else encoding.second))
        self._file.flush()
        self.lengths = np.asarray(lengths, np.int64)
        self.marks = np.asarray(marks, np.int32).reshape(-1, 3)
        self._starts = np.concatenate([[0], np.cumsum(self.lengths)])

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def tokens(self) -> int:
        return int(self.lengths.sum())

    @property
    def with_span(self) -> int:
        """How many have a task span."""
        return int((self.marks[:, 1] > self.marks[:, 0]).sum())

    def ids(self, example: int) -> np.ndarray:
        return np.fromfile(self._file_at(example), np.int32, int(self.lengths[example]))

    def plan(self, size: int | None, tokens: int) -> list[np.ndarray]:
        """The batches over the whole data, longest examples first (ties in order): arrays of example numbers.

        size examples a batch, or with None as many as keep the padded batch within a number of tokens.
        Longest first, so that a batch that does not fit in memory fails at once and not at the end.
        """
        order = np.lexsort((np.arange(len(self)), -self.lengths))
        batches, start = [], 0
        while start < len(order):
            rows = size or max(1, tokens // int(self.lengths[order[start]]))
            batches.append(np.sort(order[start : start + rows]))
            start += rows
        return batches

    def batch(self, index: np.ndarray) -> Batch:
        """The named examples, padded on the right."""
        width = int(self.lengths[index].max())
        ids = np.full((len(index), width), self.pad, np.int64)
        position = np.arange(width)
        for row, example in enumerate(index):
            ids[row, : self.lengths[example]] = self.ids(int(example))
        mask = position < self.lengths[index, None]
        start, stop, second = (column[:, None] for column in self.marks[index].T)
        types = torch.from_numpy(((position >= second) & mask).astype(np.int64)) if self.types else None
        span = torch.from_numpy((position >= start) & (position < stop))
        return Batch(torch.from_numpy(ids), torch.from_numpy(mask.astype(np.int64)), index, types, span)

    def _file_at(self, example: int):
        self._file.seek(int(self._starts[example]) * 4)
        return self._file
