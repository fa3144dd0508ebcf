"""Metrics against their plain definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from headtool.training.metrics import at_chance, measure


@pytest.mark.parametrize("k", [2, 5])
def test_metrics_are_what_their_definitions_say(k):
    rng = np.random.default_rng(k)
    logits, labels = rng.normal(size=(60, k)).astype(np.float32), rng.integers(0, k, 60)
    found = measure(logits, labels)
    each = torch.nn.functional.cross_entropy(torch.tensor(logits).double(), torch.tensor(labels), reduction="none")
    assert found["loss"] == pytest.approx(each.mean().item())
    assert found["loss_se"] == pytest.approx((each.std() / 60**0.5).item())
    answers = logits.argmax(1)
    assert found["accuracy"] == (answers == labels).mean()
    f1 = []
    for c in range(k):
        hit, said, true = ((answers == c) & (labels == c)).sum(), (answers == c).sum(), (labels == c).sum()
        f1.append(2 * hit / (said + true))
    assert found["f1_macro"] == pytest.approx(np.mean(f1))
    x, y = np.eye(k)[labels], np.eye(k)[answers]  # R_k as a ratio of covariances
    cov = lambda a, b: ((a - a.mean(0)) * (b - b.mean(0))).sum()  # noqa: E731
    assert found["matthews"] == pytest.approx(cov(x, y) / np.sqrt(cov(x, x) * cov(y, y)))
    assert np.sum(found["confusion"]) == found["n"] == 60


def test_one_example_and_one_answer():
    found = measure(np.array([[2.0, 1.0]]), np.array([0]))
    assert (found["loss_se"], found["accuracy_se"], found["accuracy"], found["matthews"]) == (None, None, 1.0, 0.0)


@pytest.mark.parametrize(
    ("confusion", "chance"),
    [
        ([[50, 0], [50, 0]], True),  # one answer
        ([[30, 20], [22, 28]], True),  # 58 of 100: p = 0.07
        ([[30, 20], [21, 29]], False),  # 59: 0.044
        ([[40, 10], [15, 35]], False),
        ([[80, 0], [20, 0]], True),  # 80 right, and no better than the common class
        ([[80, 0], [12, 8]], False),
        ([[9, 0], [0, 0]], True),  # one class, from which nothing can be told
    ],
)
def test_what_chance_would_have_reached(confusion, chance):
    """Against the sum of binomial probabilities."""
    told = at_chance({"confusion": confusion})
    right, n = confusion[0][0] + confusion[1][1], sum(map(sum, confusion))
    common = max(map(sum, confusion)) / n
    tail = sum(math.comb(n, k) * common**k * (1 - common) ** (n - k) for k in range(right, n + 1))
    assert bool(told) == chance == (tail >= 0.05)
