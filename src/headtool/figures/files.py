"""A figure written to its files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from headtool.record.files import whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 150


def save(figure: Figure, path: Path) -> None:
    """Write a figure beside path as .png and .svg, each whole or not at all. It is laid out once, not once a format."""
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    if isinstance(figure.get_layout_engine(), ConstrainedLayoutEngine):
        figure.draw_without_rendering()
        figure.set_layout_engine(None)  # "none" leaves one that has everything drawn once more for each format
    for suffix in ("png", "svg"):
        with whole(path.with_suffix(f".{suffix}")) as file:
            figure.savefig(file, format=suffix, dpi=DPI)
