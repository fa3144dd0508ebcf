"""How updates are distributed over heads: one curve a method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.figure import Figure

from headtool.figures.levels import COLOURS
from headtool.figures.scatter import TITLES


def distribution(groups: Mapping[str, pl.DataFrame], columns: tuple[str, ...]) -> Figure:
    """Cumulative shares of heads, one panel a column, one step curve a label; a logarithmic axis where all are above 0.

    Nothing is binned, so nothing depends on a choice of bins.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1 + 4.2 * len(columns), 3.6), layout="constrained")
    for axis, column in zip(figure.subplots(1, len(columns), squeeze=False)[0], columns, strict=True):
        least = np.inf
        for g, (label, heads) in enumerate(groups.items()):
            if column not in heads.columns:
                continue
            values = np.sort(heads[column].drop_nulls().to_numpy())
            if not len(values):
                continue
            least = min(least, values[0])
            share = np.arange(1, len(values) + 1) / len(values)
            axis.step(values, share, where="post", color=COLOURS[g % len(COLOURS)], label=f"{label} ({len(values)})")
        if 0 < least < np.inf:
            axis.set_xscale("log")
        axis.set_xlabel(TITLES.get(column, column))
        axis.set_ylabel("share of heads at or below")
        axis.set_ylim(0, 1.02)
        axis.grid(alpha=0.25, linewidth=0.6)
        if axis.lines:
            axis.legend(fontsize=7)
    return figure
