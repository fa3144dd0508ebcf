"""Heat maps: one panel a score, layers down, heads across."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from headtool.record.tables import SCORES

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.figure import Figure

CELL = 0.28  # inches
ROOMY = 24  # up to this many rows or columns each is labelled


def heatmaps(
    heads: pl.DataFrame, columns: dict[str, str], title: str, *, most_across: int | None = None, span: float = 9.0
) -> Figure:
    """One heat map a column of a heads table; columns maps score -> column. Missing cells are grey.

    span is the length of the longer side of a panel, in inches, where its cells are not of their full size.
    """
    import matplotlib

    matplotlib.use("agg")
    from matplotlib.figure import Figure

    layers, n = int(heads["layer"].max()) + 1, int(heads["head"].max()) + 1  # type: ignore[arg-type]
    across = min(len(columns), most_across or (2 if n > 16 else 3 if n > 8 else 4))
    down = -(-len(columns) // across)
    cell = min(CELL, span / max(layers, n))
    width, height = max(n * cell, 1.9) + 1.3, max(layers * cell, 1.3) + 0.9
    figure = Figure(figsize=(across * width, down * height + 0.45), layout="constrained")
    figure.suptitle(title)
    axes = np.atleast_1d(figure.subplots(down, across, squeeze=False).ravel())
    for axis in axes[len(columns) :]:
        axis.set_visible(False)
    for axis, (score, column) in zip(axes, columns.items(), strict=False):
        grid = np.full((layers, n), np.nan)
        grid[heads["layer"], heads["head"]] = heads[column].to_numpy()
        axis.set_facecolor("0.85")
        image = axis.imshow(grid, aspect="auto", cmap="viridis", interpolation="nearest")
        facts = SCORES.get(score)
        unit = f" ({facts.unit})" if facts and facts.unit not in ("", "1") else ""
        axis.set_title(f"{score}: {facts.title}{unit}" if facts else score, fontsize=8)
        for ticks, count in ((axis.set_xticks, n), (axis.set_yticks, layers)):
            ticks(np.arange(0, count, 1 if count <= ROOMY else 8 if count > 64 else 4))
        axis.tick_params(labelsize=6)
        axis.set_xlabel("head", fontsize=7)
        axis.set_ylabel("layer", fontsize=7)
        figure.colorbar(image, ax=axis).ax.tick_params(labelsize=6)
    figure.draw_without_rendering()  # lays the panels out once, so that each savefig need not
    figure.set_layout_engine("none")
    return figure
