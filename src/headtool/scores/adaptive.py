"""Ablation importance sooner: first-order effects of all examples, corrected by exact ones of some.

An example's exact effect y is known on a random sample; elsewhere it is predicted from its first-order effect a as
b a + mean of (y - b a) over the sample, b fitted by cross-fitting, so that the estimate is unbiased whatever b is worth.
The sample grows in rounds, and a head that is known well enough is not ablated any more.

Source: Owen 2013, "Monte Carlo theory, methods and examples", chapter 8 (control variates, regression estimators);
Chernozhukov et al. 2018, "Double/debiased machine learning" (cross-fitting); Neyman 1934, "On the two different aspects of
the representative method" (how much to sample of what).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.95
FIRST = 64  # examples of the first round
GROWTH = 1.5  # of the sample, from round to round
FOLDS = 4
COCHRAN = 25  # examples times the squared skewness, from which a mean is about normal (Cochran 1977, section 2.15)


@dataclass(frozen=True)
class Estimate:
    """I of every head (layer, head), from n exact effects and all first-order ones.

    data_se is the standard error of I as an estimate of what the exhaustive sweep of these examples gives, se as one of
    what new examples give; low and high bound the former at 95%. slope is b, residual y - b a (layer, head, example),
    null (NaN) where the head was not ablated. enough is how many examples a normal interval asks for. unexplained is the
    standard deviation of the residual over that of the effect: what first order leaves open.
    """

    I: np.ndarray  # noqa: E741 - its name
    data_se: np.ndarray
    se: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n: np.ndarray
    slope: np.ndarray
    residual: np.ndarray
    enough: np.ndarray
    unexplained: np.ndarray


def rounds(total: int) -> list[int]:
    """The sizes that the sample has at the end of each round, of a number of examples in all."""
    sizes, size = [], float(FIRST)
    while size < total * 0.8:  # a last step that is nearly all of them is all of them
        sizes.append(int(size))
        size *= GROWTH
    return [*sizes, total]


def estimate(first: np.ndarray, exact: np.ndarray, order: np.ndarray) -> Estimate:
    """Estimate I from first-order effects (layer, head, example) and exact ones of the same shape, NaN where unknown.

    order is the random order (example,) in which examples were ablated: a head's known ones are the first n of it.
    """
    a, y = first[..., order].astype(np.float64), exact[..., order].astype(np.float64)
    known = np.isfinite(y)
    n, total = known.sum(-1), a.shape[-1]
    fold = np.arange(total) % FOLDS
    share = n / total
    unknown = np.where(known, 0.0, a).sum(-1) / np.maximum(total - n, 1)  # mean first order of the others
    predicted, residual = np.zeros(n.shape), np.full(y.shape, np.nan)
    for k in range(FOLDS):
        inside = known & (fold == k)
        b = _slope(a, y, known & (fold != k))
        r = np.where(inside, y - b[..., None] * a, 0.0)
        residual = np.where(inside, r, residual)
        predicted += r.sum(-1) / n + inside.sum(-1) / n * b * unknown
    estimates = share * np.where(known, y, 0.0).sum(-1) / n + (1 - share) * predicted
    slope = _slope(a, y, known)
    r = np.where(known, residual, 0.0)
    mean_r = r.sum(-1) / n
    squares = np.where(known, (residual - mean_r[..., None]) ** 2, 0.0)
    variance_r = squares.sum(-1) / np.maximum(n - 1, 1)
    data_variance = (1 - share) * variance_r / n
    fitted = slope[..., None] * a
    middle = fitted.mean(-1, keepdims=True)
    both = np.where(known, (fitted - middle) * (r - mean_r[..., None]), 0.0).sum(-1) / np.maximum(n - 1, 1)
    variance_y = np.maximum(fitted.var(-1, ddof=min(1, total - 1)) + variance_r + 2 * both, variance_r * 0)
    data_se, se = np.sqrt(data_variance), np.sqrt(data_variance + variance_y / total)
    half = stats.t.ppf(0.5 + LEVEL / 2, np.maximum(n - 1, 1)) * data_se
    back = np.argsort(order)
    skewness = np.maximum(np.abs(_skewness(a, np.ones_like(known))), np.abs(_skewness(r, known)))
    enough = np.minimum(COCHRAN * skewness**2, total)
    unexplained = np.sqrt(np.divide(variance_r, variance_y, out=np.ones_like(variance_r), where=variance_y > 0))
    low, high = estimates - half, estimates + half
    return Estimate(estimates, data_se, se, low, high, n, slope, residual[..., back], enough, unexplained)


def _skewness(values: np.ndarray, on: np.ndarray) -> np.ndarray:
    """The skewness of the marked values along the last axis; 0 where they do not vary."""
    n = np.maximum(on.sum(-1), 1)
    from_mean = np.where(on, values - (np.where(on, values, 0).sum(-1) / n)[..., None], 0.0)
    second, third = (from_mean**2).sum(-1) / n, (from_mean**3).sum(-1) / n
    return np.divide(third, second**1.5, out=np.zeros_like(third), where=second > 0)


def _slope(a: np.ndarray, y: np.ndarray, on: np.ndarray) -> np.ndarray:
    """The least-squares slope of y on a over the marked examples; 0 where a does not vary."""
    n = np.maximum(on.sum(-1, keepdims=True), 1)
    da = np.where(on, a - np.where(on, a, 0).sum(-1, keepdims=True) / n, 0.0)
    squares = (da**2).sum(-1)
    products = (da * np.where(on, y, 0.0)).sum(-1)
    return np.divide(products, squares, out=np.zeros_like(squares), where=squares > 0)


def undecided(found: Estimate, error: float, top_k: int | None) -> np.ndarray:
    """Which heads (layer, head) bool need more examples: the interval's half width is above the error, and, where it is
    the top k that is asked for, the interval does not lie on one side of the border between it and the rest.

    Effects with a long tail, of which a sample may hold nothing, need more examples before their interval is believed.
    """
    doubtful = found.n < found.enough
    wide = (found.high - found.low) / 2 > error
    if top_k is None or top_k >= found.I.size:
        return wide | doubtful
    falling = np.sort(found.I, axis=None)[::-1]
    border = (falling[top_k - 1] + falling[top_k]) / 2
    return doubtful | (wide & (found.low <= border) & (border <= found.high))


def allotted(found: Estimate, total: int, ablations: float) -> np.ndarray:
    """How many of the examples each head (layer, head) float had best be ablated on, of so many ablations in all.

    Neyman's allocation: in proportion to what first order leaves open, at least as many as it has been, at most all. Then
    the sum over heads of (sampling variance over the variance from example to example) is the smallest there is.
    """
    weight = np.maximum(found.unexplained, 1e-6)
    low, high = 0.0, total / float(weight.min())
    for _ in range(60):  # bisection: the sum grows with the factor
        factor = (low + high) / 2
        enough = np.clip(factor * weight, found.n, total).sum() > ablations
        low, high = (low, factor) if enough else (factor, high)
    return np.clip(low * weight, found.n, total)
