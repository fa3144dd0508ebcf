"""Statistics as points with their intervals and the levels that chance gives, on an axis from -1 to 1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#0f766e", "#c2410c", "#6d28d9", "#1d4ed8", "#a16207", "#be123c")


def levels(groups: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Figure:
    """One row a statistic that any group has, one point a group.

    groups: label -> name -> {value, chance, ci_low, ci_high}. Only what has a value is drawn.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    names = [name for name in next(iter(groups.values())) if any(g[name]["value"] is not None for g in groups.values())]
    figure = Figure(figsize=(7.2, 1.3 + 0.34 * max(len(names), 2)), layout="constrained")
    axis = figure.subplots()
    step = 0.6 / max(len(groups), 1)
    for g, (_label, found) in enumerate(groups.items()):
        colour, shift = COLOURS[g % len(COLOURS)], (g - (len(groups) - 1) / 2) * step
        for row, name in enumerate(names):
            one = found[name]
            if one["value"] is None:
                continue
            if one["ci_low"] is not None:
                axis.plot([one["ci_low"], one["ci_high"]], [row + shift] * 2, color=colour, linewidth=1.6, alpha=0.6)
            axis.plot([one["value"]], [row + shift], marker="o", color=colour, markersize=5, linestyle="none")
            axis.plot([one["chance"]], [row + shift], marker="|", color="black", markersize=12, linestyle="none")
    axis.set_xlim(-1, 1)
    axis.axvline(0, color="0.7", linewidth=0.8, zorder=0)
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.set_ylim(max(len(names), 1) - 0.4, -0.6)
    axis.set_xlabel("value; bar: 95% of the bootstrap over heads", fontsize=8)
    axis.grid(axis="x", alpha=0.25, linewidth=0.6)
    marks = [Line2D([], [], color=COLOURS[g % len(COLOURS)], marker="o", label=label) for g, label in enumerate(groups)]
    chance = Line2D([], [], color="black", marker="|", markersize=12, linestyle="none", label="by chance")
    figure.legend(handles=[*marks, chance], fontsize=7, ncols=len(marks) + 1, loc="outside upper center", frameon=False)
    return figure
