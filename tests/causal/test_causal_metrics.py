"""Metrics on cases made by hand, and against the plain loop."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from headtool.causal import metrics

NUM = 4


def test_token_metrics_are_the_loop_over_classes():
    rng = np.random.default_rng(0)
    label, answer = rng.integers(0, 6, 200), rng.integers(0, 6, 200)
    found = metrics.tokens(label, answer, NUM)
    assert found["accuracy"] == (label == answer).mean()
    expected = {"precision": 0.0, "recall": 0.0, "f1": 0.0}
    for k in range(6):
        true = ((label == k) & (answer == k)).sum()
        precision, recall = true / (answer == k).sum(), true / (label == k).sum()
        f1 = 2 * precision * recall / (precision + recall)
        for name, value in zip(expected, (precision, recall, f1), strict=True):
            expected[name] += value * (label == k).mean()
        if k == NUM:
            assert (found["num_precision"], found["num_recall"]) == pytest.approx((precision, recall))
            assert found["num_f1"] == pytest.approx(f1)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value)


def test_no_number_among_the_tokens_is_null():
    found = metrics.tokens(np.array([0, 1]), np.array([0, 0]), NUM)
    assert found["accuracy"] == 0.5
    assert [found[f"num_{name}"] for name in ("precision", "recall", "f1")] == [None] * 3
    missed = metrics.tokens(np.array([NUM, 1]), np.array([0, 0]), NUM)
    assert (missed["num_precision"], missed["num_recall"], missed["num_f1"]) == (None, 0.0, 0.0)
    assert set(metrics.tokens(np.array([], int), np.array([], int), NUM).values()) == {None}


@pytest.mark.parametrize(
    ("confidence", "right", "ece", "mce", "brier"),
    [
        ([1.0, 1.0], [1, 1], 0, 0, 0),  # 1.0 is in the last bin
        ([1.0, 1.0], [1, 0], 0.5, 0.5, 0.5),
        ([0.0, 0.05], [0, 0], 0.025, 0.025, 0.00125),
        ([0.95, 0.95, 0.95, 0.05], [1, 1, 0, 1], 0.75 * abs(2 / 3 - 0.95) + 0.25 * 0.95, 0.95, None),
        ([0.1, 0.2], [1, 0], 0.5 * 0.9 + 0.5 * 0.2, 0.9, (0.81 + 0.04) / 2),  # an edge belongs to the bin above
    ],
)
def test_calibration_by_hand(confidence, right, ece, mce, brier):
    found = metrics.calibration(np.array(confidence), np.array(right, float))
    assert found["ece"] == pytest.approx(ece)
    assert found["mce"] == pytest.approx(mce)
    if brier is not None:
        assert found["brier"] == pytest.approx(brier)


def test_calibration_of_nothing_is_null():
    assert metrics.calibration(np.array([]), np.array([])) == {"ece": None, "mce": None, "brier": None}


def test_errors_by_hand():
    found = metrics.errors(np.array([0.0, 2.0, 4.0]), np.array([1.0, 2.0, 1.0]))
    assert found == pytest.approx(
        {"mae": 4 / 3, "mdae": 1, "mse": 10 / 3, "rmse": (10 / 3) ** 0.5, "mape": 0.375, "r2": 1 - (10 / 3) / (8 / 3)}
    )
    assert metrics.errors(np.array([3.0]), np.array([3.0]))["r2"] is None
    assert metrics.errors(np.array([0.0]), np.array([1.0]))["mape"] is None
    assert set(metrics.errors(np.array([]), np.array([])).values()) == {None}
    assert metrics.errors(np.array([1e200]), np.array([-1e200]))["mse"] is None  # no infinity in a table


def test_intervals_cover_synthetic_cauchy_data_as_they_say():
    """200,000 values of known loc and scale: PICP within four standard errors of its level, pinball least at the truth."""
    from headtool.causal import cauchy

    rng = np.random.default_rng(0)
    n = 200_000
    loc, scale = rng.normal(size=n) * 10, np.exp(rng.normal(size=n))
    value = loc + scale * stats.cauchy.rvs(size=n, random_state=rng)
    low, high = ({level: loc + sign * cauchy.half_width(level) * scale for level in metrics.LEVELS} for sign in (-1, 1))
    found = metrics.intervals(value, low, high)
    for level in metrics.LEVELS:
        assert abs(found[f"picp_{100 * level:.0f}"] - level) < 4 * (level * (1 - level) / n) ** 0.5
        assert found[f"width_{100 * level:.0f}"] == pytest.approx(2 * cauchy.half_width(level) * scale.mean())
    near = np.abs(value - loc) < 1e3 * scale  # the mean of a Cauchy does not exist
    quantile = loc + scale * stats.cauchy.ppf(0.9)
    at, below, above = (metrics.pinball(value[near], quantile[near] + d, 0.9) for d in (0, -1, 1))
    assert at < min(below, above)


def test_rank_correlation_is_scipys():
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 9, 50).astype(float), rng.normal(size=50)
    assert metrics.rank_correlation(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)
    assert metrics.rank_correlation(a, np.ones(50)) is None
    assert metrics.rank_correlation(a[:2], b[:2]) is None
