"""How two columns go together over heads: Spearman's rho and top-k overlap, with chance, p-value and interval."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from scipy import stats

PERMUTATIONS = 9999
SAMPLES = 1000  # of the bootstrap over heads
FEWEST = 3  # heads: of fewer no statistic is made
ROWS = 1000  # permutations at a time
RHO = (
    *(("I_pre", other) for other in ("U", "Urel", "G", "F", "Ppred", "I_post")),
    *(("I_post", other) for other in ("U", "Urel", "G", "F", "Ppred")),
)
OVERLAP = (("I_pre", "U"), ("I_pre", "Urel"), ("I_pre", "I_post"))
EMPTY = np.empty(0)


@dataclass(frozen=True, eq=False)
class Statistic:
    """A number with what it is worth. All are None where it is not defined; note then says why.

    null: its values under permutation of the heads. boot: its values over bootstrap samples of the heads.
    """

    value: float | None
    n: int  # heads for which both columns are known
    chance: float | None
    p: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    note: str = ""
    null: np.ndarray = field(default_factory=lambda: EMPTY, repr=False)
    boot: np.ndarray = field(default_factory=lambda: EMPTY, repr=False)

    def as_dict(self) -> dict[str, Any]:
        told: dict[str, Any] = {name: getattr(self, name) for name in FIELDS}
        return told | ({"note": self.note} if self.note else {})


FIELDS = ("value", "n", "chance", "p", "ci_low", "ci_high")


def name(kind: str, x: str, y: str) -> str:
    """The key in stats.json of a statistic of two columns: spearman_rho_Ipre_U, say."""
    return f"{kind}_{x.replace('_', '')}_{y.replace('_', '')}"


NAMES = (*(name("spearman_rho", *pair) for pair in RHO), *(name("topk_overlap", *pair) for pair in OVERLAP))


def measure(heads: pl.DataFrame, k: int, seed: int) -> dict[str, Statistic]:
    """Every statistic of stats.json, in its order, from a table of heads sorted by layer and head."""
    made: dict[str, Statistic] = {}
    for x, y in RHO:
        made[name("spearman_rho", x, y)] = _of_columns(heads, x, y, lambda a, b: spearman(a, b, seed))
    for x, y in OVERLAP:
        made[name("topk_overlap", x, y)] = _of_columns(heads, x, y, lambda a, b: overlap(a, b, k, seed))
    return made


def _of_columns(
    heads: pl.DataFrame, x: str, y: str, compute: Callable[[np.ndarray, np.ndarray], Statistic]
) -> Statistic:
    absent = [column for column in (x, y) if column not in heads.columns]
    if absent:
        return Statistic(None, 0, None, note=f"no run gives {' and '.join(absent)}")
    return compute(values(heads, x), values(heads, y))


def values(heads: pl.DataFrame, column: str) -> np.ndarray:
    """A column as float64, NaN where it is null: for computing, never for writing."""
    return heads[column].cast(pl.Float64).to_numpy()


def spearman(x: np.ndarray, y: np.ndarray, seed: int) -> Statistic:
    """Spearman's rho: Pearson's correlation of average ranks, over the heads where both are known.

    p: two-sided, (1 + permutations of the heads with |rho| as large) / (1 + 9999). Interval: 2.5% and 97.5% of 1,000
    bootstrap samples of the heads, ranked anew. It treats heads as independent draws, which heads of one model are
    not: read it as how much the value hangs on single heads.
    """
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    n = len(x)
    if n < FEWEST:
        return Statistic(None, n, 0.0, note=f"fewer than {FEWEST} heads")
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return Statistic(None, n, 0.0, note="a column is the same for all heads")
    a, b = (_standard(stats.rankdata(v)) for v in (x, y))
    rho = float(np.clip(a @ b, -1, 1))
    null = _permuted(a, b, seed)
    counts = draws(n, seed)
    half = (n + 1) / 2
    ra, rb = (_ranks_of_draws(v, counts) - half for v in (x, y))
    spread = np.sqrt((counts * ra * ra).sum(1) * (counts * rb * rb).sum(1))
    with np.errstate(invalid="ignore", divide="ignore"):  # a sample of one value has no rho
        boot = (counts * ra * rb).sum(1) / spread
    return Statistic(rho, n, 0.0, tail(np.abs(null), abs(rho)), *_interval(boot), null=null, boot=boot)


def overlap(x: np.ndarray, y: np.ndarray, k: int, seed: int) -> Statistic:
    """Top-k overlap |A and B| / k, A and B the k heads with the largest x and y; ties: lower layer and head first.

    Chance: k/n. p: P(X >= |A and B|), X hypergeometric (k drawn from n, k of them marked): exact under permutation.
    Interval: 2.5% and 97.5% of the bootstrap over heads, as for rho; a head drawn c times takes up to c of the k places.
    """
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    n = len(x)
    if n < FEWEST:
        return Statistic(None, n, None, note=f"fewer than {FEWEST} heads")
    if k > n:
        return Statistic(None, n, None, note=f"{k} heads are asked for and {n} are known")
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return Statistic(None, n, k / n, note="a column is the same for all heads")
    counts = draws(n, seed)
    a, b = (_among_top(v, np.ones((1, n)), k)[0] for v in (x, y))
    common = int(np.minimum(a, b).sum())
    boot = np.minimum(_among_top(x, counts, k), _among_top(y, counts, k)).sum(1) / k
    null = _permuted(a / k, b, seed)
    p = float(stats.hypergeom.sf(common - 1, n, k, k))
    return Statistic(common / k, n, k / n, min(p, 1.0), *_interval(boot), null=null, boot=boot)


def averaged(made: Sequence[Statistic], kind: str) -> Statistic:
    """The mean of one statistic over seeds. Its p-value and interval permute and draw the heads alike in all seeds."""
    there = [each for each in made if each.value is not None]
    if not there:
        return Statistic(None, made[0].n, made[0].chance, note=made[0].note)
    value, chance = (float(np.mean(v)) for v in zip(*((s.value, s.chance) for s in there), strict=True))
    null, boot = (np.mean([getattr(s, what) for s in there], axis=0) for what in ("null", "boot"))
    p = tail(np.abs(null), abs(value)) if kind == "spearman_rho" else tail(null, value)
    return Statistic(value, min(s.n for s in there), chance, p, *_interval(boot), null=null, boot=boot)


def tail(null: np.ndarray, value: float) -> float:
    """(count + 1) / (permutations + 1), count those at least as large as the value, up to rounding."""
    return (int((null >= value - 1e-12).sum()) + 1) / (len(null) + 1)


@functools.lru_cache(maxsize=2)
def draws(n: int, seed: int) -> np.ndarray:
    """How often each of n heads is drawn: (sample, head), n draws with replacement a sample."""
    return np.random.default_rng([seed, n, 1]).multinomial(n, np.full(n, 1 / n), size=SAMPLES).astype(np.float64)


@functools.lru_cache(maxsize=2)
def permutations(n: int, seed: int) -> np.ndarray:
    """Orders of n heads: (permutation, place)."""
    rows = np.tile(np.arange(n, dtype=np.int32), (PERMUTATIONS, 1))
    return np.random.default_rng([seed, n, 0]).permuted(rows, axis=1)


def _permuted(a: np.ndarray, b: np.ndarray, seed: int) -> np.ndarray:
    """The sum of a times b with the heads of a permuted: (permutation)."""
    orders = permutations(len(a), seed)
    return np.concatenate([a[orders[i : i + ROWS]] @ b for i in range(0, len(orders), ROWS)])


def _standard(ranks: np.ndarray) -> np.ndarray:
    centred = ranks - ranks.mean()
    return centred / np.sqrt(centred @ centred)


def _ranks_of_draws(x: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Average rank, from 1, of each head within each sample: (sample, head). One sort serves all samples."""
    _, group = np.unique(x, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    drawn = np.add.reduceat(counts[:, order], starts, axis=1)
    return (np.cumsum(drawn, axis=1) - drawn + (drawn + 1) / 2)[:, group]


def _among_top(x: np.ndarray, counts: np.ndarray, k: int) -> np.ndarray:
    """How many of the k first places each head takes in each sample: (sample, head)."""
    order = np.argsort(-x, kind="stable")
    drawn = counts[:, order]
    before = np.cumsum(drawn, axis=1) - drawn
    places = np.empty_like(drawn)
    places[:, order] = np.clip(k - before, 0, drawn)
    return places


def _interval(boot: np.ndarray) -> tuple[float | None, float | None]:
    finite = boot[np.isfinite(boot)]
    if not len(finite):
        return None, None
    low, high = np.percentile(finite, [2.5, 97.5])
    return float(low), float(high)
