"""Several seeds: the mean and spread of each statistic, and whether heads keep their ranks."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from scipy import stats

from headtool.reporting.statistics import NAMES, Statistic, averaged, overlap, spearman, values

COLUMNS = ("I_pre", "I_post", "Urel")


def mean(by_seed: Mapping[int, Mapping[str, Statistic]]) -> dict[str, Statistic]:
    """Every statistic as its mean over the seeds; of one seed, itself."""
    made = list(by_seed.values())
    if len(made) == 1:
        return dict(made[0])
    return {
        name: averaged([each[name] for each in made], "spearman_rho" if "rho" in name else "topk_overlap")
        for name in NAMES
    }


def spread(by_seed: Mapping[int, Mapping[str, Statistic]]) -> dict[str, Any]:
    """Mean, sample standard deviation, least and largest of each statistic over the seeds for which it is defined."""
    told: dict[str, Any] = {}
    for name in NAMES:
        found = [s for s in (made[name].value for made in by_seed.values()) if s is not None]
        deviation = float(np.std(found, ddof=1)) if len(found) > 1 else None
        told[name] = {
            "mean": float(np.mean(found)) if found else None, "sd": deviation,
            "min": min(found, default=None), "max": max(found, default=None), "n_seeds": len(found),
        }  # fmt: skip
    return told


def stability(heads: Mapping[int, pl.DataFrame], k: int, seed: int) -> dict[str, Any]:
    """How well heads keep their ranks from seed to seed, column by column: every pair of seeds, and the mean.

    Spearman's rho, Kendall's tau-b and top-k overlap (chance k/n). Pairs of seeds that share their values (one run
    before fine-tuning serves both) say nothing and are left out.
    """
    told: dict[str, Any] = {}
    for column in COLUMNS:
        there = {each: values(frame, column) for each, frame in heads.items() if column in frame.columns}
        pairs, shared = [], 0
        for (first, x), (second, y) in itertools.combinations(there.items(), 2):
            if np.array_equal(x, y, equal_nan=True):
                shared += 1
            else:
                pairs.append({"seeds": [first, second], **between(x, y, k, seed)})
        if pairs or shared:
            told[column] = {"pairs": pairs, "pairs_sharing_a_run": shared, "mean": _means(pairs)}
    return told


def between(x: np.ndarray, y: np.ndarray, k: int, seed: int) -> dict[str, Any]:
    """One column in two versions: rho, Kendall's tau-b with its p-value, and top-k overlap."""
    rho, common = spearman(x, y, seed), overlap(x, y, k, seed)
    known = np.isfinite(x) & np.isfinite(y)
    tau = p = None
    if rho.value is not None:
        tau, p = (float(v) for v in stats.kendalltau(x[known], y[known]))
    return {
        "spearman": rho.as_dict(), "kendall": {"value": tau, "n": rho.n, "chance": 0.0, "p": p},
        "overlap": common.as_dict(),
    }  # fmt: skip


def _means(pairs: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    means: dict[str, float | None] = {}
    for what in ("spearman", "kendall", "overlap"):
        found = [pair[what]["value"] for pair in pairs if pair[what]["value"] is not None]
        means[what] = float(np.mean(found)) if found else None
    chances = [pair["overlap"]["chance"] for pair in pairs if pair["overlap"]["chance"] is not None]
    means["overlap_chance"] = float(np.mean(chances)) if chances else None
    return means
