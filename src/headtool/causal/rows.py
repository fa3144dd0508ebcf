"""Encoded examples with their numbers, as the causal model takes them: what is read, and what is to be predicted."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence

import numpy as np
import torch

from headtool.causal.numbers import Piece, split
from headtool.causal.tokens import NumberTokenizer
from headtool.errors import HeadtoolError
from headtool.models.batches import IGNORED
from headtool.tasks.example import Example, RowError

SEPARATOR = " "  # between a text and its value
SHORTEST = 2  # tokens: one to read, one to predict


class Rows:
    """Examples as tokens, 13 bytes a token in memory. An item is a reference: batches are made when they are needed.

    A number is a target where it is the value of its row; in rows without a value, wherever it stands.
    """

    def __init__(self, examples: Iterable[Example], tokens: NumberTokenizer, max_length: int, pad: int) -> None:
        """Raises HeadtoolError where no row is long enough to predict a token of, or none has a number to predict."""
        self.pad = pad
        self.cut = self.short = self.spoilt = 0  # rows that were cut, left out for their length, for the token itself
        ids: list[np.ndarray] = []
        values: list[np.ndarray] = []
        wanted: list[np.ndarray] = []
        for example in examples:
            try:
                row, numbers = tokens.encode_pieces(pieces(example, tokens))
            except RowError:
                self.spoilt += 1
                continue
            if len(row) > max_length:
                self.cut += 1
                keep = slice(len(row) - max_length, None) if example.cut == "left" else slice(0, max_length)
                row, numbers = row[keep], numbers[keep]
            if len(row) < SHORTEST:
                self.short += 1
                continue
            ids.append(np.array(row, np.int32))
            values.append(np.array(numbers, np.float64))
            here = ids[-1] == tokens.num
            if example.label is not None:
                here &= np.arange(len(row)) == np.flatnonzero(here)[-1]
            wanted.append(here)
        if not ids and self.spoilt:
            hint = "leave the token out of the texts"
            raise HeadtoolError(f"all rows hold the token {tokens.token}, which stands for a number", hint=hint)
        if not ids:
            raise HeadtoolError(f"none of the rows has {SHORTEST} tokens", hint="there is nothing to predict in them")
        self.lengths = np.array([len(row) for row in ids])
        self._starts = np.concatenate([[0], np.cumsum(self.lengths)])
        self._ids, self._values, self._wanted = (np.concatenate(parts) for parts in (ids, values, wanted))

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, example: int) -> tuple[Rows, int]:
        return self, int(example)

    @property
    def tokens(self) -> int:
        return int(self.lengths.sum())

    @property
    def targets(self) -> np.ndarray:
        """The numbers to be predicted, in order."""
        return self.numbers()[2]

    def numbers(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Example, position and value of every number to be predicted: the first token of a row is not one of them."""
        first = np.zeros(len(self._ids), bool)
        first[self._starts[:-1]] = True
        at = np.flatnonzero(self._wanted & ~first)
        example = np.searchsorted(self._starts, at, side="right") - 1
        return example, at - self._starts[example], self._values[at]

    def some(self, index: np.ndarray) -> Rows:
        """Some of the rows, numbered anew."""
        part = copy.copy(self)
        at = [slice(self._starts[i], self._starts[i + 1]) for i in index]
        part.lengths = self.lengths[index]
        part._starts = np.concatenate([[0], np.cumsum(part.lengths)])
        for name in ("_ids", "_values", "_wanted"):
            setattr(part, name, np.concatenate([getattr(self, name)[each] for each in at]))
        return part

    def inputs(self, index: Sequence[int] | np.ndarray) -> dict[str, torch.Tensor]:
        """A batch of the named examples, padded on the right: what CausalModel.forward takes."""
        width = int(self.lengths[index].max())
        shape = len(index), width
        ids, values = np.full(shape, self.pad, np.int64), np.zeros(shape)
        labels, targets = np.full(shape, IGNORED, np.int64), np.full(shape, np.nan)
        for row, example in enumerate(index):
            at = slice(self._starts[example], self._starts[example + 1])
            n = int(self.lengths[example])
            ids[row, :n], values[row, :n] = self._ids[at], self._values[at]
            labels[row, : n - 1] = ids[row, 1:n]
            targets[row, : n - 1] = np.where(self._wanted[at][1:], values[row, 1:n], np.nan)
        mask = (np.arange(width) < self.lengths[index, None]).astype(np.int64)
        arrays = {"input_ids": ids, "attention_mask": mask, "values": values, "labels": labels, "targets": targets}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


def pieces(example: Example, tokens: NumberTokenizer) -> list[Piece]:
    """The text of an example, its numbers found, its value after it where it has one."""
    found = split(example.text, tokens.pattern)
    return found if example.label is None else [*found, SEPARATOR, float(example.label)]


def collate(items: Sequence[tuple[Rows, int]]) -> dict[str, torch.Tensor]:
    """A batch of items of one set of rows, in their order."""
    return items[0][0].inputs([example for _, example in items])
