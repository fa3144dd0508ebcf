"""Moments in pieces are numpy's of the whole, whatever comes in and in whatever order."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headtool.weights.examine import Held, Wish, examine
from headtool.weights.moments import Moments

VALUES = (0.0, -0.0, 1e-30, -1e-40, 1e-8, -3e-3, 1.0, -2.5, 1e9, -1e30, math.inf, -math.inf, math.nan)


@given(
    st.lists(st.lists(st.sampled_from(VALUES), max_size=12), max_size=6),
    st.sampled_from([np.float32, np.float64]),
    st.sampled_from(["", "rows", "columns"]),
    st.booleans(),
)
def test_counts_and_extremes(pieces, dtype, sides, exact):
    moments = Moments(1e-8, sides=sides, exact=exact)
    with np.errstate(all="ignore"):
        for piece in pieces:
            moments.add(
                np.array(piece, dtype).reshape(1, -1) if sides != "columns" else np.array(piece, dtype)[:, None]
            )
    everything = np.array([x for piece in pieces for x in piece], dtype)
    known = everything[np.isfinite(everything)]
    told = moments.numbers()
    assert (moments.n, told["n_nan"], told["n_inf"]) == (
        len(known),
        np.isnan(everything).sum(),
        np.isinf(everything).sum(),
    )
    if len(known):
        assert (told["min"], told["max"]) == (known.min(), known.max())
        assert told["sparsity"] == (np.abs(known) <= 1e-8).mean()
        np.testing.assert_allclose(moments.sums[1], np.sum(known.astype(np.float64) ** 2), rtol=1e-5)


@pytest.mark.parametrize("at", [0, 1000, 1999])
@pytest.mark.parametrize("shape", [(300, 2000), (2000, 300)])
def test_one_that_is_not_a_number_in_a_matrix_of_several_pieces(shape, at):
    matrix = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    matrix[at % shape[0], at % shape[1]] = np.nan
    seen = examine(Held(matrix, 2.0**-23), Wish())
    assert (seen.method, seen.numbers["n_nan"]) == ("skipped:not finite", 1)
    np.testing.assert_allclose(seen.numbers["std"], np.nanstd(matrix.astype(np.float64)), rtol=1e-6)
