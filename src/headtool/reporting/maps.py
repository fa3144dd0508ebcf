"""Heat maps as inline SVG: a square a head, its value on hover, a legend of the colours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from headtool.figures.heatmap import stem

STEPS = 25  # colours of a scale; odd, so that a diverging scale has a middle
CELL = 20  # pixels, at most
WIDE = 520  # pixels a map takes, at most
SCALES = {"s": "viridis", "d": "RdBu_r"}  # class prefix -> matplotlib's name: sequential, diverging around 0


@dataclass(frozen=True)
class Map:
    """One heat map: everything the page needs to draw it. Squares are (layer, head, class, value as text)."""

    title: str
    layers: int
    heads: int
    cell: float
    scale: str
    low: str
    high: str
    squares: tuple[tuple[int, int, str, str], ...]


def number(value: float | int | bool | None) -> str:
    """A value as the page shows it: five significant digits; empty where there is none."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) if isinstance(value, int) else f"{value:.5g}"


def small(p: float | None) -> str:
    """A p-value: four digits, or that it is below what four digits tell."""
    return "" if p is None else "<0.0001" if p < 0.00005 else f"{p:.4f}"


def heat_map(heads: pl.DataFrame, column: str) -> Map:
    """A column of a table of heads, by the same colours before and after fine-tuning; around 0 where values lie on both sides."""
    layers, n = int(heads["layer"].max()) + 1, int(heads["head"].max()) + 1  # type: ignore[arg-type]
    alike = [name for name in heads.columns if stem(name) == stem(column)]
    known = pl.concat([heads[name].cast(pl.Float64).alias(column) for name in alike]).drop_nulls().to_numpy()
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)
    scale = "s"
    if low < 0 < high:
        scale, high = "d", max(-low, high)
        low = -high
    width = high - low or 1.0
    squares = tuple(
        (
            layer,
            head,
            "none" if value is None else f"{scale}{round((value - low) / width * (STEPS - 1))}",
            number(value),
        )
        for layer, head, value in heads.select("layer", "head", column).iter_rows()
    )
    return Map(column, layers, n, min(CELL, WIDE / n), scale, number(low), number(high), squares)


def palette() -> dict[str, str]:
    """Class -> colour, for the style sheet: s0 ... s24 and d0 ... d24."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return {
        f"{prefix}{i}": to_hex(colormaps[name](at))
        for prefix, name in SCALES.items()
        for i, at in enumerate(np.linspace(0, 1, STEPS))
    }
