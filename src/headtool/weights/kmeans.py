"""k-means at growing numbers of clusters, each started from the one before it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SWEEP = 20  # iterations at each number of clusters
CHUNK = 8_192  # rows assigned at a time


@dataclass
class Step:
    """k-means at one number of clusters."""

    centres: np.ndarray
    labels: np.ndarray
    inertia: float


class Path:
    """k-means of a sample at growing numbers of clusters: the best from the clusters before it and new ones beside them, and
    from rows drawn at random.

    A new centre is the row that leaves the least inertia among 8 drawn by their squared distance (as k-means++ does) and 32
    drawn evenly. So inertia falls from number to number; independent starts leave it jumping by more than an elbow is deep,
    and k-means++ alone ends up at the outliers of a real vocabulary.
    """

    def __init__(self, sample: np.ndarray, seed: int) -> None:
        self.sample, self.seed, self.rng = sample, seed % 2**32, np.random.default_rng(seed)
        self.most = len(np.unique(sample, axis=0))  # clusters that are not empty
        mean = sample.mean(0, keepdims=True)
        inertia = float(((sample - mean).astype(np.float64) ** 2).sum()) / len(sample)
        self.steps = {1: Step(mean, np.zeros(len(sample), np.int64), inertia)}

    def go(self, k: int) -> Step:
        """The clusters at k, from those at the largest number below it that there is."""
        if k not in self.steps:
            from sklearn.cluster import KMeans

            before = self.steps[max(known for known in self.steps if known < k)]
            start = self._grown(before.centres, k)
            tried = [
                KMeans(k, init=init, n_init=n, max_iter=SWEEP, random_state=self.seed).fit(self.sample)
                for init, n in ((start, 1), ("random", 2))
            ]
            found = min(tried, key=lambda each: each.inertia_)
            inertia = float(found.inertia_) / len(self.sample)
            self.steps[k] = Step(found.cluster_centers_.astype(np.float32), found.labels_, inertia)
        return self.steps[k]

    def centres_at(self, k: int) -> np.ndarray:
        return self.go(k).centres

    def _grown(self, centres: np.ndarray, k: int) -> np.ndarray:
        """The centres, and new ones beside them up to k."""
        left = assign(self.sample, centres)[1] ** 2
        grown = [*centres]
        while len(grown) < k:
            total = left.sum()
            far = self.rng.choice(len(left), 8, p=left / total if total > 0 else None)
            rows = np.concatenate([far, self.rng.integers(0, len(left), 32)])
            gaps = self.sample[rows]
            squares = (gaps**2).sum(1)[:, None] - 2 * gaps @ self.sample.T + (self.sample**2).sum(1)[None]
            after = np.minimum(left, np.maximum(squares, 0))
            best = int(after.sum(1).argmin())
            left = after[best]
            grown.append(self.sample[rows[best]])
        return np.array(grown, np.float32)


def assign(x: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest centre of each row, and the distance to it."""
    labels, distances = np.empty(len(x), np.int64), np.empty(len(x))
    sizes = (centres**2).sum(1)
    for start in range(0, len(x), CHUNK):
        some = x[start : start + CHUNK]
        squares = sizes - 2 * (some @ centres.T)
        labels[start : start + CHUNK] = squares.argmin(1)
        gaps = some - centres[labels[start : start + CHUNK]]
        distances[start : start + CHUNK] = np.sqrt((gaps.astype(np.float64) ** 2).sum(1))
    return labels, distances
