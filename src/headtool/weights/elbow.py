"""How many clusters: the curve of inertia over their number, where it bends, and how sharply."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from headtool.weights.kmeans import Path

CLEAR = 0.7  # sharpness from which an elbow is a clear one
STEPS = 16  # numbers of clusters tried
SILHOUETTES = 3_000  # rows that silhouettes are taken over: their cost is quadratic


def chosen(path: Path, most: int, method: str, seed: int) -> tuple[int, str, dict[str, list[Any]]]:
    """The number of clusters, how sure it is, and the curve: evenly spaced numbers first, then each one about the best."""
    tried = sorted({int(round(k)) for k in np.linspace(1, most, min(STEPS, most))})
    rows = {k: _measured(path, k, seed) for k in tried}
    k, _ = _choose(curve_of(list(rows.values())), method)
    at = tried.index(k)
    for close in range(tried[max(at - 1, 0)], tried[min(at + 1, len(tried) - 1)]):
        rows[close] = rows.get(close) or _measured(path, close, seed)
    curve = curve_of([rows[each] for each in sorted(rows)])
    return (*_choose(curve, method), curve)


def _measured(path: Path, k: int, seed: int) -> tuple[int, float, float | None, float | None]:
    """k, its inertia a row, its mean silhouette and its Calinski-Harabasz index on the sample; None where not defined."""
    from sklearn.metrics import calinski_harabasz_score, silhouette_score

    step, n = path.go(k), len(path.sample)
    some = np.random.default_rng(seed).choice(n, min(SILHOUETTES, n), replace=False)
    index = silhouette = None
    if 1 < len(np.unique(step.labels)) < n:
        index = float(calinski_harabasz_score(path.sample, step.labels))
    if 1 < len(np.unique(step.labels[some])) < len(some):
        silhouette = float(silhouette_score(path.sample[some], step.labels[some]))
    return k, step.inertia, silhouette, index


def curve_of(rows: Sequence[tuple[int, float, float | None, float | None]]) -> dict[str, list[Any]]:
    """The columns of the table elbow but chosen."""
    columns = zip(*rows, strict=True) if rows else ((), (), (), ())
    curve: dict[str, list[Any]] = dict(
        zip(("k", "inertia", "silhouette", "calinski_harabasz"), map(list, columns), strict=True)
    )
    return curve | {"chord_distance": chord(np.array(curve["k"], float), np.array(curve["inertia"], float)).tolist()}


def chord(k: np.ndarray, inertia: np.ndarray) -> np.ndarray:
    """How far the curve of inertia lies below the chord from its first point to its last, both axes from 0 to 1.

    The scale of the data and the range of k do not matter; 0 is a straight line, and the largest possible value is
    near 1, of a curve that falls at once.

    Source: Satopaa et al. 2011, "Finding a 'Kneedle' in a Haystack".
    """
    if len(k) < 3:
        return np.zeros(len(k))
    y = np.minimum.accumulate(inertia)
    if y[0] <= y[-1]:
        return np.zeros(len(k))
    across, down = (k - k[0]) / (k[-1] - k[0]), (y - y[-1]) / (y[0] - y[-1])
    return 1 - across - down


def _choose(curve: Mapping[str, Sequence[Any]], method: str) -> tuple[int, str]:
    """The number of clusters that a method takes, and how sure it is of that."""
    column = {"elbow": "chord_distance", "silhouette": "silhouette", "calinski": "calinski_harabasz"}[method]
    values = [(-np.inf if value is None else value) for value in curve[column]]
    best = int(np.argmax(values))
    k = int(curve["k"][best])
    if not np.isfinite(values[best]) or len(values) < 3:
        return k, "there are too few distinct rows to choose from"
    if method != "elbow":
        return k, f"{method} {values[best]:.3g}"
    strength = sharpness(np.array(curve["k"], float), np.array(curve["inertia"]))
    apart = curve["silhouette"][best]
    clear = strength >= CLEAR and apart is not None and apart > 0  # a bend of clusters that overlap says little
    told = f"{'elbow' if clear else 'no clear elbow'}, strength {strength:.2f} of 1"
    if apart is None:
        return k, told
    return k, f"{told}, silhouette {apart:.2f}{' (clusters that overlap)' if apart <= 0 else ''}"


def sharpness(k: np.ndarray, inertia: np.ndarray) -> float:
    """How sharply a curve of inertia bends where it is farthest from its chord: 1 - (slope after) / (slope before).

    Slopes are over the third of k before and the half of k after. A curve that goes flat at its elbow has 1. Any falling
    curve has a point farthest from its chord; one that bends everywhere alike, as k^-a does, has about 0.4 there.
    """
    best = int(np.argmax(chord(k, inertia)))
    if best in (0, len(k) - 1):
        return 0.0
    ends = np.array([max(k[best] / 1.5, k[0]), k[best], min(k[best] * 1.5, k[-1])])
    y = np.interp(ends, k, np.minimum.accumulate(inertia))
    before, after = -np.diff(y) / np.diff(ends)
    return float(1 - min(after / before, 1.0)) if before > 0 else 0.0
