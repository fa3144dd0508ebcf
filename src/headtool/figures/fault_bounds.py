"""The softmax bounds: epsilon between its bounds on clean rows, and how far inside or outside it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.figure import Figure

MANY = 20_000  # points


def fault_bounds(bounds: pl.DataFrame, title: str) -> Figure:
    """Left: epsilon of clean rows between their bounds, in order of epsilon. Right: the share of rows, clean and injected,
    whose margin is at most x (on a symmetric logarithmic axis); what is left of 0 is a violation.
    """
    from matplotlib.figure import Figure

    clean = bounds.filter(kind="clean").drop_nulls(["epsilon", "middle", "upper1", "upper2"]).sort("epsilon")
    clean = clean.gather(np.unique(np.linspace(0, max(clean.height - 1, 0), min(MANY, clean.height)).astype(int)))
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    figure.suptitle(title, fontsize=10)
    left, right = figure.subplots(1, 2)
    place = np.arange(clean.height)
    floor = 1e-9
    upper = np.minimum(clean["upper1"].to_numpy(), clean["upper2"].to_numpy())
    for values, colour, label in (
        (upper, "#c2410c", "upper bound"),
        (clean["middle"].to_numpy(), "#1d4ed8", "lower bound"),
        (clean["epsilon"].to_numpy(), "black", "epsilon"),
    ):
        left.plot(place, np.maximum(values, floor), ".", markersize=1.5, color=colour, label=label, rasterized=True)
    left.set_yscale("log")
    left.set_xlabel("clean rows, in order of epsilon", fontsize=8)
    left.set_ylabel("(a* - mean score) / s", fontsize=8)
    left.legend(fontsize=7, markerscale=6, frameon=False)
    for kind, colour in (("clean", "#0f766e"), ("injected", "#be123c")):
        margin = bounds.filter(kind=kind)["margin"].fill_null(-np.inf).sort().to_numpy()
        if len(margin):
            shown = np.clip(margin, -1e6, 1e6)
            right.step(
                shown,
                np.arange(1, len(margin) + 1) / len(margin),
                where="post",
                color=colour,
                label=f"{kind} ({len(margin):,})",
            )
    right.axvline(0, color="0.6", linewidth=0.8)
    right.set_xscale("symlog", linthresh=1e-4)
    right.set_xticks([-1e6, -1e3, -1, -1e-3, 0, 1e-3, 1, 1e3])
    right.set_xlabel("margin; negative is a violation", fontsize=8)
    right.set_ylabel("share of rows", fontsize=8)
    right.legend(fontsize=7, frameon=False)
    for axis in (left, right):
        axis.grid(alpha=0.25, linewidth=0.6)
        axis.tick_params(labelsize=7)
    return figure
