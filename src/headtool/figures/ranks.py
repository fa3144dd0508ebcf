"""Ranks by layer and block type: one panel a kind of rank, layers down, block types across."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from headtool.figures.places import labelled, settle
from headtool.record.tables.weights import BLOCK_TYPES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS = {
    "rank": "rank",
    "rank_resolved": "rank_resolved\n(above storage rounding)",
    "effective_rank": "effective_rank",
}
WRITTEN = 12  # layers up to which each cell has its number


def ranks(columns: Mapping[str, Sequence[Any]], title: str) -> Figure:
    """Each rank over the smaller side of its matrix, from 0 to 1; several matrices of one cell (experts) by their mean.

    columns: layer_index, block_type, rows, cols and the ranks, a value a matrix. What is missing is grey.
    """
    from matplotlib.figure import Figure

    kinds = [kind for kind in BLOCK_TYPES if kind in columns["block_type"]]
    layers = max(columns["layer_index"]) + 1
    at = np.array(columns["layer_index"]), np.array([kinds.index(kind) for kind in columns["block_type"]])
    side = np.minimum(columns["rows"], columns["cols"])
    height, panel = min(max(layers * 0.26, 1.4), 11), 0.25 + 0.42 * len(kinds)
    width, tall = 1.6 + len(PANELS) * (panel + 0.15), height + 1.9
    figure = Figure(figsize=(width, tall))
    # Margins in inches rather than a layout engine, which draws everything twice more to find them.
    figure.subplots_adjust(0.55 / width, 1.05 / tall, 1 - 0.9 / width, 1 - 0.85 / tall, wspace=0.15 / panel)
    figure.suptitle(title, fontsize=10, y=1 - 0.12 / tall, va="top")
    axes = figure.subplots(1, len(PANELS), squeeze=False, sharey=True)[0]
    image = None
    for axis, (name, told) in zip(axes, PANELS.items(), strict=True):
        total, count = np.zeros((layers, len(kinds))), np.zeros((layers, len(kinds)))
        np.add.at(total, at, np.array(columns[name], float) / side)
        np.add.at(count, at, 1)
        grid = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
        axis.set_facecolor("0.85")
        image = axis.imshow(grid, aspect="auto", cmap="viridis", vmin=0, vmax=1, interpolation="nearest")
        axis.set_title(told, fontsize=9)
        axis.set_xticks(range(len(kinds)), kinds, rotation=90, fontsize=8)
        axis.set_yticks(labelled(layers))
        axis.tick_params(labelsize=8)
        if layers <= WRITTEN:
            for (row, column), value in np.ndenumerate(grid):
                if np.isfinite(value):
                    shade = "black" if value > 0.6 else "white"
                    axis.text(column, row, f"{value:.2f}"[:4], ha="center", va="center", fontsize=6, color=shade)
    axes[0].set_ylabel("layer", fontsize=9)
    if image is not None:
        span = min(height, 4.0)
        bar = figure.add_axes((1 - 0.7 / width, (1.05 + (height - span) / 2) / tall, 0.15 / width, span / tall))
        figure.colorbar(image, cax=bar).ax.tick_params(labelsize=8)
    settle(figure)
    return figure
