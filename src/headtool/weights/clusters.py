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
from headtool.weights.elbow import SILHOUETTES, chosen, curve_of
from headtool.weights.kmeans import Path, assign
from headtool.weights.plan import Item
from headtool.weights.source import Checkpoint
from headtool.weights.stored import Stored
from headtool.weights.vocabulary import tokens_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REPRESENTATIVES = 10
SWEPT = 8_000  # rows that the numbers of clusters are compared on
SETTLED = 100  # iterations of k-means at the number of clusters that is taken
DRAWN = 4_000  # rows in the projection


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
        drawn, tokens = len(self.cluster_of), len(self.tables["inspect.tokens"]["token_id"])
        title = self.title if drawn == tokens else f"{self.title}, of which {drawn:,} are drawn"
        made = {"projection": projection(self.projected, self.cluster_of, self.centres, words, title)}
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
            k, told, curve = ask.clusters, "k was given", curve_of([])
            path.go(min(k, path.most))
        else:
            k, told, curve = chosen(path, min(ask.k_max, path.most), ask.k_method, ask.seed)
        run.console.note(f"{item.name}: {k} clusters ({told})")
        start = path.centres_at(min(k, path.most))
        found = KMeans(len(start), init=start, n_init=1, max_iter=SETTLED).fit(sample)
        labels, distances = assign(x, found.cluster_centers_.astype(np.float32))
        centres, k = found.cluster_centers_.astype(np.float32), len(start)
    order = np.argsort(-np.bincount(labels, minlength=k), kind="stable")
    order = order[np.bincount(labels, minlength=k)[order] > 0]
    place = np.full(k, -1)
    place[order] = np.arange(len(order))
    labels, centres = place[labels], centres[order]
    tokens = tokens_of(checkpoint, len(x))
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
