"""Singular values of a matrix of weights, from the Gram matrix of its smaller side where that is exact enough."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from headtool.weights import lapack

CLEAR = 1e-4  # smallest over largest eigenvalue from which a Gram matrix in float32 is exact enough
SAFE = (1e-12, 1e12)  # largest |x| between which float32 holds squares
UNIT = 2.0**-52


@dataclass(frozen=True)
class Spectrum:
    """Singular values, descending, float64; how they were found; the largest norms of a row and of a column."""

    values: np.ndarray
    method: str
    row: float
    column: float


def gram(blocks: Iterable[np.ndarray], side: int, tall: bool, dtype: type) -> np.ndarray:
    """The Gram matrix of the smaller side, lower triangle (side, side): A^T A from blocks of rows of a tall A, else A A^T
    from blocks of columns.
    """
    total: np.ndarray = np.zeros((side, side), dtype, order="F")
    for block in blocks:
        lapack.add_gram(total, block, tall)
    return total


def resolved(side: int) -> float:
    """The share of the largest eigenvalue below which a float64 Gram matrix says nothing: 10 sqrt(side) 2^-52."""
    return 10 * math.sqrt(side) * UNIT


def singular_values(matrix: np.ndarray) -> np.ndarray:
    """Singular values of a float64 matrix, descending, by a decomposition of the matrix itself."""
    from scipy.linalg import svdvals

    largest = float(np.abs(matrix).max())
    if largest == 0:
        return np.zeros(min(matrix.shape))
    scale = 2.0 ** -max(min(math.frexp(largest)[1], 1000), -1000)
    return svdvals(matrix * scale, check_finite=False) / scale


def numbers(found: Spectrum, tolerance: float, rounding: float) -> dict[str, float]:
    """What the singular values s say, as columns of the table parameters; NaN where something is not defined.

    rank = #{s > s_max tolerance}; rank_resolved = #{s > max(s_max tolerance, rounding)}; stable_rank = (fro / s_max)^2;
    effective_rank = exp of the entropy of s / sum s (Roy and Vetterli 2007); rank_90, rank_99 the fewest that hold
    that share of sum s^2; condition = s_max / s_min, where the method resolves s_min.
    """
    s = found.values
    top, least = float(s[0]), float(s[-1])
    return {
        "rank": int((s > top * tolerance).sum()),
        "rank_resolved": int((s > max(top * tolerance, rounding)).sum()),
        "spectral_norm": top,
        "condition": top / least if least > 0 else math.nan,
    } | shares(s)


def rounding(eps: float, row: float, column: float) -> float:
    """About the largest singular value of what storage rounded off a matrix: eps / sqrt(12) (largest row norm + largest
    column norm), in the unit of the weights.

    Rounding to a relative spacing eps leaves errors spread over |x| eps, of standard deviation at most |x| eps / sqrt(12),
    and a matrix of independent errors has no singular value above its row norm plus its column norm, nearly (Latala 2005).
    """
    return eps / math.sqrt(12) * (row + column)


def shares(s: np.ndarray) -> dict[str, float]:
    """stable_rank, effective_rank, rank_90 and rank_99 of descending singular values; NaN for a matrix of zeros."""
    if s[0] <= 0:
        return dict.fromkeys(("stable_rank", "effective_rank", "rank_90", "rank_99"), math.nan)
    unit = s / s[0]
    energy = np.cumsum(unit**2)
    p = unit / unit.sum()
    p = p[p > 0]
    told: dict[str, float] = {"stable_rank": float(energy[-1]), "effective_rank": float(np.exp(-(p * np.log(p)).sum()))}
    for percent in (90, 99):
        told[f"rank_{percent}"] = int(np.searchsorted(energy, percent / 100 * energy[-1] * (1 - 1e-12)) + 1)
    return told
