"""One tensor, seen as a matrix, from its bytes to its row of numbers: read in blocks, in one pass where that is enough."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from headtool.weights import lapack, spectrum
from headtool.weights.moments import Moments, again
from headtool.weights.powerlaw import exponent
from headtool.weights.spectrum import Spectrum

PIECE = 1 << 17  # elements that stay in the cache while they are widened and summed
BLOCK = 8 << 20  # bytes of widened elements that are multiplied at once, at least
WHOLE = 64 << 20  # bytes up to which a wide matrix is one block
DEEP = 2048  # rows of a block that make the product cost more than adding it to the sum
NEARLY_SQUARE = 1.25  # up to this ratio of sides a smallest eigenvalue is never clear of float32's rounding
SMALL = 1 << 16  # elements up to which everything is done in float64
Seen = Callable[[np.ndarray], None]


class Values(Protocol):
    """A matrix whose values can be had block by block: a tensor of a file, an array, the difference of two."""

    rows: int
    cols: int
    wide: np.dtype  # float32, or float64
    eps: float  # of the stored type; 0 for integers

    def load(self, rows: slice, cols: slice, out: np.ndarray, seen: Seen | None) -> None:
        """Write a block into out (wide, C-contiguous), and show seen each piece of it while it is in the cache."""

    def each(self, seen: Seen) -> None:
        """Show every value once, in pieces (rows, columns) of whatever shape and order comes fastest."""

    def rounding(self, found: Spectrum) -> float:
        """About the largest singular value that the rounding of storage explains."""


@dataclass(frozen=True)
class Wish:
    """What is asked of every tensor."""

    zero_eps: float = 1e-8
    rank_tol: float | None = None
    spectra: bool = True
    alpha: bool = False


@dataclass(frozen=True)
class Seeing:
    """What a tensor came to: columns of the table parameters, how its rank was found, its singular values if any."""

    numbers: dict[str, float]
    method: str
    values: np.ndarray | None


class Held:
    """A matrix in memory, float32 or float64, of a stored type with this eps."""

    def __init__(self, matrix: np.ndarray, eps: float) -> None:
        self.matrix = matrix
        self.rows, self.cols = matrix.shape
        self.wide, self.eps = matrix.dtype, eps

    def load(self, rows: slice, cols: slice, out: np.ndarray, seen: Seen | None) -> None:
        step = max(1, PIECE // max(out.shape[1], 1))
        for start in range(0, len(out), step):
            piece = out[start : start + step]
            piece[:] = self.matrix[rows.start + start : rows.start + start + len(piece), cols]
            if seen is not None:
                seen(piece)

    def each(self, seen: Seen) -> None:
        row_by_row(self, seen)

    def rounding(self, found: Spectrum) -> float:
        return spectrum.rounding(self.eps, found.row, found.column)


def examine(values: Values, wish: Wish, skip: str = "") -> Seeing:
    """Statistics and, unless skip says why not, the spectrum of a matrix. Raises what reading raises."""
    elements = values.rows * values.cols
    tall, side = values.rows >= values.cols, min(values.rows, values.cols)
    if elements == 0:
        skip = skip or "empty"
    if not wish.spectra:
        skip = skip or "not asked for"
    small = elements <= SMALL or values.wide == np.float64
    moments = Moments(wish.zero_eps, exact=small, sides="" if skip else ("rows" if tall else "columns"))
    with np.errstate(all="ignore"):  # overflow is looked for in the sums
        total = None
        if skip:
            values.each(moments.add)
        elif values.eps <= spectrum.UNIT:
            for _ in blocks(values, moments.add):
                pass
        else:
            square = max(values.rows, values.cols) < NEARLY_SQUARE * side
            dtype = np.float64 if small or square else np.float32
            total = spectrum.gram(ended(blocks(values, moments.add), moments), side, tall, dtype)
        if moments.n and (small or moments.lopsided):
            moments = again(moments, lambda: pieces(values))
        if not moments.finite:
            skip = skip or "not finite"
        told = moments.numbers()
        if skip:
            return Seeing(told, f"skipped:{skip}", None)
        found = directly(values) if total is None else from_gram(values, total, moments, wish.rank_tol)
        unit = spectrum.UNIT if values.eps <= spectrum.UNIT else 2.0**-23
        tolerance = max(values.rows, values.cols) * unit if wish.rank_tol is None else wish.rank_tol
        told |= spectrum.numbers(found, tolerance, values.rounding(found))
        if wish.alpha:
            told["alpha"] = exponent(found.values**2)
    return Seeing(told, found.method, found.values)


def from_gram(values: Values, total: np.ndarray, moments: Moments, tol: float | None) -> Spectrum:
    """The spectrum from a Gram matrix: in float32 where its smallest eigenvalue is clear of rounding, else in float64,
    and from the matrix itself where --rank-tol asks for more than a float64 Gram matrix resolves.
    """
    tall, side = values.rows >= values.cols, len(total)
    floor = spectrum.resolved(side)
    if tol is not None and tol**2 < floor:
        return directly(values)
    largest = max(abs(moments.low), abs(moments.high))
    method = "gram32" if total.dtype == np.float32 else "gram64"
    across = float(np.sqrt(max(float(total.diagonal().max()), 0.0)))
    if method == "gram32":
        safe = largest == 0 or spectrum.SAFE[0] < largest < spectrum.SAFE[1]
        found = lapack.eigenvalues(total) if safe else np.zeros(1)
        if largest and found[0] <= spectrum.CLEAR * found[-1]:
            total = spectrum.gram(blocks(values), side, tall, np.float64)
            across = float(np.sqrt(total.diagonal().max()))
            method, found = "gram64", lapack.eigenvalues(total)
    else:
        found = lapack.eigenvalues(total)
    along = float(np.sqrt(moments.row if tall else moments.column))
    found = np.where(found > floor * found[-1], found, 0.0)[::-1]
    row, column = (along, across) if tall else (across, along)
    return Spectrum(np.sqrt(found), method, row, column)


def directly(values: Values) -> Spectrum:
    """The spectrum from the matrix itself, in float64."""
    matrix = np.empty((values.rows, values.cols), values.wide)
    values.load(slice(0, values.rows), slice(0, values.cols), matrix, None)
    matrix = matrix.astype(np.float64, copy=False)
    row, column = (float(np.linalg.norm(matrix, axis=axis).max()) for axis in (1, 0))
    return Spectrum(spectrum.singular_values(matrix), "svd", row, column)


def blocks(values: Values, seen: Seen | None = None) -> Iterator[np.ndarray]:
    """A tall matrix in blocks of rows, a wide one in blocks of columns; each block is gone with the next."""
    tall, side = values.rows >= values.cols, min(values.rows, values.cols)
    length = max(values.rows, values.cols)
    line = max(side * values.wide.itemsize, 1)
    step = min(length, max(BLOCK // line, min(side, DEEP)))
    if not tall and length * line <= WHOLE:  # a block of columns is read line by line
        step = length
    room = np.empty(side * step, values.wide)
    for start in range(0, length, max(step, 1)):
        part, whole = slice(start, min(start + step, length)), slice(0, side)
        rows, cols = (part, whole) if tall else (whole, part)
        block = room[: side * (part.stop - start)].reshape(rows.stop - rows.start, cols.stop - cols.start)
        values.load(rows, cols, block, seen)
        yield block


def ended(read: Iterator[np.ndarray], moments: Moments) -> Iterator[np.ndarray]:
    """The blocks, of each of which the moments are told when they have seen all of it."""
    for block in read:
        moments.end_block()
        yield block


def row_by_row(values: Values, seen: Seen) -> None:
    """Show every value once, in order."""
    for _ in pieces(values, seen):
        pass


def pieces(values: Values, seen: Seen | None = None) -> Iterator[np.ndarray]:
    """The matrix in cache-sized pieces of whole rows."""
    step = max(1, PIECE // max(values.cols, 1))
    room = np.empty((min(step, values.rows), values.cols), values.wide)
    for start in range(0, values.rows, step):
        stop = min(start + step, values.rows)
        values.load(slice(start, stop), slice(0, values.cols), room[: stop - start], seen)
        yield room[: stop - start]
