"""Clusters of the rows of a word embedding: how many there are, which tokens they hold, and how they lie to each other."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from headtool.errors import FAILED, HeadtoolError
from headtool.record.run import Run
from headtool.weights.plan import Item
from headtool.weights.source import Checkpoint
from headtool.weights.stored import Stored

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEADY = 0.75  # share of shorter ranges that must have the same elbow for it to be a clear one
REPRESENTATIVES = 10
SILHOUETTES = 3_000  # rows that silhouettes are taken over: their cost is quadratic
DRAWN = 4_000  # rows in the projection
STEPS = 16  # numbers of clusters tried
SWEEP, SETTLED = 20, 100  # iterations of k-means, at each number tried and at the one taken
CHUNK = 8_192  # rows assigned at a time


@dataclass(frozen=True)
class Clustered:
    """The tables of a clustering, by name, and what its figures are drawn from."""

    tables: Mapping[str, Mapping[str, Sequence[Any]]]
    title: str
    k: int
    told: str
    projected: np.ndarray  # (rows drawn, 2)
    cluster_of: np.ndarray  # of the rows drawn
    centres: np.ndarray  # (cluster, 2)

    def figures(self) -> dict[str, Figure]:
        """The elbow and the projection, by file name."""
        from headtool.figures.clusters import elbow, projection

        words = [json.loads(each)[:3] for each in self.tables["inspect.clusters"]["representatives"]]
        made = {"projection": projection(self.projected, self.cluster_of, self.centres, words, self.title)}
        if self.tables["inspect.elbow"]["k"]:
            made["elbow"] = elbow(self.tables["inspect.elbow"], self.k, f"{self.title}: {self.told}")
        return made


def cluster(run: Run, checkpoint: Checkpoint, item: Item, ask: SimpleNamespace) -> Clustered:
    """Cluster the rows of an embedding: choose k on a seeded sample, fit once at that k, and assign every row.

    Columns are standardised first (mean 0, population standard deviation 1; constant columns are left at 0).
    Raises HeadtoolError for rows that hold NaN or infinity, and for more clusters than rows.
    """
    import sklearn.cluster  # noqa: F401 - its threads must be there to be limited
    from threadpoolctl import threadpool_limits

    x = _standardised(Stored(checkpoint, item).whole(), item.name)
    rng = np.random.default_rng(ask.seed)
    rows = np.sort(rng.choice(len(x), min(ask.sample, len(x)), replace=False))
    sample = x[rows]
    if ask.clusters is not None and ask.clusters > len(x):
        raise HeadtoolError(f"--clusters {ask.clusters}: {item.name} has {len(x)} rows", hint="take fewer")
    with warnings.catch_warnings(), threadpool_limits(1):  # threads that wait for each other cost more than they gain
        warnings.simplefilter("ignore")  # fewer distinct rows than clusters is told by the sizes
        tried = [] if ask.clusters else _tries(min(ask.k_max, len(np.unique(sample, axis=0)) - 1))
        curve = _sweep(sample, tried, ask)
        k, told = (ask.clusters, "k was given") if ask.clusters else _choose(curve, ask.k_method)
        run.console.note(f"{item.name}: {k} clusters ({told})")
        centres = _fit(sample, k, ask.seed, SETTLED)[0]
        labels, distances = _assign(x, centres)
    order = np.argsort(-np.bincount(labels, minlength=k), kind="stable")
    order = order[np.bincount(labels, minlength=k)[order] > 0]
    place = np.full(k, -1)
    place[order] = np.arange(len(order))
    labels, centres = place[labels], centres[order]
    tokens = _tokens(checkpoint, len(x))
    told_of = _silhouettes(x, labels, ask.seed)
    run.manifest["clusters"] = {"parameter": item.name, "k": int(k), "method": ask.k_method, "told": told}
    drawn = np.sort(rng.choice(len(x), min(DRAWN, len(x)), replace=False))
    axes = _plane(sample)
    tables: dict[str, Mapping[str, Sequence[Any]]] = {
        "inspect.clusters": _clusters(labels, distances, tokens, told_of),
        "inspect.tokens": {
            "token_id": range(len(x)), "token": tokens, "cluster": labels.tolist(), "distance": distances.tolist()
        },
        "inspect.elbow": curve | {"chosen": [each == k for each in curve["k"]]},
    }  # fmt: skip
    title = f"{checkpoint.label}: {item.name}, {len(x):,} tokens"
    return Clustered(tables, title, len(order), told, x[drawn] @ axes.T, labels[drawn], centres @ axes.T)


def _standardised(x: np.ndarray, name: str) -> np.ndarray:
    x = x.astype(np.float32, copy=False)
    if not np.isfinite(x).all():
        raise HeadtoolError(
            f"{name} holds NaN or infinity, and cannot be clustered", hint="leave out --embedding", code=FAILED
        )
    spread = x.std(0, dtype=np.float64)
    x -= x.mean(0, dtype=np.float64)
    x /= np.where(spread > 0, spread, 1.0)
    return x


def _tries(most: int) -> list[int]:
    """About STEPS numbers of clusters from 1 to the most, evenly spaced."""
    return sorted({int(round(k)) for k in np.linspace(1, max(most, 1), min(STEPS, max(most, 1)))})


def _fit(sample: np.ndarray, k: int, seed: int, steps: int) -> tuple[np.ndarray, np.ndarray, float]:
    """k-means on the sample: centres, labels, inertia a row. The better of two starts: k-means++ finds clusters that lie
    apart, rows drawn at random do better where there are outliers, as in real vocabularies.
    """
    from sklearn.cluster import KMeans

    found = [
        KMeans(k, init=init, n_init=1, max_iter=steps, random_state=seed % 2**32).fit(sample)
        for init in ("k-means++", "random")
    ]
    best = min(found, key=lambda each: each.inertia_)
    return best.cluster_centers_.astype(np.float32), best.labels_, float(best.inertia_) / len(sample)


def _sweep(sample: np.ndarray, tried: list[int], ask: SimpleNamespace) -> dict[str, list[Any]]:
    """The columns of the table elbow but chosen: each k on the sample, a few steps of k-means from two starts.

    Mini-batches were tried: on a real vocabulary they stop at a third of the gain.
    """
    from sklearn.metrics import calinski_harabasz_score, silhouette_score

    inertia, silhouette, index = [], [], []
    some = np.random.default_rng(ask.seed).choice(len(sample), min(SILHOUETTES, len(sample)), replace=False)
    for k in tried:
        _, labels, spread = _fit(sample, k, ask.seed, SWEEP)
        inertia.append(spread)
        index.append(float(calinski_harabasz_score(sample, labels)) if len(np.unique(labels)) > 1 else None)
        several = 1 < len(np.unique(labels[some])) < len(some)
        silhouette.append(float(silhouette_score(sample[some], labels[some])) if several else None)
    return {
        "k": tried, "inertia": inertia, "silhouette": silhouette, "calinski_harabasz": index,
        "chord_distance": chord(np.array(tried, float), np.array(inertia)).tolist(),
    }  # fmt: skip


def chord(k: np.ndarray, inertia: np.ndarray) -> np.ndarray:
    """How far the curve of inertia lies below the chord from its first point to its last, both axes from 0 to 1.

    The scale of the data and the range of k do not matter; 0 is a straight line, and the largest possible value is
    near 1, of a curve that falls at once. The curve is first made to fall: chance can make inertia rise.

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
    strength = f"strength {values[best]:.2f} of 1"
    steady = steadiness(np.array(curve["k"], float), np.array(curve["inertia"]))
    if steady < STEADY:
        return k, f"no clear elbow: {strength}, but it stays there in only {steady:.0%} of shorter ranges"
    return k, f"elbow, {strength}, the same in {steady:.0%} of shorter ranges"


def steadiness(k: np.ndarray, inertia: np.ndarray) -> float:
    """The share of the ranges that end earlier, but well after the elbow, in which the elbow is the same number.

    Any falling curve has a point farthest from its chord; where that point follows the end of the range, the curve
    bends everywhere alike and there is no elbow to speak of.
    """
    best = int(np.argmax(chord(k, inertia)))
    ends = [end for end in range(best + 3, len(k) + 1) if k[end - 1] >= 1.25 * k[best]]
    same = [int(np.argmax(chord(k[:end], inertia[:end]))) == best for end in ends]
    return float(np.mean(same)) if same else 0.0


def _assign(x: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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


def _silhouettes(x: np.ndarray, labels: np.ndarray, seed: int) -> np.ndarray:
    """The mean silhouette of each cluster over a seeded sample of its rows; NaN where the sample cannot tell."""
    from sklearn.metrics import silhouette_samples

    count = int(labels.max()) + 1
    share = max(10, SILHOUETTES // count)
    rng = np.random.default_rng(seed)
    some = np.concatenate([
        rng.choice(mine, min(share, len(mine)), replace=False) for mine in (np.flatnonzero(labels == c) for c in range(count))
    ])  # fmt: skip
    found = np.full(count, np.nan)
    if 1 < count < len(some):
        each = silhouette_samples(x[some], labels[some])
        for c in range(count):
            found[c] = each[labels[some] == c].mean()
    return found


def _clusters(
    labels: np.ndarray, distances: np.ndarray, tokens: Sequence[str | None], silhouettes: np.ndarray
) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {
        name: [] for name in ("cluster", "size", "share", "mean_distance", "silhouette", "representatives")
    }
    for c in range(int(labels.max()) + 1):
        mine = np.flatnonzero(labels == c)
        nearest = mine[np.argsort(distances[mine], kind="stable")[:REPRESENTATIVES]]
        names = [str(i) if tokens[i] is None else tokens[i] for i in nearest]
        row = (
            c, len(mine), len(mine) / len(labels), float(distances[mine].mean()),
            float(silhouettes[c]) if np.isfinite(silhouettes[c]) else None, json.dumps(names, ensure_ascii=False),
        )  # fmt: skip
        for column, value in zip(columns.values(), row, strict=True):
            column.append(value)
    return columns


def _plane(sample: np.ndarray) -> np.ndarray:
    """The first two principal axes of the sample, (2, width), from its covariance; the largest entry of each is positive."""
    values, vectors = np.linalg.eigh(np.cov(sample, rowvar=False, dtype=np.float64).reshape(sample.shape[1], -1))
    axes = vectors[:, np.argsort(-values)[:2]].T
    if len(axes) < 2:
        axes = np.vstack([axes, np.zeros_like(axes)])
    signs = np.sign(axes[np.arange(2), np.abs(axes).argmax(1)])
    return (axes * np.where(signs == 0, 1, signs)[:, None]).astype(np.float32)


def _tokens(checkpoint: Checkpoint, rows: int) -> list[str | None]:
    """The token of each row as tokenizer.json or vocab.txt writes it; None for rows without one."""
    found: list[str | None] = [None] * rows
    for token, number in _vocabulary(checkpoint).items():
        if 0 <= number < rows:
            found[number] = token
    return found


def _vocabulary(checkpoint: Checkpoint) -> dict[str, int]:
    """Token -> id from the tokenizer's own files, without loading a tokenizer."""
    text = checkpoint.companion("tokenizer.json")
    if text is not None:
        try:
            content = json.loads(text)
            vocabulary = content["model"]["vocab"]
            if isinstance(vocabulary, list):  # Unigram: [token, score], in order
                vocabulary = {entry[0]: i for i, entry in enumerate(vocabulary)}
            return dict(vocabulary) | {entry["content"]: entry["id"] for entry in content.get("added_tokens", [])}
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise HeadtoolError(
                f"{checkpoint.path}: its tokenizer.json cannot be read", hint=repr(error)[:200]
            ) from error
    text = checkpoint.companion("vocab.txt")
    return {} if text is None else {token: i for i, token in enumerate(text.split("\n"))}
