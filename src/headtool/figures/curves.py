"""Learning curves: one panel a quantity, one line a configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from headtool.figures.levels import COLOURS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLES = ("-", "--", ":")  # after the colours have been used up
WINDOW = 25  # rows that a line is the running median of, where there are many


def curves(panels: Mapping[str, str], courses: Mapping[str, Mapping[str, Sequence[float | None]]]) -> Figure:
    """panels: column -> title, with its unit. courses: configuration -> column -> values, "step" among them.

    Pale lines are the rows of the table, full ones their running median. A panel of positive values that span more than
    two orders of magnitude is drawn on a logarithmic axis.
    """
    from matplotlib.figure import Figure

    columns = 2 if len(panels) > 1 else 1
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(4.4 * columns, 2.7 * lines + 0.5), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False, sharex=True).ravel()
    for axis, (column, title) in zip(axes, panels.items(), strict=False):
        seen: list[float] = []
        for i, (name, course) in enumerate(courses.items()):
            points = [(s, v) for s, v in zip(course["step"], course.get(column, ()), strict=False) if v is not None]
            if not points:
                continue
            step, value = np.array(points, float).T
            colour, style = COLOURS[i % len(COLOURS)], STYLES[i // len(COLOURS) % len(STYLES)]
            smooth = len(value) >= 2 * WINDOW
            if smooth:
                axis.plot(step, value, color=colour, linewidth=0.6, alpha=0.2)
            axis.plot(step, _running_median(value) if smooth else value, style, color=colour, linewidth=1.4, label=name)
            seen += value.tolist()
        if seen and min(seen) > 0 and max(seen) > 100 * min(seen):
            axis.set_yscale("log")
        axis.set_title(title, fontsize=9)
        axis.grid(alpha=0.25, linewidth=0.6)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    for axis in axes[max(0, len(panels) - columns) : len(panels)]:
        axis.set_xlabel("optimiser step")
        axis.tick_params(labelbottom=True)
    handles = {label: h for axis in axes for h, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles, fontsize=7, ncols=4, loc="outside upper center", frameon=False)
    return figure


def _running_median(values: np.ndarray) -> np.ndarray:
    half = WINDOW // 2
    return np.array([np.median(values[max(0, i - half) : i + half + 1]) for i in range(len(values))])
