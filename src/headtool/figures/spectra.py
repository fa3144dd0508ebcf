"""Singular values: one panel a block type, one curve a matrix, coloured by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from headtool.figures.places import settle
from headtool.record.tables.weights import BLOCK_TYPES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ACROSS = 4
CURVES = 160  # in a panel; of more, evenly many are drawn
FLOOR = 1e-6


def spectra(layers: Sequence[int], kinds: Sequence[str], curves: Sequence[np.ndarray], title: str) -> Figure:
    """Each curve is s / s_1 at evenly spaced places from the first singular value to the last, on a logarithmic axis."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.collections import LineCollection
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    names = [kind for kind in BLOCK_TYPES if kind in kinds]
    across = min(ACROSS, len(names))
    down = -(-len(names) // across)
    width, tall = 1.6 + 2.5 * across, 0.9 + 2.5 * down
    figure = Figure(figsize=(width, tall))
    # Margins in inches rather than a layout engine, which draws everything twice more to find them.
    figure.subplots_adjust(0.7 / width, 0.5 / tall, 1 - 0.9 / width, 1 - 0.6 / tall, wspace=0.12, hspace=0.42)
    figure.suptitle(title, fontsize=10, y=1 - 0.1 / tall, va="top")
    grid = figure.subplots(down, across, squeeze=False, sharey=True)
    deepest, colours = max(1, *layers), colormaps["viridis"]
    shade = ScalarMappable(Normalize(0, deepest), colours)
    plain = FuncFormatter(lambda value, _: f"{value:g}")  # powers of ten as formulas take a parser
    for axis in grid.ravel()[len(names) :]:
        axis.set_visible(False)
    for axis, name in zip(grid.ravel(), names, strict=False):
        mine = [i for i, kind in enumerate(kinds) if kind == name and np.isfinite(curves[i][0])]
        shown = mine[:: max(1, -(-len(mine) // CURVES))]
        lines = [np.column_stack([np.linspace(0, 1, len(curves[i])), _seen(curves[i])]) for i in shown]
        shades = colours([layers[i] / deepest for i in shown])
        axis.add_collection(LineCollection(lines, colors=shades, linewidths=0.9, alpha=0.8))
        axis.set_yscale("log")
        axis.autoscale_view()
        axis.set_xticks([0, 0.5, 1])
        axis.yaxis.set_major_formatter(plain)
        axis.minorticks_off()
        axis.set_title(f"{name} ({len(mine)})", fontsize=9)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.25, linewidth=0.5)
    for axis in grid[:, 0]:
        axis.set_ylabel("s / largest s", fontsize=8)
    for column in range(across):
        lowest = max(row for row in range(down) if row * across + column < len(names))
        grid[lowest, column].set_xlabel("place, from the first to the last", fontsize=8)
        grid[lowest, column].tick_params(labelbottom=True)
    bar = figure.add_axes((1 - 0.7 / width, 0.5 / tall, 0.15 / width, 1 - 1.1 / tall))
    figure.colorbar(shade, cax=bar, label="layer", ticks=MaxNLocator(integer=True)).ax.tick_params(labelsize=7)
    settle(figure, 0.25, 0.42)
    bar.yaxis.set_label_coords(1 + 0.3 / 0.15, 0.5)
    return figure


def _seen(curve: np.ndarray) -> np.ndarray:
    """A curve as far as it is above what a logarithmic axis shows."""
    return np.where(curve > FLOOR, curve, np.nan)
