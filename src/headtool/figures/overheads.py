"""What injection, bounds and detectors add to a forward pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.figure import Figure

from headtool.figures.levels import COLOURS

ADDED = ("injection", "open", "bounds", "detection", "total")


def overheads(performance: pl.DataFrame, title: str) -> Figure:
    """One bar an overhead, in percent of the plain forward pass: the median, and the least and the most of the runs."""
    from matplotlib.figure import Figure

    by_name = {r["metric"]: r for r in performance.iter_rows(named=True)}
    rows = [by_name[name] for name in (f"overhead_{what}_pct" for what in ADDED) if name in by_name]
    figure = Figure(figsize=(6, 1.2 + 0.45 * len(rows)), layout="constrained")
    figure.suptitle(title, fontsize=10)
    axis = figure.subplots()
    for i, row in enumerate(rows):
        error = [[row["median"] - row["min"]], [row["max"] - row["median"]]]
        axis.barh([i], [row["median"]], xerr=error, color=COLOURS[i], alpha=0.8, capsize=3, height=0.6)
    axis.set_yticks(
        range(len(rows)), [r["metric"].removeprefix("overhead_").removesuffix("_pct") for r in rows], fontsize=8
    )
    axis.invert_yaxis()
    axis.axvline(0, color="0.5", linewidth=0.8)
    axis.set_xlabel("% of the plain forward pass; bar: least and most of the runs", fontsize=8)
    axis.grid(axis="x", alpha=0.25, linewidth=0.6)
    return figure
