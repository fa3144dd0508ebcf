"""Heat maps of the page and of the figure: one scale before and after fine-tuning, names that do not lie on each other."""

from __future__ import annotations

import numpy as np
import polars as pl

from headtool.figures.heatmap import heatmaps
from headtool.figures.scatter import NAME, scatter
from headtool.reporting.maps import heat_map

HEADS = pl.DataFrame(
    {
        "layer": [0, 0, 1, 1], "head": [0, 1, 0, 1], "I_pre": [0.0, 0.2, 0.5, -0.1], "I_post": [0.0, 0.1, 1.0, None],
        "out": [1.0, 2.0, 3.0, 4.0], "out_post": [2.0, 3.0, 4.0, 5.0], "U": [1.0, 1.0, 2.0, 3.0],
    }
)  # fmt: skip


def test_the_page_colours_before_and_after_alike():
    pre, post = heat_map(HEADS, "I_pre"), heat_map(HEADS, "I_post")
    assert (pre.scale, pre.low, pre.high) == (post.scale, post.low, post.high) == ("d", "-1", "1")
    assert dict((square[:2], square[2]) for square in post.squares) == {
        (0, 0): "d12",
        (0, 1): "d13",
        (1, 0): "d24",
        (1, 1): "none",
    }
    assert dict((square[:2], square[2]) for square in pre.squares)[1, 0] == "d18"
    assert (heat_map(HEADS, "out").low, heat_map(HEADS, "out_post").high) == ("1", "5")
    assert (heat_map(HEADS, "U").low, heat_map(HEADS, "U").high) == ("1", "3")


def test_the_figure_colours_before_and_after_alike():
    figure = heatmaps(HEADS, {name: name for name in ("I_pre", "I_post", "out", "out_post", "U")}, "a model")
    assert [image.get_clim() for axis in figure.axes for image in axis.images] == [
        (-1, 1),
        (-1, 1),
        (1, 5),
        (1, 5),
        (1, 3),
    ]


def test_names_of_cases_do_not_lie_on_each_other():
    heads = HEADS.with_columns(I_pre=pl.lit(0.5), U=pl.lit(2.0)).with_columns(I_pre=pl.Series([0.5, 0.5, 0.5, 0.0]))
    figure = scatter({"a model": (heads, {"important_but_static": {(0, 0), (0, 1), (1, 0)}})}, "I_pre", "U")
    names = {text.get_text(): np.array(text.get_position()) for text in figure.axes[0].texts}
    assert set(names) == {"L0H0", "L0H1", "L1H0"}
    places = [text.xyann for text in figure.axes[0].texts]
    for i, one in enumerate(places):
        assert not any((np.abs(np.subtract(one, other)) < NAME).all() for other in places[:i])
