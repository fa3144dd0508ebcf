"""Head against head: one method across, the other up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from matplotlib.figure import Figure

from headtool.figures.scatter import TITLES


def headwise(pairs: Sequence[tuple[str, pl.DataFrame, str, pl.DataFrame]], columns: tuple[str, ...]) -> Figure:
    """One row a pair of labels, one panel a column that both have; colour: the head's layer. The dashed line is equal."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(1.2 + 4.3 * len(columns), 0.4 + 3.9 * len(pairs)), layout="constrained")
    axes = figure.subplots(len(pairs), len(columns), squeeze=False)
    points = None
    for row, (first, a, second, b) in zip(axes, pairs, strict=True):
        for axis, column in zip(row, columns, strict=True):
            if column not in a.columns or column not in b.columns:
                axis.set_visible(False)
                continue
            known = pl.DataFrame({"layer": a["layer"], "x": a[column], "y": b[column]}).drop_nulls()
            points = axis.scatter(known["x"], known["y"], c=known["layer"], cmap="viridis", s=14, linewidths=0)
            if known.height:
                ends = [min(known["x"].min(), known["y"].min()), max(known["x"].max(), known["y"].max())]  # type: ignore[type-var]
                axis.plot(ends, ends, color="0.6", linewidth=0.8, linestyle="--", zorder=0)
            axis.set_title(TITLES.get(column, column), fontsize=9)
            axis.set_xlabel(first)
            axis.set_ylabel(second)
            axis.grid(alpha=0.25, linewidth=0.6)
    if points is not None:
        figure.colorbar(points, ax=axes, label="layer (dashed: equal)", shrink=0.8, ticks=MaxNLocator(6, integer=True))
    return figure
