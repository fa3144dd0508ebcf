"""A power law fitted to the tail of a spectrum."""

from __future__ import annotations

import math

import numpy as np

FEWEST = 10  # eigenvalues in a tail that is fitted


def exponent(values: np.ndarray) -> float:
    """Alpha of p(x) ~ x^-alpha for x >= x_min, over the positive values; NaN for fewer than 10 distinct ones.

    alpha(x_min) = 1 + n / sum ln(x / x_min) over the n values from x_min on (maximum likelihood); x_min is the value
    with the smallest Kolmogorov-Smirnov distance between the tail and its fit, among those that leave at least 10.

    Source: Clauset, Shalizi and Newman 2009, equations 3.1 and 3.9.
    """
    x = np.sort(np.asarray(values, np.float64))
    x = x[x > 0]
    if len(np.unique(x)) < FEWEST:
        return math.nan
    logs = np.log(x)
    n = len(x)
    best, found = math.inf, math.nan
    tails = np.cumsum(logs[::-1])[::-1]  # sums of the logarithms from i on
    for i in range(n - FEWEST + 1):
        if i and logs[i] == logs[i - 1]:
            continue
        m = n - i
        total = tails[i] - m * logs[i]
        if total <= 0:
            break
        alpha = 1 + m / total
        fitted = -np.expm1((1 - alpha) * (logs[i:] - logs[i]))
        steps = np.arange(m + 1) / m
        distance = max(float(np.max(steps[1:] - fitted)), float(np.max(fitted - steps[:-1])))
        if distance < best:
            best, found = distance, alpha
    return float(found)
