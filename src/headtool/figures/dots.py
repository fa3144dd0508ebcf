"""One metric of many configurations: a dot a configuration, a panel a data set."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from headtool.figures.levels import COLOURS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CHARACTERS = 13  # of a title, an inch


def dots(
    title: str,
    values: Mapping[str, Mapping[str, float | None]],
    baselines: Sequence[str],
    *,
    target: float | None = None,
) -> Figure:
    """values: data set -> configuration -> value; baselines are drawn hollow, target as a line where there is one.

    Each panel has an axis of its own, logarithmic where positive values span more than two orders of magnitude.
    """
    from matplotlib.figure import Figure

    names = list(next(iter(values.values())))
    per_line = min(len(values), 4)
    lines = -(-len(values) // per_line)
    figure = Figure(figsize=(1.7 + 2.3 * per_line, lines * (1.1 + 0.24 * len(names))), layout="constrained")
    axes = figure.subplots(lines, per_line, squeeze=False, sharey=True).ravel()
    for axis, (dataset, found) in zip(axes, values.items(), strict=False):
        known = {name: value for name, value in found.items() if value is not None}
        for row, name in enumerate(names):
            if name not in known:
                axis.annotate(
                    "none",
                    (0.5, row),
                    xycoords=("axes fraction", "data"),
                    fontsize=6,
                    color="0.6",
                    ha="center",
                    va="center",
                )
                continue
            hollow = name in baselines
            axis.plot(
                [known[name]],
                [row],
                "o",
                markersize=6,
                color=COLOURS[0],
                markerfacecolor="white" if hollow else COLOURS[0],
            )
        if target is not None:
            axis.axvline(target, color=COLOURS[1], linewidth=0.9, linestyle="--")
        if known and min(known.values()) > 0 and max(known.values()) > 100 * min(known.values()):
            axis.set_xscale("log")
        axis.set_title(dataset.replace("_", " "), fontsize=8)
        axis.tick_params(labelsize=7)
        if axis.get_xscale() == "linear":
            axis.locator_params(axis="x", nbins=4)
            axis.ticklabel_format(axis="x", useOffset=False)
        axis.grid(alpha=0.25, linewidth=0.6)
        axis.margins(x=0.15)
        axis.set_yticks(range(len(names)), names, fontsize=7)
        axis.set_ylim(len(names) - 0.5, -0.5)
    for axis in axes[len(values) :]:
        axis.set_visible(False)
    told = title + ("; dashed: what it should be" if target is not None else "")
    wide = int(figure.get_figwidth() * CHARACTERS)  # of one panel a title is wider than the figure
    figure.suptitle("\n".join(textwrap.wrap(told, wide)), fontsize=9)
    return figure
