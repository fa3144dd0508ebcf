"""The values of a stored tensor, and of the difference of two, block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from headtool.weights import spectrum
from headtool.weights.examine import PIECE, SMALL, Seen, row_by_row
from headtool.weights.formats import FORMATS, widener
from headtool.weights.plan import Item
from headtool.weights.scratch import scratch
from headtool.weights.source import Checkpoint
from headtool.weights.spectrum import Spectrum

LINE = 1024  # elements of a row where rows mean nothing: sums along it are fast
Read = Callable[[int, memoryview], None]  # fill with the bytes from an offset on


class Stored:
    """A tensor of a checkpoint, or one expert of it, read as it is asked for; from the hub it is fetched whole, once."""

    def __init__(self, checkpoint: Checkpoint, item: Item) -> None:
        form = FORMATS[item.tensor.dtype]
        self.rows, self.cols = item.rows, item.cols
        self.wide, self.eps = form.wide, form.eps or 0.0
        self.bits = form.bits
        dtype = item.tensor.dtype
        self._widen, self._widen_anyhow = widener(dtype), widener(dtype, ordered=False)
        self._read: Read = lambda start, out: checkpoint.read(item.tensor, item.offset + start, out)
        if checkpoint.folder is None:
            held = bytearray(item.bytes)
            self._read(0, memoryview(held))
            self._read = lambda start, out: out.__setitem__(slice(None), memoryview(held)[start : start + len(out)])
        self._room = np.empty(0, self.bits)

    def load(self, rows: slice, cols: slice, out: np.ndarray, seen: Seen | None) -> None:
        for at, codes in self.codes(rows, cols):
            piece = out[at : at + len(codes)]
            self._widen(codes, piece)
            if seen is not None:
                seen(piece)

    def each(self, seen: Seen) -> None:
        count, size = self.rows * self.cols, self.bits.itemsize
        codes, wide = scratch("codes", min(count, PIECE), self.bits), scratch("wide", min(count, PIECE), self.wide)
        for start in range(0, count, PIECE):
            part, values = codes[: count - start], wide[: count - start]
            self._read(start * size, _bytes(part))
            self._widen_anyhow(part, values)
            lines = len(part) // LINE * LINE
            if lines:
                seen(values[:lines].reshape(-1, LINE))
            if lines < len(part):
                seen(values[lines:].reshape(1, -1))

    def codes(self, rows: slice, cols: slice) -> Iterator[tuple[int, np.ndarray]]:
        """Cache-sized pieces of a block as stored: (row within the block, codes). A piece is gone with the next."""
        count, width = rows.stop - rows.start, cols.stop - cols.start
        step = max(1, PIECE // max(width, 1))
        if self._room.size < min(step, count) * width:
            self._room = np.empty(min(step, count) * width, self.bits)
        size = self.bits.itemsize
        for at in range(0, count, step):
            n = min(step, count - at)
            codes = self._room[: n * width].reshape(n, width)
            first = (rows.start + at) * self.cols + cols.start
            if width == self.cols:
                self._read(first * size, _bytes(codes))
            else:
                for row in range(n):
                    self._read((first + row * self.cols) * size, _bytes(codes[row]))
            yield at, codes

    def whole(self) -> np.ndarray:
        """All of it, as (rows, cols) of its wide type."""
        out = np.empty((self.rows, self.cols), self.wide)
        self.load(slice(0, self.rows), slice(0, self.cols), out, None)
        return out

    def rounding(self, found: Spectrum) -> float:
        return spectrum.rounding(self.eps, found.row, found.column)


class Difference:
    """b - a, in the wider of their types. The first time over, what is said of the two is summed up on the way."""

    def __init__(self, a: Stored, b: Stored, same_type: bool) -> None:
        self.a, self.b, self.same_type = a, b, same_type
        self.rows, self.cols = a.rows, a.cols
        small = a.rows * a.cols <= SMALL
        self.wide = np.dtype(np.float64) if small else np.promote_types(a.wide, b.wide)
        self.eps = max(a.eps, b.eps)
        self.product = 0.0
        self.changed = 0
        self._by_row, self._by_column = np.zeros((2, self.rows)), np.zeros((2, self.cols))

    def load(self, rows: slice, cols: slice, out: np.ndarray, seen: Seen | None) -> None:
        for (at, codes_a), (_, codes_b) in zip(self.a.codes(rows, cols), self.b.codes(rows, cols), strict=True):
            both = [np.empty(codes_a.shape, side.wide) for side in (self.a, self.b)]
            for side, codes, values in zip((self.a, self.b), (codes_a, codes_b), both, strict=True):
                side._widen(codes, values)
            x, y = (values.astype(self.wide, copy=False) for values in both)
            piece = out[at : at + len(codes_a)]
            np.subtract(y, x, out=piece)
            if seen is None:
                continue
            self.changed += int(np.count_nonzero(codes_a != codes_b if self.same_type else x != y))
            self.product += float(x.ravel() @ y.ravel())
            where = slice(rows.start + at, rows.start + at + len(piece))
            for i, values in enumerate((x, y)):
                squares = values * values
                self._by_row[i, where] += squares.sum(1)
                self._by_column[i, cols] += squares.sum(0)
            seen(piece)

    def each(self, seen: Seen) -> None:
        row_by_row(self, seen)

    def rounding(self, found: Spectrum) -> float:
        """The roundings of the two are independent: their squares add up."""
        each = [
            spectrum.rounding(side.eps, float(np.sqrt(row.max())), float(np.sqrt(column.max())))
            for side, row, column in zip((self.a, self.b), self._by_row, self._by_column, strict=True)
        ]
        return float(np.hypot(each[0], each[1]))

    @property
    def norms(self) -> tuple[float, float]:
        """Frobenius norms of a and b."""
        a, b = np.sqrt(self._by_row.sum(1))
        return float(a), float(b)


def _bytes(codes: np.ndarray) -> memoryview:
    return codes.data.cast("B") if codes.size else memoryview(bytearray())
