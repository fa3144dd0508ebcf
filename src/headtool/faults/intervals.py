"""How sure a rate is: Wilson's interval, also of clustered trials, and how many trials a margin asks for."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

LEVEL = 0.95


def wilson(hits: float, n: float, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's score interval of a share of n independent trials; (0, 1) without any.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    if n <= 0:
        return 0.0, 1.0
    z = float(stats.norm.ppf(0.5 + level / 2))
    p, scale = hits / n, 1 + z * z / n
    middle = (p + z * z / (2 * n)) / scale
    half = z / scale * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, middle - half) if hits else 0.0, min(1.0, middle + half) if hits < n else 1.0


def leveugle(population: int, margin: float, confidence: float, p: float = 0.5) -> int:
    """How many faults of a population must be injected for a margin of error at a confidence.

    n = N / (1 + e^2 (N - 1) / (t^2 p (1 - p))), t the normal quantile; p = 1/2 is the worst case.

    Source: Leveugle et al. 2009, "Statistical fault injection: quantified error and confidence".
    """
    t = float(stats.norm.ppf(0.5 + confidence / 2))
    return math.ceil(population / (1 + margin**2 * (population - 1) / (t * t * p * (1 - p))))


def clustered(
    hits: np.ndarray, cluster: np.ndarray, level: float = LEVEL, of: np.ndarray | None = None
) -> tuple[float, float]:
    """The interval of a share whose trials come in clusters: hits and cluster (trial,). of (trial,) bool: those that count.

    Wilson's, with as many trials as they are worth: their number over the design effect, the variance of the share with
    clusters over that of independent trials, taken as 1 at least. A share of 0 or 1 says nothing of how alike the trials
    of a cluster are: there they are worth as many as there are clusters.

    Source: Kish 1965, "Survey Sampling", section 5.4; Dean and Pagano 2015, "Evaluating confidence interval methods for
    binomial proportions in clustered surveys".
    """
    of = np.ones(len(hits), bool) if of is None else of
    hits, cluster = hits[of].astype(float), cluster[of]
    if not len(hits):
        return 0.0, 1.0
    _, place = np.unique(cluster, return_inverse=True)
    k, sizes = np.bincount(place, hits), np.bincount(place).astype(float)
    n, clusters, p = len(hits), len(sizes), hits.mean()
    if p in (0, 1):
        return wilson(p * clusters, clusters, level)
    between = float(((k - p * sizes) ** 2).sum()) / n**2 * clusters / max(clusters - 1, 1)
    effect = max(1.0, between * n / (p * (1 - p)))
    return wilson(p * n / effect, n / effect, level)


def upper(hits: int, n: int, level: float = LEVEL) -> float:
    """The one-sided upper bound of a share (Clopper and Pearson 1934); for none of n about 3/n, the rule of three."""
    return float(stats.beta.ppf(level, hits + 1, n - hits)) if hits < n else 1.0
