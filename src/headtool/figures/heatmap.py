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

    grids = {column: _grid(heads, column, (layers, n)) for column in columns.values()}
    for i, (score, column) in enumerate(columns.items()):
        row, along = divmod(i, across)
        x, y = LEFT + along * (wide + BESIDE), height - ABOVE - (row + 1) * (high + BETWEEN)
        axis = place(x, y, wide, high)
        axis.set_facecolor("0.85")
        alike = np.stack([grid for name, grid in grids.items() if stem(name) == stem(column)])
        image = axis.imshow(grids[column], aspect="auto", interpolation="nearest", **_colours(alike))
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


def _grid(heads: pl.DataFrame, column: str, shape: tuple[int, int]) -> np.ndarray:
    grid = np.full(shape, np.nan)
    grid[heads["layer"], heads["head"]] = heads[column].to_numpy()
    return grid


def stem(column: str) -> str:
    """What a column before and the one after fine-tuning have in common: they are to be compared, by the same colours."""
    return column.removesuffix("_pre").removesuffix("_post")


def _colours(grids: np.ndarray) -> dict[str, Any]:
    """One scale for all; what has both signs is coloured around 0."""
    known = grids[np.isfinite(grids)]
    if not known.size:
        return {"cmap": "viridis"}
    low, high = float(known.min()), float(known.max())
    most = max(-low, high)
    signed = low < 0 < high
    return {"cmap": "RdBu_r", "vmin": -most, "vmax": most} if signed else {"cmap": "viridis", "vmin": low, "vmax": high}
