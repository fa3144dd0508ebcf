"""Heads that stand out: important but static, plastic but unimportant; and how often chance finds such heads."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from scipy import stats

from headtool.reporting.statistics import FEWEST, values

KINDS = ("important_but_static", "plastic_but_unimportant")
TOLD = ("I_pre", "I_pre_differs", "I_post", "U", "Urel", "G", "F", "Ppred")  # of a case, as far as they are known


@dataclass(frozen=True)
class Cases:
    """The cases of a table of heads, with the thresholds that made them. thresholds is None where there are none."""

    found: dict[str, list[dict[str, Any]]]
    thresholds: dict[str, float] | None
    expected: dict[str, float | None]  # as many as independent columns give on average
    p: dict[str, float | None]  # P(independent columns give as many or more)
    n: int
    note: str = ""

    def count(self, kind: str) -> int | None:
        return None if self.thresholds is None else len(self.found[kind])

    def as_dict(self) -> dict[str, Any]:
        return {
            **self.found, "thresholds": self.thresholds, "n_heads": self.n,
            "expected_by_chance": self.expected, "p": self.p,
        } | ({"note": self.note} if self.note else {})  # fmt: skip


def find(heads: pl.DataFrame, p_high: float, p_low: float) -> Cases:
    """important_but_static: I_pre >= its p_high and Urel <= its p_low; plastic_but_unimportant: the other way round.

    Percentiles are linear-interpolated over the heads for which both are known. Largest I_pre (Urel) first, ties by
    layer, then head. By chance: with a heads on one side and b on the other of n, the number in both is
    hypergeometric, with mean a b / n.
    """
    none: dict[str, Any] = {kind: None for kind in KINDS}
    empty: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    absent = [column for column in ("I_pre", "Urel") if column not in heads.columns]
    if absent:
        return Cases(empty, None, none, none, 0, f"no run gives {' and '.join(absent)}")
    known = heads.filter(pl.col("I_pre").is_not_null() & pl.col("Urel").is_not_null())
    n, columns = known.height, {name: values(known, name) for name in ("I_pre", "Urel")}
    if n < FEWEST or any(np.ptp(column) == 0 for column in columns.values()):
        why = f"fewer than {FEWEST} heads" if n < FEWEST else "a column is the same for all heads"
        return Cases(empty, None, none, none, n, why)
    thresholds: dict[str, float] = {"p_high": p_high, "p_low": p_low}
    for name, column in columns.items():
        low, high = np.percentile(column, [p_low, p_high])
        thresholds |= {f"{name}_high": float(high), f"{name}_low": float(low)}
    found: dict[str, list[dict[str, Any]]] = {}
    expected: dict[str, float | None] = {}
    p: dict[str, float | None] = {}
    for kind, (large, small) in zip(KINDS, (("I_pre", "Urel"), ("Urel", "I_pre")), strict=True):
        top = columns[large] >= thresholds[f"{large}_high"]
        bottom = columns[small] <= thresholds[f"{small}_low"]
        rows = known.filter(pl.Series(top & bottom)).sort(large, "layer", "head", descending=[True, False, False])
        found[kind] = rows.select("layer", "head", *(name for name in TOLD if name in rows.columns)).to_dicts()
        expected[kind] = float(top.sum() * bottom.sum() / n)
        p[kind] = chance_of(rows.height, n, int(top.sum()), int(bottom.sum()))
    return Cases(found, thresholds, expected, p, n)


def chance_of(count: int, n: int, marked: int, drawn: int) -> float:
    """P(X >= count), X hypergeometric: drawn of n heads, marked ones among them."""
    return min(float(stats.hypergeom.sf(count - 1, n, marked, drawn)), 1.0)


def criteria(n: int, k: int, p_high: float, p_low: float) -> dict[str, float]:
    """How often independent random columns meet the published criteria: probabilities.

    rho < 0.5: Student's t of rho sqrt((n-2)/(1-rho^2)) with n-2 degrees of freedom. overlap < 0.3 and at least 3
    cases of a kind: hypergeometric; k of n heads, and the sizes that distinct values give beyond the percentiles.
    """
    high = sum(i / (n - 1) * 100 >= p_high - 1e-9 for i in range(n))
    low = sum(i / (n - 1) * 100 <= p_low + 1e-9 for i in range(n))
    return {
        "rho < 0.5": float(stats.t.cdf(0.5 * math.sqrt((n - 2) / 0.75), n - 2)),
        "overlap < 0.3": float(stats.hypergeom.cdf(math.ceil(0.3 * k - 1e-9) - 1, n, k, k)),
        "at least 3 cases of a kind": chance_of(3, n, high, low),
    }
