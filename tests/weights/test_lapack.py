"""The routines that are called past scipy's wrappers give what numpy gives, and let other threads run."""

from __future__ import annotations

import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headtool.weights import lapack

KINDS = (np.float32, np.float64)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(0, 40), st.booleans(), st.sampled_from(KINDS), st.integers(0, 99))
def test_a_gram_matrix_and_its_eigenvalues(side, inner, tall, kind, seed):
    rng = np.random.default_rng(seed)
    block = rng.normal(size=(inner, side) if tall else (side, inner)).astype(kind)
    total = np.asfortranarray(rng.normal(size=(side, side)).astype(kind))
    wanted = total + (block.T @ block if tall else block @ block.T)
    above = np.triu(total, 1)
    lapack.add_gram(total, block, tall)
    close = 1e-4 if kind is np.float32 else 1e-12
    np.testing.assert_allclose(np.tril(total), np.tril(wanted), rtol=close, atol=10 * close)
    np.testing.assert_array_equal(np.triu(total, 1), above)
    kept, found = total.copy(), lapack.eigenvalues(total)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(total, kept)
    symmetric = np.tril(total) + np.tril(total, -1).T
    np.testing.assert_allclose(found, np.linalg.eigvalsh(symmetric.astype(np.float64)), rtol=0, atol=50 * close)


@pytest.mark.parametrize("block", [np.ones((6, 8))[:, ::2], np.asfortranarray(np.ones((6, 4)))])
def test_any_layout_of_the_block(block):
    total = np.zeros((4, 4), order="F")
    lapack.add_gram(total, block, tall=True)
    assert np.tril(total).sum() == 6 * 10


@pytest.mark.parametrize("total", [np.zeros((4, 4), order="C")[:, ::-1], np.zeros((3, 3), order="F")])
def test_a_total_that_the_routine_would_write_past(total):
    with pytest.raises(ValueError, match="Gram matrix"):
        lapack.add_gram(total, np.ones((6, 4)), tall=True)


def test_eigenvalues_that_are_not_found():
    with pytest.raises(np.linalg.LinAlgError):
        lapack.eigenvalues(np.full((8, 8), np.nan))


@pytest.mark.parametrize("work", ["gram", "eigenvalues"])
def test_another_thread_gets_on_meanwhile(work):
    """It could not if Python's lock were held: nobody is made to hand it over here."""
    block = np.random.default_rng(0).normal(size=(1200, 900)).astype(np.float32)
    total = np.zeros((900, 900), np.float32, order="F")
    call = (lambda: lapack.add_gram(total, block, tall=True)) if work == "gram" else (lambda: lapack.eigenvalues(total))
    call()  # what is looked up once
    began, over, inside, seen = threading.Event(), threading.Event(), [False], []

    def look():
        while not over.is_set():
            seen.append(inside[0])
            began.set()
            time.sleep(1e-4)

    looker = threading.Thread(target=look)
    looker.start()
    began.wait()
    every = sys.getswitchinterval()
    sys.setswitchinterval(60)
    try:
        inside[0] = True
        until = time.monotonic() + 1
        while time.monotonic() < until:
            call()
        inside[0] = False
    finally:
        sys.setswitchinterval(every)
        over.set()
        looker.join()
    assert sum(seen) > 40
