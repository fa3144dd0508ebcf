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

CLEAR = 0.7  # sharpness from which an elbow is a clear one
REPRESENTATIVES = 10
SILHOUETTES = 3_000  # rows that silhouettes are taken over: their cost is quadratic
SWEPT = 8_000  # rows that the numbers of clusters are compared on
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

    def report(self) -> str:
        """What was found, as a page of Markdown: the number of clusters and why, and a row a cluster with its tokens."""
        clusters = self.tables["inspect.clusters"]
        lines = [f"# {self.title}", "", f"{self.k} clusters: {self.told}.", ""]
        lines += [
            "| cluster | tokens | share | mean distance | silhouette | nearest tokens |",
            "|---|---|---|---|---|---|",
        ]
        for c, size, share, distance, silhouette, words in zip(*clusters.values(), strict=True):
            shown = " ".join(f"`{_cell(word)}`" for word in json.loads(words))
            apart = "" if silhouette is None else f"{silhouette:.2f}"
            lines.append(f"| {c} | {size:,} | {share:.1%} | {distance:.2f} | {apart} | {shown} |")
        return "\n".join(lines) + "\n"


def _cell(word: str) -> str:
    """A token as a cell of a table takes it."""
    return "".join(c if c.isprintable() and c not in "`|" else f"\\u{ord(c):04x}" for c in word)


def cluster(run: Run, checkpoint: Checkpoint, item: Item, ask: SimpleNamespace) -> Clustered:
    """Cluster the rows of an embedding: choose k on a seeded sample, fit once at that k, and assign every row.

    Columns are standardised first (mean 0, population standard deviation 1; constant columns are left at 0).
    Raises HeadtoolError for rows that hold NaN or infinity, and for more clusters than rows.
    """
    from sklearn.cluster import KMeans  # before its threads are limited
    from threadpoolctl import threadpool_limits

    x = _standardised(Stored(checkpoint, item).whole(), item.name)
    rng = np.random.default_rng(ask.seed)
    rows = np.sort(rng.choice(len(x), min(ask.sample, len(x)), replace=False))
    sample = x[rows]
    if ask.clusters is not None and ask.clusters > len(x):
        raise HeadtoolError(f"--clusters {ask.clusters}: {item.name} has {len(x)} rows", hint="take fewer")
    with warnings.catch_warnings(), threadpool_limits(1):  # threads that wait for each other cost more than they gain
        warnings.simplefilter("ignore")  # fewer distinct rows than clusters is told by the sizes
        path = Path(sample[:: -(-len(sample) // SWEPT)], ask.seed)
        if ask.clusters:
            k, told, curve = ask.clusters, "k was given", _curve([])
            path.go(min(k, path.most))
        else:
            k, told, curve = _chosen(path, min(ask.k_max, path.most), ask)
        run.console.note(f"{item.name}: {k} clusters ({told})")
        start = path.centres_at(min(k, path.most))
        found = KMeans(len(start), init=start, n_init=1, max_iter=SETTLED).fit(sample)
        labels, distances = _assign(x, found.cluster_centers_.astype(np.float32))
        centres, k = found.cluster_centers_.astype(np.float32), len(start)
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
        left = _assign(self.sample, centres)[1] ** 2
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


def _chosen(path: Path, most: int, ask: SimpleNamespace) -> tuple[int, str, dict[str, list[Any]]]:
    """The number of clusters, how sure it is, and the curve: evenly spaced numbers first, then each one about the best."""
    tried = sorted({int(round(k)) for k in np.linspace(1, most, min(STEPS, most))})
    rows = {k: _measured(path, k, ask.seed) for k in tried}
    k, _ = _choose(_curve(list(rows.values())), ask.k_method)
    at = tried.index(k)
    for close in range(tried[max(at - 1, 0)], tried[min(at + 1, len(tried) - 1)]):
        rows[close] = rows.get(close) or _measured(path, close, ask.seed)
    curve = _curve([rows[each] for each in sorted(rows)])
    return (*_choose(curve, ask.k_method), curve)


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


def _curve(rows: Sequence[tuple[int, float, float | None, float | None]]) -> dict[str, list[Any]]:
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
    told = "elbow" if clear else "no clear elbow"
    return k, f"{told}, strength {strength:.2f} of 1" + (f", silhouette {apart:.2f}" if apart is not None else "")


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
    centred = (sample - sample.mean(0)).astype(np.float64)
    values, vectors = np.linalg.eigh(centred.T @ centred)
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
    name = "tokenizer.json"
    try:
        text = checkpoint.companion(name)
        if text is not None:
            content = json.loads(text)
            vocabulary = content["model"]["vocab"]
            if isinstance(vocabulary, list):  # Unigram: [token, score], in order
                vocabulary = {entry[0]: i for i, entry in enumerate(vocabulary)}
            found = dict(vocabulary) | {entry["content"]: entry["id"] for entry in content.get("added_tokens", [])}
            return {str(token): int(number) for token, number in found.items()}
        name = "vocab.txt"
        text = checkpoint.companion(name)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise HeadtoolError(f"{checkpoint.path}: its {name} cannot be read", hint=repr(error)[:200]) from error
    return {} if text is None else {token: i for i, token in enumerate(text.split("\n"))}
