"""Encoded examples on disk, and the batches they are dealt out in."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

IGNORED = -100  # the target of a position whose logits are not read


@dataclass(frozen=True)
class Encoding:
    """One example as tokens.

    span is the task span (start, stop) in tokens, second the start of a second text; cut: were there more tokens?
    targets is what the loss expects: a class, or for each position the token that its logits should give, else IGNORED.
    """

    ids: Sequence[int]
    span: tuple[int, int] | None = None
    second: int | None = None
    cut: bool = False
    targets: int | Sequence[int] | None = None


@dataclass(frozen=True)
class Batch:
    """Padded examples: ids, mask (1 is valid) and, where the tokenizer has them, token types, each (batch, position).

    span (batch, position) bool marks the task span; index (batch,) is the place of each example in the data.
    targets, where there is a loss: classes (batch,), or (batch, position) the token to predict there, else IGNORED.
    """

    ids: torch.Tensor
    mask: torch.Tensor
    index: np.ndarray
    types: torch.Tensor | None = None
    span: torch.Tensor | None = None
    targets: torch.Tensor | None = None

    @property
    def first(self) -> torch.Tensor:
        """The first valid position of each example: (batch,)."""
        return self.mask.int().argmax(1)

    @property
    def last(self) -> torch.Tensor:
        """The last valid position of each example, whatever the side of the padding: (batch,)."""
        return self.mask.shape[1] - 1 - self.mask.flip(1).int().argmax(1)

    def to(self, device: torch.device) -> Batch:
        moved = [t.to(device) if t is not None else None for t in (self.types, self.span, self.targets)]
        return Batch(self.ids.to(device), self.mask.to(device), self.index, *moved)


class Examples:
    """Encoded examples: token ids and their targets in a temporary file, a few dozen bytes an example in memory."""

    def __init__(self, encodings: Iterable[Encoding], *, pad: int, types: bool) -> None:
        self.pad = pad
        self.types = types
        lengths: list[int] = []
        marks: list[tuple[int, int, int]] = []
        classes: list[int] = []
        self.by_token = False  # are the targets tokens?
        self.cut = 0  # how many had more tokens than fit
        self.largest = 0  # the largest token id
        self._file = tempfile.TemporaryFile(prefix="headtool-")  # noqa: SIM115 - lives as long as the examples
        weakref.finalize(self, self._file.close)
        for encoding in encodings:
            np.asarray(encoding.ids, np.int32).tofile(self._file)
            if isinstance(encoding.targets, int):
                classes.append(encoding.targets)
            elif encoding.targets is not None:
                self.by_token = True
                np.asarray(encoding.targets, np.int32).tofile(self._file)
            lengths.append(len(encoding.ids))
            self.cut += encoding.cut
            self.largest = max(self.largest, *encoding.ids, 0)
            start, stop = encoding.span or (0, 0)
            marks.append((start, stop, len(encoding.ids) if encoding.second is None else encoding.second))
        self._file.flush()
        self.lengths = np.asarray(lengths, np.int64)
        self.marks = np.asarray(marks, np.int32).reshape(-1, 3)
        self.classes = np.asarray(classes, np.int64) if classes else None
        self._starts = np.concatenate([[0], np.cumsum(self.lengths)]) * (2 if self.by_token else 1)

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
        return self._read(example, 0)

    def buckets(self, tokens: int, some: np.ndarray | None = None, enough: int = 0) -> list[np.ndarray]:
        """Batches of examples (or of some) of one length each, so that nothing is padded, of at most so many tokens,
        longest first. What is less than enough tokens is filled up with examples that are up to a quarter shorter.
        """
        some = np.arange(len(self)) if some is None else some
        order = some[np.lexsort((some, -self.lengths[some]))]
        lengths, found, start = self.lengths[order], [], 0
        while start < len(order):
            longest = int(lengths[start])
            most, filled = max(1, tokens // longest), enough // longest
            ahead = -lengths[start : start + max(most, filled)]  # ascending
            alike, near = (int(np.searchsorted(ahead, -least, "right")) for least in (longest, 0.75 * longest))
            stop = start + max(min(alike, most), min(near, filled))
            found.append(order[start:stop])
            start = stop
        return found

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
        targets = None if self.classes is None else torch.from_numpy(self.classes[index])
        if self.by_token:
            targets = torch.full((len(index), width), IGNORED)
            for row, example in enumerate(index):
                targets[row, : self.lengths[example]] = torch.from_numpy(self._read(int(example), 1).astype(np.int64))
        return Batch(torch.from_numpy(ids), torch.from_numpy(mask.astype(np.int64)), index, types, span, targets)

    def _read(self, example: int, which: int) -> np.ndarray:
        """The ids (0) or targets (1) of an example."""
        length = int(self.lengths[example])
        self._file.seek((int(self._starts[example]) + which * length) * 4)
        return np.fromfile(self._file, np.int32, length)
