"""Places that are given rather than searched for: half of the cost of a figure with many labels is to keep clear of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def labelled(count: int) -> range:
    """Which of so many rows or columns have their number beside them."""
    return range(0, count, 1 if count <= 12 else 2 if count <= 24 else 4 if count <= 64 else 8)


def settle(figure: Figure, below: float = 0.3, beside: float = 0.3) -> None:
    """Put every title on its panel, and every label so many inches below and beside it.

    Left to itself each of them measures all tick labels of its panel, in every format that is written.
    """
    width, height = figure.get_size_inches()
    for axis in figure.axes:
        box = axis.get_position()
        across, down = beside / (box.width * width), below / (box.height * height)
        if axis.get_title():
            axis.set_title(axis.get_title(), fontsize=axis.title.get_fontsize(), y=1.0)
        axis.xaxis.set_label_coords(0.5, -down)
        axis.yaxis.set_label_coords(1 + across if axis.yaxis.get_label_position() == "right" else -across, 0.5)
