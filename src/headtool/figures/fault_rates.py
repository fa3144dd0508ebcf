"""Harm and detection by bit and by site: what share of faults does harm, and what share of that is caught."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from headtool.figures.levels import COLOURS
from headtool.models.sites import SITES

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def fault_rates(summary: pl.DataFrame, title: str) -> Figure:
    """Two rows: rates by bit, one line a site, and by site with intervals; the harmful rate left, what is caught right."""
    from matplotlib.figure import Figure

    here = set(summary["site"])
    sites = [name for name in SITES if name in here]
    whole = {row["site"]: row for row in summary.filter(layer=-1, bit=-1).iter_rows(named=True)}
    caught = "caught_rate" in summary.columns
    kinds = [("harmful", "share harmful")] + ([("caught", "share of the harmful that is caught")] if caught else [])
    figure = Figure(figsize=(5.2 * len(kinds), 6.2), layout="constrained")
    figure.suptitle(title, fontsize=10)
    axes = figure.subplots(2, len(kinds), squeeze=False)
    for column, (kind, told) in enumerate(kinds):
        top, bottom = axes[0, column], axes[1, column]
        for i, name in enumerate(sites):
            rows = summary.filter(pl.col("bit") >= 0, site=name, layer=-1).drop_nulls(f"{kind}_rate")
            if rows.height:
                shift = (i - (len(sites) - 1) / 2) * 0.06
                bits = np.arange(rows["bit"].min(), rows["bit"].max() + 1)  # type: ignore[operator, arg-type]
                rates = np.full(len(bits), np.nan)  # a line ends where a bit is not known
                rates[rows["bit"].to_numpy() - bits[0]] = rows[f"{kind}_rate"]
                (line,) = top.plot(bits + shift, rates, "o-", label=name, color=COLOURS[i])
                line.set(markersize=3, linewidth=1)
            rate = whole[name][f"{kind}_rate"]
            if rate is None:
                bottom.text(i, 0.02, "none", ha="center", fontsize=7, color="0.4")
                continue
            low, high = whole[name][f"{kind}_low"], whole[name][f"{kind}_high"]
            error = np.array([[max(rate - low, 0)], [max(high - rate, 0)]])
            bottom.errorbar([i], [rate], yerr=error, color=COLOURS[i], marker="o", markersize=5, capsize=3)
        of, what = {"harmful": ("n", "faults"), "caught": ("harmful", "harmful faults")}[kind]
        counts = summary.filter(pl.col("bit") >= 0, pl.col("site").is_in(sites), pl.col(of) > 0, layer=-1)[of]
        if counts.len():
            top.set_title(f"by bit; a point stands for {_range(counts)} {what}", fontsize=8)
        top.set_xlabel("bit", fontsize=8)
        words = {"harmful": "{n:,} faults\n{elements:,} elements", "caught": "{harmful:,} harmful"}[kind]
        bottom.set_xticks(range(len(sites)), [f"{name}\n{words.format_map(whole[name])}" for name in sites])
        bottom.set_xlim(-0.6, len(sites) - 0.4)
        bits_hit = summary.filter(pl.col("bit") >= 0)["bit"].to_numpy()
        if bits_hit.size:
            top.set_xlim(bits_hit.min() - 0.6, bits_hit.max() + 0.6)
        top.xaxis.get_major_locator().set_params(integer=True)
        highest = max((whole[name][f"{kind}_high"] or 0 for name in sites), default=1)
        bottom.set_title("by site; bar: 95% interval over elements", fontsize=8)
        for axis, most in ((top, 1.0), (bottom, highest if kind == "harmful" else 1.0)):
            axis.set_ylabel(told, fontsize=8)
            axis.set_ylim(-0.03 * most, 1.03 * most)
            axis.grid(alpha=0.25, linewidth=0.6)
            axis.tick_params(labelsize=7)
        if top.lines:
            top.legend(fontsize=7, ncols=2, frameon=False)
    return figure


def _range(counts: pl.Series) -> str:
    low, high = counts.min(), counts.max()
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"  # type: ignore[str-bytes-safe]
