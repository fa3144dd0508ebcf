"""The softmax bounds: epsilon between its bounds on clean rows, and how far inside or outside it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.figure import Figure

MANY = 20_000  # points
FLOOR = 1e-6  # of what is drawn on a logarithmic axis


def fault_bounds(bounds: pl.DataFrame, title: str) -> Figure:
    """Left: epsilon of clean rows between their bounds, in order of epsilon. Right: the share of faults whose least margin
    over the rows they reach is at most x (on a symmetric logarithmic axis), with the fault and without it; what is left of
    0 is a violation.
    """
    from matplotlib.figure import Figure

    clean = bounds.filter(kind="clean").drop_nulls(["epsilon", "middle", "upper1", "upper2"]).sort("epsilon")
    clean = clean.filter(clean["epsilon"] > FLOOR)  # rounding has the rest
    clean = clean.gather(np.unique(np.linspace(0, max(clean.height - 1, 0), min(MANY, clean.height)).astype(int)))
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    figure.suptitle(title, fontsize=10)
    left, right = figure.subplots(1, 2)
    place = np.arange(clean.height)
    upper = np.minimum(clean["upper1"].to_numpy(), clean["upper2"].to_numpy())
    for values, colour, label in (
        (upper, "#c2410c", "upper bound"),
        (clean["middle"].to_numpy(), "#1d4ed8", "lower bound"),
        (clean["epsilon"].to_numpy(), "black", "epsilon"),
    ):
        left.plot(place, np.maximum(values, FLOOR), ".", markersize=1.5, color=colour, label=label, rasterized=True)
    left.set_yscale("log")
    left.set_xlabel("clean rows, in order of epsilon", fontsize=8)
    left.set_ylabel("(a* - mean score) / s", fontsize=8)
    left.legend(fontsize=7, markerscale=6, frameon=False)
    injected = bounds.filter(kind="injected")
    for column, colour, label in (
        ("margin_clean", "#0f766e", "without the fault"),
        ("margin", "#be123c", "with the fault"),
    ):
        if injected.height:
            margin = np.clip(injected[column].fill_null(-np.inf).sort().to_numpy(), -1e6, 1e6)
            share = np.arange(1, len(margin) + 1) / len(margin)
            right.step(margin, share, where="post", color=colour, label=label)
    right.axvline(0, color="0.6", linewidth=0.8)
    right.set_xscale("symlog", linthresh=1e-4)
    right.set_xticks([-1e6, -1e3, -1, -1e-3, 0, 1e-3, 1, 1e3])
    right.set_xlabel("least margin of the rows it reaches; negative is a violation", fontsize=8)
    right.set_ylabel("share of faults", fontsize=8)
    if injected.height:
        right.legend(fontsize=7, frameon=False)
    for axis in (left, right):
        axis.grid(alpha=0.25, linewidth=0.6)
        axis.tick_params(labelsize=7)
    return figure
