"""Scatter plots of heads: one panel a group, the two kinds of cases with their own markers, intervals where known."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLES = {
    "I_pre": "importance before, I_pre (nats)", "I_post": "importance after, I_post (nats)", "U": "update U",
    "Urel": "relative update Urel", "G": "gradient importance G (nats)",
}  # fmt: skip
MARKS = {"important_but_static": ("s", "#c2410c"), "plastic_but_unimportant": ("^", "#1d4ed8")}
NAMED = 20  # cases of a kind
PLAIN = "#64748b"
PANEL = np.array([270.0, 210.0])  # points between the outermost heads, about
NAME = np.array([24.0, 8.0])  # points that a name takes, about
CORNERS = ((5, 4), (5, -10), (-28, 4), (-28, -10))  # points from a marker to a name beside it
BESIDE = [(x, y + 9 * k) for k in (0, 1, -1, 2, -2, 3, -3, 4) for x, y in CORNERS]
Heads = Collection[tuple[int, int]]


def scatter(
    panels: Mapping[str, tuple[pl.DataFrame, Mapping[str, Heads]]], x: str, *ys: str, diagonal: bool = False
) -> Figure:
    """A column a title: a table of heads, and the (layer, head) pairs of each kind of case; a row a y. Panels share their axes.

    Bars: the interval of importance over examples, or, of several seeds, one standard deviation. Cases are named, as L2H7.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.2 + 4.6 * len(panels), 0.6 + 3.8 * len(ys)), layout="constrained")
    grid = figure.subplots(len(ys), len(panels), squeeze=False, sharex=True, sharey="row")
    for axes, y in zip(grid, ys, strict=True):
        shared = [heads.select(x, y).drop_nulls() for heads, _ in panels.values()]
        frames = {c: _ends(pl.concat([heads[c].cast(pl.Float64).alias(c) for heads in shared])) for c in (x, y)}
        for axis, (title, (heads, cases)) in zip(axes, panels.items(), strict=True):
            known = heads.filter(pl.col(x).is_not_null() & pl.col(y).is_not_null())
            _draw(axis, known, cases, x, y, frames)
            axis.grid(alpha=0.25, linewidth=0.6)
            axis.set_axisbelow(True)
            if diagonal and known.height:
                ends = [_least(known, (x, y), min), _least(known, (x, y), max)]
                axis.plot(ends, ends, color="0.6", linewidth=0.8, linestyle="--", zorder=1, label="equal")
            if y == ys[0]:
                axis.set_title(title, fontsize=9)
            if y == ys[-1]:
                axis.set_xlabel(TITLES.get(x, x))
                axis.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3, frameon=False)
        axes[0].set_ylabel(TITLES.get(y, y))
    return figure


def _draw(
    axis: Axes,
    heads: pl.DataFrame,
    cases: Mapping[str, Heads],
    x: str,
    y: str,
    frames: Mapping[str, tuple[float, float]],
) -> None:
    taken: list[np.ndarray] = []
    keys = heads.select("layer", "head").rows()
    kinds = [next((kind for kind in MARKS if key in cases.get(kind, ())), "") for key in keys]
    for kind in ("", *MARKS):
        chosen = heads.filter(pl.Series(np.array([k == kind for k in kinds], dtype=bool)))
        marker, colour = MARKS.get(kind, ("o", PLAIN))
        if kind and not chosen.height:
            continue
        points = {c: chosen[c].to_numpy() for c in (x, y)}
        for layer, head, along, up in chosen.select("layer", "head", x, y).head(NAMED).rows() if kind else ():
            at = PANEL * [(v - frames[c][0]) / frames[c][1] for c, v in ((x, along), (y, up))]
            beside = next((o for o in BESIDE if not _in_the_way(at + o, taken)), BESIDE[0])
            taken.append(at + beside)
            axis.annotate(
                f"L{layer}H{head}",
                (along, up),
                beside,
                textcoords="offset points",
                fontsize=6.5,
                color=colour,
                zorder=4,
            )
        axis.errorbar(
            points[x], points[y], **_bars(chosen, x, y), fmt=marker, color=colour, markersize=6 if kind else 3.5,
            elinewidth=0.5, ecolor=colour, alpha=0.95 if kind else 0.55, linestyle="none", markeredgewidth=0,
            label=f"{kind.replace('_', ' ') + ' by Urel' if kind else 'head'} ({chosen.height})", zorder=3 if kind else 2,
        )  # fmt: skip


def _ends(values: pl.Series) -> tuple[float, float]:
    """The least value, and how far the largest lies from it; 1 where it does not."""
    known = values.to_numpy()
    return (float(known.min()), float(np.ptp(known)) or 1.0) if known.size else (0.0, 1.0)


def _in_the_way(corner: np.ndarray, taken: list[np.ndarray]) -> bool:
    """Does a name with this lower left corner leave the panel, or lie on one that is there?"""
    return bool(corner[0] + NAME[0] > 1.04 * PANEL[0]) or any((np.abs(corner - other) < NAME).all() for other in taken)


def _bars(heads: pl.DataFrame, x: str, y: str) -> dict[str, Any]:
    bars: dict[str, Any] = {}
    for column, name in ((x, "xerr"), (y, "yerr")):
        if f"{column}_low" in heads.columns and f"{column}_high" in heads.columns:
            values = [heads[c].cast(pl.Float64).to_numpy() for c in (f"{column}_low", column, f"{column}_high")]
            bars[name] = np.nan_to_num(np.clip(np.diff(values, axis=0), 0, None))
        elif f"{column}_sd" in heads.columns:
            bars[name] = heads[f"{column}_sd"].fill_null(0).to_numpy()
    return bars


def _least(heads: pl.DataFrame, columns: tuple[str, str], which: Any) -> float:
    return float(which(which(heads[column].to_list()) for column in columns))
