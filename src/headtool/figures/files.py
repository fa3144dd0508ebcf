"""A figure written to its files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from headtool.record.files import whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 130


def png(figure: Figure) -> bytes:
    """A figure as PNG. It is laid out once, not once a format."""
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    if isinstance(figure.get_layout_engine(), ConstrainedLayoutEngine):
        figure.draw_without_rendering()
        figure.set_layout_engine(None)  # "none" leaves one that has everything drawn once more for each format
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, pil_kwargs={"compress_level": 3})  # of 9: a third of 6's time
    return buffer.getvalue()


def save(figure: Figure, path: Path) -> bytes:
    """Write a figure beside path as .png and .svg, each whole or not at all. Returns the PNG."""
    picture = png(figure)
    with whole(path.with_suffix(".png")) as file:
        file.write(picture)
    with whole(path.with_suffix(".svg")) as file:
        figure.savefig(file, format="svg", dpi=DPI)
    return picture
