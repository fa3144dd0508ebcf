"""Moments of a tensor's values in one pass over cache-sized pieces, and a second, centred one where the first is not enough."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from headtool.weights.scratch import scratch

SAFE = (1e-9, 1e9)  # largest |x| of a piece between which float32 holds the sums of fourth powers
TINY = 1e-15  # below this float32 does not hold a square to a thousandth
LOPSIDED = 0.1  # |mean| over the standard deviation from which raw moments lose digits
SIDES = Literal["rows", "columns", ""]


class Workspace:
    """Where the squares of a piece and the sums of its rows go, and ones to add up with; for all pieces of a shape."""

    def __init__(self, piece: np.ndarray) -> None:
        rows, cols = piece.shape
        self.flat = scratch("squares", piece.size, piece.dtype)
        self.squares = self.flat.reshape(rows, cols)
        ones = np.ones(max(rows, cols), piece.dtype)
        self.down, self.across = ones[:rows], ones[:cols]
        self.by_row = np.empty(rows, piece.dtype)


@dataclass
class Moments:
    """Sums over the finite values seen, shifted by centre, after a multiplication by scale.

    Pieces arrive as (rows, columns). Sums within a piece are taken in its own type (float32 for 16- and 32-bit floats),
    sums of pieces in float64. With sides, the largest sum of squares of a row is
    kept, or of a column, of which a block must hold all rows.
    """

    zero_eps: float
    centre: float = 0.0
    scale: float = 1.0
    exact: bool = False  # float64 throughout
    sides: SIDES = ""
    n: int = 0
    n_nan: int = 0
    n_inf: int = 0
    zeros: int = 0
    low: float = math.inf
    high: float = -math.inf
    sums: list[float] = field(default_factory=lambda: [0.0] * 4)  # of x, x^2, x^3, x^4
    row: float = 0.0  # largest sum of squares of a row
    column: float = 0.0  # largest sum of squares of a column
    columns: np.ndarray | float = 0.0  # sums of squares of the columns of the block that is being read
    _reach: float = 0.0  # what has no square above it lies between the extremes so far
    _room: Workspace | None = None

    def add(self, piece: np.ndarray) -> None:
        """Take in a piece, which is left as it is."""
        if not piece.size:
            return
        x = piece.astype(np.float64, copy=False) if self.exact else piece
        room = self._room
        if room is None or room.squares.shape != x.shape or room.squares.dtype != x.dtype:
            room = self._room = Workspace(x)
        plain = self.scale == 1.0 and self.centre == 0.0
        shifted = x if plain else x * self.scale - self.centre
        np.multiply(shifted, shifted, out=room.squares)
        squares = room.flat
        largest = float(np.maximum.reduce(squares))
        if x.dtype == np.float32 and not SAFE[0] ** 2 < largest < SAFE[1] ** 2 and (largest or x.any()):
            return self.add(x.astype(np.float64))
        if not math.isfinite(largest) and not (known := np.isfinite(x)).all():
            nans = int(np.isnan(x).sum())
            self.n_nan += nans
            self.n_inf += x.size - int(known.sum()) - nans
            self.sides, self.columns = "", 0.0  # what is left of it has no sides, and no spectrum
            return self.add(x[known][None])
        if not (plain and largest < self._reach):  # most pieces hold no extreme, and need not be searched
            self._extremes(x)
        self.n += x.size
        near = 1.001 * self.zero_eps**2  # squares tell quickly where no value can be that small
        if not plain or self.zero_eps < TINY or float(np.minimum.reduce(squares)) <= near:
            self.zeros += int(np.count_nonzero(np.abs(x) <= self.zero_eps))
        if self.sides == "columns":
            by_column = room.down @ room.squares
            self.columns = self.columns + by_column.astype(np.float64)
            second = _total(by_column)
        else:  # as sums of rows it is exact to two more digits than as one product of all with all
            by_row = np.dot(room.squares, room.across, out=room.by_row)  # BLAS adds up three times faster than sum(1)
            if self.sides:
                self.row = max(self.row, float(by_row.max()))
            second = _total(by_row)
        # Rows times the same few ones: half the memory that a product with as many ones as values goes through.
        first = _total(np.dot(shifted, room.across, out=room.by_row))
        for i, more in enumerate((first, second, float(squares @ shifted.reshape(-1)), float(squares @ squares))):
            self.sums[i] += more

    def _extremes(self, x: np.ndarray) -> None:
        self.low = min(self.low, float(np.minimum.reduce(x, None)))
        self.high = max(self.high, float(np.maximum.reduce(x, None)))
        within = max(min(-self.low, self.high), 0.0)
        self._reach = within * within  # infinity where ** would raise

    def end_block(self) -> None:
        """All rows of a block of columns have been added."""
        self.column = max(self.column, float(np.max(self.columns)))
        self.columns = 0.0

    @property
    def mean(self) -> float:
        """Of what was summed: scaled and shifted."""
        return self.sums[0] / self.n if self.n else 0.0

    @property
    def lopsided(self) -> bool:
        """Is the mean so far from 0 that central moments from these sums would lose digits?"""
        if not self.n:
            return False
        variance = self.sums[1] / self.n - self.mean**2
        return not math.isfinite(variance) or abs(self.mean) > LOPSIDED * math.sqrt(max(variance, 0.0))

    @property
    def finite(self) -> bool:
        return not (self.n_nan or self.n_inf)

    def numbers(self) -> dict[str, float]:
        """The statistics as columns of the table parameters; NaN where one is not defined.

        std and var are the population's; kurtosis is m4 / m2^2 - 3; fro_norm is the root of the sum of squares;
        sparsity is the share of |x| <= zero_eps. All are over the finite values.
        """
        counts: dict[str, float] = {"n_nan": self.n_nan, "n_inf": self.n_inf}
        if not self.n:
            names = ("mean", "std", "var", "min", "max", "abs_max", "kurtosis", "sparsity", "fro_norm")
            return counts | dict.fromkeys(names, math.nan)
        with np.errstate(all="ignore"):
            m1, m2, m3, m4 = np.array(self.sums) / self.n
            second = max(m2 - m1**2, 0.0) if self.high > self.low else 0.0
            fourth = m4 - 4 * m1 * m3 + 6 * m1**2 * m2 - 3 * m1**4
            mean, std = (self.centre + m1) / self.scale, math.sqrt(second) / self.scale
            root = math.sqrt(second + (self.centre + m1) ** 2) * math.sqrt(self.n) / self.scale
            kurtosis = float(fourth / second**2 - 3) if second**2 > 0 else math.nan
        if self.high == self.low:
            mean = self.low
        return counts | {
            "mean": float(mean), "std": std, "var": std * std, "min": self.low, "max": self.high,
            "abs_max": max(abs(self.low), abs(self.high)), "kurtosis": kurtosis, "sparsity": self.zeros / self.n,
            "fro_norm": float(root),
        }  # fmt: skip


def _total(x: np.ndarray) -> float:
    return float(np.add.reduce(x, dtype=np.float64))


def again(first: Moments, pieces: Callable[[], Iterable[np.ndarray]]) -> Moments:
    """The moments in float64 about the mean, from one more pass over the pieces, or two; first has been over them once."""
    largest = max(abs(first.low), abs(first.high)) if first.n else 0.0
    wild = largest and not 1e-60 < largest < 1e60  # fourth powers would leave float64
    scale = 2.0 ** -max(min(math.frexp(largest)[1], 1000), -1000) if wild else 1.0
    about_zero = first
    if not first.exact or wild:
        about_zero = Moments(first.zero_eps, scale=scale, exact=True)
        for piece in pieces():
            about_zero.add(piece)
    centred = Moments(first.zero_eps, centre=about_zero.mean, scale=scale, exact=True)
    for piece in pieces():
        centred.add(piece)
    centred.row, centred.column = first.row, first.column
    return centred
