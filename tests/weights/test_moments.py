"""Moments in pieces are numpy's of the whole, whatever comes in and in whatever order."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headtool.weights.examine import Held, Wish, examine
from headtool.weights.moments import Moments
from headtool.weights.scratch import LARGEST, scratch

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


@pytest.mark.parametrize("scale", [1e150, 1e160, 1e300])
def test_squares_that_leave_float64(scale):
    matrix = np.random.default_rng(0).normal(size=(64, 2000)) * scale
    matrix[3, 1500:] *= 1e-3  # a later piece that lies between the extremes
    told = examine(Held(matrix, 2.0**-52), Wish()).numbers
    assert (told["min"], told["max"]) == (matrix.min(), matrix.max())
    np.testing.assert_allclose(told["std"] / scale, (matrix / scale).std(), rtol=1e-9)
    np.testing.assert_allclose(told["spectral_norm"] / scale, np.linalg.norm(matrix / scale, 2), rtol=1e-9)


@pytest.mark.parametrize("at", [0, 1000, 1999])
@pytest.mark.parametrize("shape", [(300, 2000), (2000, 300)])
def test_one_that_is_not_a_number_in_a_matrix_of_several_pieces(shape, at):
    matrix = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    matrix[at % shape[0], at % shape[1]] = np.nan
    seen = examine(Held(matrix, 2.0**-23), Wish())
    assert (seen.method, seen.numbers["n_nan"]) == ("skipped:not finite", 1)
    np.testing.assert_allclose(seen.numbers["std"], np.nanstd(matrix.astype(np.float64)), rtol=1e-6)


def test_scratch_is_a_threads_own_and_large_ones_are_not_kept():
    kind = np.dtype(np.float32)
    mine = scratch("squares", 100, kind)
    with ThreadPoolExecutor(1) as pool:
        theirs = pool.submit(scratch, "squares", 100, kind).result()
    assert np.shares_memory(mine, scratch("squares", 50, kind))
    assert not np.shares_memory(mine, theirs)
    assert not np.shares_memory(mine, scratch("squares", 100, np.dtype(np.float64)))
    large = scratch("squares", LARGEST + 1, kind)
    assert large.size > LARGEST
    assert not np.shares_memory(large, scratch("squares", LARGEST + 1, kind))
    assert scratch("squares", 1000, kind).ctypes.data % 64 == 0


def test_one_thread_that_goes_from_shape_to_shape():
    """Several tensors share their room: what one leaves there is not another's."""
    rng = np.random.default_rng(0)
    parts = [
        rng.normal(size=shape).astype(kind) for shape in ((3, 50), (50, 3), (7, 900), (1, 1)) for kind in ("f4", "f8")
    ]
    both = [Moments(1e-8, sides=sides) for sides in ("rows", "columns", "")]
    for part in parts * 2:
        for moments in both:
            moments.add(part if moments.sides != "columns" else part[:, :1])
    everything = np.concatenate([part.ravel() for part in parts * 2]).astype(np.float64)
    rows = [float((part.astype(np.float64) ** 2).sum(1).max()) for part in parts]
    assert both[0].row == pytest.approx(max(rows), rel=1e-5)
    first = sum(float((part[:, 0].astype(np.float64) ** 2).sum()) for part in parts * 2)
    assert both[1].sums[1] == pytest.approx(first, rel=1e-5)
    for moments in (both[0], both[2]):
        np.testing.assert_allclose(
            moments.sums, [float((everything**k).sum()) for k in (1, 2, 3, 4)], rtol=1e-4, atol=1e-3
        )
        assert (moments.low, moments.high, moments.n) == (everything.min(), everything.max(), everything.size)
