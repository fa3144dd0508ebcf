"""Ranks, fusion and normalisation, against hand-made cases."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from headtool.scores.combined import combined, normalise

WEIGHTS = {"out": 1.0, "ent": 0.5, "task": 1.0}


def test_ties_share_their_rank():
    one = combined({"out": np.array([[3.0, 1.0, 1.0, 2.0]])}, WEIGHTS, "layer")
    assert one.tolist() == [[3.0, 0.5, 0.5, 2.0]]


def test_weights_and_layers():
    scores = {"out": np.array([[1.0, 2.0], [9.0, 8.0]]), "ent": np.array([[5.0, 4.0], [5.0, 6.0]])}
    assert combined(scores, WEIGHTS, "layer").tolist() == [[0.5, 1.0], [1.0, 0.5]]
    assert combined(scores, WEIGHTS, "global").tolist() == [[0 + 0.75, 1 + 0.0], [3 + 0.75, 2 + 1.5]]


def test_percentile_and_zscore():
    values = np.array([[1.0, 2.0, 2.0, 5.0], [7.0, 7.0, 7.0, 7.0]])
    assert normalise(values, "percentile").tolist() == [[0.25, 0.625, 0.625, 1.0], [0.625] * 4]
    z = normalise(values, "zscore")
    np.testing.assert_allclose(z[0], (values[0] - 2.5) / np.sqrt(2.25))
    assert z[1].tolist() == [0.0] * 4  # a flat layer has no z-scores


@given(arrays(np.float64, (3, 7), elements=st.floats(-1e6, 1e6)))
def test_the_ranks_of_a_layer_sum_to_the_same(values):
    ranks = combined({"out": values}, WEIGHTS, "layer")
    assert ranks.sum(-1) == pytest.approx([21.0] * 3)
    assert (normalise(values, "percentile") > 0).all()
