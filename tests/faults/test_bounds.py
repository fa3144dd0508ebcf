"""The softmax bounds hold for any scores, masks and lengths; and the ways to epsilon agree."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import lambertw

from headtool.faults import bounds
from headtool.models.sites import Sites


def rows(scores, visible, k=None, scaling=1.0, sinks=None):
    """Sites of one head whose weights are the softmax of the visible scores, in float64."""
    hidden = scores.masked_fill(~visible, torch.finfo(scores.dtype).min)
    columns = hidden if sinks is None else torch.cat([hidden, sinks.view(1, -1, 1, 1).expand(*hidden.shape[:3], 1)], -1)
    weights = columns.softmax(-1)[..., : scores.shape[-1]]
    dim = 3 if k is None else k.shape[-1]
    q = torch.zeros(*scores.shape[:3], dim, dtype=scores.dtype)
    v = torch.zeros(*scores.shape[:2], scores.shape[-1], dim, dtype=scores.dtype) if k is None else k
    return Sites(q, v, v, hidden, weights, weights @ v, visible, scaling, sinks)


@settings(max_examples=250, deadline=None)
@given(
    n=st.integers(2, 200),
    seed=st.integers(0, 2**32 - 1),
    size=st.sampled_from([1e-6, 1e-2, 1.0, 30.0, 700.0, 1e5]),
    shape=st.sampled_from(["normal", "ties", "one high", "one low"]),
    hidden=st.floats(0, 0.9),
)
def test_no_clean_row_is_outside(n, seed, size, shape, hidden):
    """Random scores of any size, ties, masks and padding: lower1 <= middle <= epsilon <= upper in float64."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(8, n)) * size
    if shape == "ties":
        scores = np.round(rng.normal(size=(8, n))) * size
    elif shape == "one high":
        scores[:, rng.integers(n)] += 50 * size
    elif shape == "one low":
        scores[:, rng.integers(n)] -= 50 * size
    visible = rng.random((8, n)) >= hidden
    visible[:, :2] = True  # two keys at least
    visible[0] = False  # a padded row
    visible[1] = np.arange(n) == 0  # a row with one key
    found = bounds.of_sites(rows(torch.from_numpy(scores)[None, None], torch.from_numpy(visible)[None, None]))
    assert torch.isnan(found.margin[0, 0, :2]).all()
    for row in range(2, 8):
        lower1, middle, epsilon, upper1, upper2 = (
            float(getattr(found, name)[0, 0, row]) for name in ("lower1", "middle", "epsilon", "upper1", "upper2")
        )
        upper = min(upper1, upper2)
        close = 1e-11 * max(1.0, float(np.abs(scores[row]).max()))
        assert lower1 <= middle + close
        assert middle <= epsilon + close
        assert epsilon <= upper + close
        assert found.margin[0, 0, row] >= 0
        a = scores[row][visible[row]]
        w = np.exp(a - a.max()) / np.exp(a - a.max()).sum()
        assert epsilon == pytest.approx(a.max() - w @ a, rel=1e-9, abs=close)


def test_the_closed_forms_in_a_plain_loop():
    a = np.array([2.0, 1.5, -0.3, -4.0, 0.1])
    found = bounds.of_sites(
        rows(torch.from_numpy(a)[None, None, None], torch.ones(1, 1, 1, 5, dtype=torch.bool), scaling=0.5)
    )
    gamma, n = 0.5, 5
    w = np.exp(a) / np.exp(a).sum()
    assert found.lower1.item() == pytest.approx(gamma / (1 + np.exp(gamma)) / 0.5)
    assert found.middle.item() == pytest.approx(gamma * (1 - w.max()) / 0.5)
    assert found.upper1.item() == pytest.approx((2.0 - a.mean()) / 0.5)
    big = float(np.real(lambertw((n - 1) / np.e)))
    assert found.upper2.item() == pytest.approx(big / 0.5)  # gamma < W + 1
    assert found.n.item() == 5


def test_a_sink_counts_as_one_more_key():
    """The bounds of a row with a sink are those of the row with the sink's logit as a key."""
    torch.manual_seed(0)
    scores, sink = torch.randn(1, 2, 3, 6, dtype=torch.float64) * 3, torch.tensor([0.7, 4.0], dtype=torch.float64)
    visible = torch.ones(1, 1, 3, 6, dtype=torch.bool)
    ours = bounds.of_sites(rows(scores, visible, sinks=sink))
    wide = torch.cat([scores, sink.view(1, 2, 1, 1).expand(1, 2, 3, 1)], -1)
    theirs = bounds.of_sites(rows(wide, torch.ones(1, 1, 3, 7, dtype=torch.bool)))
    for name in ("n", "epsilon", "lower1", "middle", "upper1", "upper2"):
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name))


def test_where_keys_are_values_epsilon_is_in_the_output_too():
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 5, 4, dtype=torch.float64), torch.randn(2, 1, 5, 4, dtype=torch.float64)
    visible = torch.tril(torch.ones(5, 5, dtype=torch.bool))[None, None]
    made = rows(q @ k.transpose(-1, -2) * 0.5, visible, k=k, scaling=0.5)
    seen = Sites(q, k, k, made.scores, made.weights, made.out, visible, 0.5)
    by = {method: bounds.of_sites(seen, method) for method in bounds.METHODS}
    torch.testing.assert_close(by["s@w"].epsilon, by["q@o"].epsilon, equal_nan=True)
    assert (by["comb"].margin[..., 1:] >= 0).all()
    spoiled = Sites(q, k, k, made.scores, made.weights, made.out + 5, visible, 0.5)
    worse = bounds.of_sites(spoiled, "comb").margin
    torch.testing.assert_close(
        worse, torch.minimum(bounds.of_sites(spoiled, "q@o").margin, by["s@w"].margin), equal_nan=True
    )
    assert (worse[..., 1:] < 0).any()
    lost = made.out.clone()
    lost[0, 0, 3, 1] = torch.nan
    assert bounds.of_sites(Sites(q, k, k, made.scores, made.weights, lost, visible, 0.5), "comb").margin[0, 0, 3] < 0


def test_self_bounds_cannot_see_scores_and_golden_ones_can():
    torch.manual_seed(0)
    scores, visible = torch.randn(1, 1, 1, 9, dtype=torch.float64), torch.ones(1, 1, 1, 9, dtype=torch.bool)
    clean = rows(scores, visible)
    moved = scores.clone()
    moved[..., 3] = 40.0
    faulty = rows(moved, visible)
    assert (bounds.of_sites(faulty).margin >= 0).all()
    lowered = scores.clone()
    lowered[..., 3] = -1e4
    spread = Sites(
        *(getattr(clean, x) for x in ("q", "k", "v")),
        clean.scores,
        torch.full_like(clean.weights, 1.0),
        clean.out,
        visible,
        1.0,
    )
    assert (bounds.of_sites(spread).margin < 0).all()
    assert (bounds.of_sites(rows(lowered * 3, visible), golden=clean).margin < 0).all()
