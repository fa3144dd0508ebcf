"""Clusters of an embedding: how good each number of them is, and where they lie in a plane."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from headtool.figures.places import settle

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS = {
    "inertia": "inertia (mean squared distance)", "chord_distance": "chord over the curve of inertia",
    "silhouette": "silhouette", "calinski_harabasz": "Calinski-Harabasz index",
}  # fmt: skip
APART = 0.24  # inches between the middles of two marks
NAMED = 12  # clusters that are written into the projection


def elbow(curve: Mapping[str, Sequence[Any]], k: int, title: str) -> Figure:
    """One panel a measure over the number of clusters; the dashed line is the number taken, the grey one the chord."""
    from matplotlib.figure import Figure

    width, tall = 9.6, 5.6
    figure = Figure(figsize=(width, tall))
    figure.subplots_adjust(0.6 / width, 0.5 / tall, 1 - 0.1 / width, 1 - 0.65 / tall, wspace=0.15, hspace=0.38)
    figure.suptitle(title, fontsize=10, y=1 - 0.1 / tall, va="top")
    for axis, (name, told) in zip(figure.subplots(2, 2).ravel(), PANELS.items(), strict=True):
        known = [(x, y) for x, y in zip(curve["k"], curve[name], strict=True) if y is not None]
        axis.plot([x for x, _ in known], [y for _, y in known], marker="o", markersize=3.5, color="#0f766e")
        if name == "inertia" and known:
            axis.plot([known[0][0], known[-1][0]], [known[0][1], known[-1][1]], color="0.7", linewidth=0.9)
        axis.axvline(k, color="#c2410c", linestyle="--", linewidth=1, label=f"k = {k}")
        axis.set_title(told, fontsize=9)
        axis.set_xlabel("clusters", fontsize=8)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.25, linewidth=0.5)
        axis.legend(fontsize=7)
    settle(figure, 0.25)
    return figure


def projection(
    points: np.ndarray, labels: np.ndarray, centres: np.ndarray, words: Sequence[Sequence[str]], title: str
) -> Figure:
    """Tokens on the first two principal axes, coloured by cluster; at each of the largest clusters' centres its number and
    the tokens nearest to it in the legend.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(9.6, 6.2), layout="constrained")
    figure.suptitle(title, fontsize=10)
    axis = figure.subplots()
    shown = min(len(centres), NAMED)
    colours = [colormaps["tab20"](c % 20) for c in range(shown)]
    rest = labels >= shown
    axis.scatter(points[rest, 0], points[rest, 1], s=3, color="0.8", linewidths=0, rasterized=True)
    for c in range(shown):
        mine = labels == c
        axis.scatter(points[mine, 0], points[mine, 1], s=4, color=colours[c], linewidths=0, alpha=0.6, rasterized=True)
    marks = [
        Line2D([], [], color=colours[c], marker="o", linestyle="none", label=f"{c}: {_plain(words[c])}")
        for c in range(shown)
    ]
    if len(centres) > shown:
        marks.append(
            Line2D([], [], color="0.8", marker="o", linestyle="none", label=f"{len(centres) - shown} smaller ones")
        )
    low, high = np.percentile(points, [0.2, 99.8], axis=0)
    room = 0.05 * np.maximum(high - low, 1e-9)
    axis.set_xlim(low[0] - room[0], high[0] + room[0])
    axis.set_ylim(low[1] - room[1], high[1] + room[1])
    size = np.array([6.8, 5.4]) / (high - low + 2 * room)  # inches of the panel a unit, about
    for c, at in enumerate(apart(centres[:shown] * size) / size):
        axis.annotate(
            str(c), centres[c], at, ha="center", va="center", fontsize=8, color="black",
            bbox={"boxstyle": "circle,pad=0.25", "facecolor": "white", "edgecolor": colours[c]},
            arrowprops={"arrowstyle": "-", "color": colours[c]},
        )  # fmt: skip
    axis.set_xlabel("first principal axis", fontsize=8)
    axis.set_ylabel("second principal axis", fontsize=8)
    axis.tick_params(labelsize=7)
    figure.legend(handles=marks, fontsize=7, loc="outside right upper", frameon=False, title="cluster: nearest tokens")
    return figure


def apart(points: np.ndarray) -> np.ndarray:
    """The points, those moved away from each other that lie closer together than two marks of a cluster are wide."""
    points = points.astype(float)
    for _ in range(50):
        gaps = points[:, None] - points[None]
        far = np.linalg.norm(gaps, axis=2) + np.eye(len(points)) * APART
        if far.min() >= APART:
            break
        short = np.maximum(APART - far, 0) / 2
        along = np.divide(gaps, far[:, :, None], out=np.zeros_like(gaps), where=far[:, :, None] > 0)
        points += (short[:, :, None] * along).sum(1)
    return points


def _plain(words: Sequence[str]) -> str:
    """Tokens as a figure can show them: what its font lacks is written as a code, and dollars are no mathematics."""
    from matplotlib import font_manager

    known = font_manager.get_font(
        font_manager.findfont("DejaVu Sans")
    ).get_charmap()  # the one that matplotlib brings along
    told = []
    for word in words:
        text = "".join(c if c.isprintable() and ord(c) in known else f"\\u{ord(c):04x}" for c in word)
        told.append((text[:14] + "…" if len(text) > 15 else text).replace("$", r"\$"))
    return "  ".join(told)
