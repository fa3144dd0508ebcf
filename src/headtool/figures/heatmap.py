"""Heat maps: one panel a score, layers down, heads across."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from headtool.figures.places import labelled, settle
from headtool.record.tables import SCORES

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CELL = 0.28  # inches
LEFT, ABOVE, BELOW = 0.5, 0.3, 0.4  # inches about all panels
BESIDE, BETWEEN = 0.95, 0.35  # inches beside a panel, for its colours, and above it


def heatmaps(
    heads: pl.DataFrame, columns: dict[str, str], title: str, *, most_across: int | None = None, span: float = 9.0
) -> Figure:
    """One heat map a column of a heads table; columns maps score -> column. Missing cells are grey. Layers are labelled on the
    left, heads at the bottom: all panels have the same.

    span is the length of the longer side of a panel, in inches, where its cells are not of their full size.
    """
    import matplotlib

    matplotlib.use("agg")
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    layers, n = int(heads["layer"].max()) + 1, int(heads["head"].max()) + 1  # type: ignore[arg-type]
    across = min(len(columns), most_across or (2 if n > 16 else 3 if n > 8 else 4))
    down = -(-len(columns) // across)
    cell = min(CELL, span / max(layers, n))
    wide, high = max(n * cell, 1.9), max(layers * cell, 1.3)
    # Places in inches rather than a layout engine, which draws everything several times more to find them.
    width, height = LEFT + across * (wide + BESIDE), ABOVE + down * (high + BETWEEN) + BELOW
    figure = Figure(figsize=(width, height))
    figure.suptitle(title, y=1 - 0.1 / height, va="top")

    def place(x: float, y: float, w: float, h: float) -> Axes:
        return figure.add_axes((x / width, y / height, w / width, h / height))

    for i, (score, column) in enumerate(columns.items()):
        row, along = divmod(i, across)
        x, y = LEFT + along * (wide + BESIDE), height - ABOVE - (row + 1) * (high + BETWEEN)
        axis = place(x, y, wide, high)
        grid = np.full((layers, n), np.nan)
        grid[heads["layer"], heads["head"]] = heads[column].to_numpy()
        axis.set_facecolor("0.85")
        image = axis.imshow(grid, aspect="auto", interpolation="nearest", **_colours(grid))
        facts = SCORES.get(score)
        unit = f" ({facts.unit})" if facts and facts.unit not in ("", "1") else ""
        axis.set_title(f"{score}: {facts.title}{unit}" if facts else score, fontsize=8)
        axis.tick_params(labelsize=6)
        lowest = i + across >= len(columns)
        axis.set_xticks(labelled(n) if lowest else [])
        axis.set_yticks(labelled(layers) if along == 0 else [])
        if lowest:
            axis.set_xlabel("head", fontsize=7)
        if along == 0:
            axis.set_ylabel("layer", fontsize=7)
        bar = figure.colorbar(image, cax=place(x + wide + 0.1, y, 0.12, high), ticks=MaxNLocator(4)).ax
        bar.tick_params(labelsize=6)
        bar.yaxis.get_offset_text().set(fontsize=6)
    settle(figure, 0.22, 0.25)
    return figure


def _colours(grid: np.ndarray) -> dict[str, Any]:
    """What has both signs is coloured around 0."""
    low, high = (float(f(grid[np.isfinite(grid)], initial=0.0)) for f in (np.min, np.max))
    most = max(-low, high)
    return {"cmap": "RdBu_r", "vmin": -most, "vmax": most} if low < 0 < high else {"cmap": "viridis"}
