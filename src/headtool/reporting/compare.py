"""Two methods side by side (full fine-tuning and LoRA, say): the same statistics, and head against head."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from headtool.reporting.analysis import Analysis
from headtool.reporting.seeds import between
from headtool.reporting.statistics import NAMES, values

HEADWISE = ("Urel", "U", "I_post")
PARTS = ("U", "Urel", "Uq", "Uk", "Uv", "Uo")


def metrics(analyses: Sequence[Analysis], k: int, seed: int) -> dict[str, Any]:
    """The content of compare_metrics.json: statistics by label, their differences, updates, head against head.

    A difference is the first label's value minus the second's; its interval comes from the same bootstrap samples
    of the heads on both sides.
    """
    told: dict[str, Any] = {
        "labels": {a.group.label: a.stats() for a in analyses},
        "updates": {a.group.label: updates(a.group.heads) for a in analyses},
        "differences": [],
        "headwise": [],
    }
    for first, second in itertools.combinations(analyses, 2):
        labels = [first.group.label, second.group.label]
        told["differences"].append({"labels": labels, **differences(first, second)})
        both = [c for c in HEADWISE if c in first.group.heads.columns and c in second.group.heads.columns]
        pair = {c: between(values(first.group.heads, c), values(second.group.heads, c), k, seed) for c in both}
        told["headwise"].append({"labels": labels, **pair})
    return told


def differences(first: Analysis, second: Analysis) -> dict[str, Any]:
    """First minus second, statistic by statistic, with the 95% interval of the bootstrap over heads. Null where either is,
    and where both are of the same numbers: then no difference is no finding.
    """
    told: dict[str, Any] = {}
    for name in NAMES:
        a, b = first.mean[name], second.mean[name]
        same = bool(a.boot.size) and a.value == b.value and np.array_equal(a.boot, b.boot, equal_nan=True)
        if a.value is None or b.value is None or same:
            told[name] = {"value": None, "ci_low": None, "ci_high": None}
            continue
        low = high = None
        if a.n == b.n:  # the same heads, so the same samples
            gap = a.boot - b.boot
            low, high = (float(v) for v in np.percentile(gap[np.isfinite(gap)], [2.5, 97.5]))
        told[name] = {"value": a.value - b.value, "ci_low": low, "ci_high": high}
    return told


def updates(heads: pl.DataFrame) -> dict[str, Any]:
    """How updates are distributed over heads: mean, deviation, median, the 10% and 90% points, and the ends."""
    told: dict[str, Any] = {}
    for part in PARTS:
        column = values(heads, part) if part in heads.columns else np.empty(0)
        column = column[np.isfinite(column)]
        if len(column):
            p10, median, p90 = (float(v) for v in np.percentile(column, [10, 50, 90]))
            told[part] = {
                "n": len(column), "mean": float(column.mean()), "sd": float(column.std()), "median": median,
                "p10": p10, "p90": p90, "min": float(column.min()), "max": float(column.max()),
            }  # fmt: skip
    return told


def summary(told: dict[str, Any]) -> str:
    """The content of compare_summary.txt: what a reader would look for first, as plain text."""
    labels = list(told["labels"])
    wide = max(len(name) for name in NAMES)
    lines = [f"headtool report: {' against '.join(labels)}", ""]
    lines += [f"{'statistic':<{wide}}  " + "  ".join(f"{label:>24}" for label in labels) + "    chance"]
    for name in NAMES:
        cells = [_cell(told["labels"][label][name]) for label in labels]
        chance = told["labels"][labels[0]][name]["chance"]
        lines.append(
            f"{name:<{wide}}  " + "  ".join(f"{c:>24}" for c in cells) + ("" if chance is None else f"  {chance:8.3f}")
        )
    for pair in told["differences"]:
        first, second = pair["labels"]
        lines += ["", f"{first} minus {second} (95% interval of the bootstrap over heads)"]
        lines += [f"{name:<{wide}}  {_cell(pair[name]):>24}" for name in NAMES if pair[name]["value"] is not None]
    for pair in told["headwise"]:
        lines += ["", f"{' and '.join(pair['labels'])}, head by head"]
        for column, found in pair.items():
            if column != "labels":
                chance = found["overlap"]["chance"]
                by_chance = "" if chance is None else f" (chance {chance:.3f})"
                lines.append(
                    f"{column:<8} rho {_number(found['spearman']['value'])}   tau {_number(found['kendall']['value'])}"
                    f"   top-k overlap {_number(found['overlap']['value'])}{by_chance}"
                )
    lines += ["", "updates: median [10%, 90%] over heads"]
    for label, parts in told["updates"].items():
        lines += [
            f"{label:<12} {part:<5} {facts['median']:.4g} [{facts['p10']:.4g}, {facts['p90']:.4g}]"
            for part, facts in parts.items()
        ]
    return "\n".join(lines) + "\n"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


def _cell(statistic: dict[str, Any]) -> str:
    if statistic["value"] is None:
        return "none"
    if statistic["ci_low"] is None:
        return f"{statistic['value']:.3f}"
    return f"{statistic['value']:.3f} [{statistic['ci_low']:.2f}, {statistic['ci_high']:.2f}]"
