"""How good a classifier is on examples: loss, accuracy, F1, Matthews correlation, the table of confusions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import logsumexp
from scipy.stats import binomtest


def measure(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Metrics of logits (example, class) against labels (example,).

    loss: mean cross-entropy in nats; accuracy: share of largest logits at the label; each with its standard error,
    None for one example. f1_macro: mean F1 of the classes that occur in labels or answers. matthews: Gorodkin's
    correlation for any number of classes (2004, "Comparing two K-category assignments by a K-category correlation
    coefficient"), 0 where labels or answers are constant. confusion[label][answer]: counts.
    """
    logits = logits.astype(np.float64)
    each = logsumexp(logits, axis=1) - logits[np.arange(len(labels)), labels]
    answers = logits.argmax(1)
    right = (answers == labels).astype(np.float64)
    k = logits.shape[1]
    confusion = np.bincount(labels * k + answers, minlength=k * k).reshape(k, k)
    of_label, of_answer, hits = confusion.sum(1), confusion.sum(0), np.diag(confusion)
    occurs = of_label + of_answer > 0
    n = len(labels)
    spread = float(np.sqrt(np.prod([float(n) ** 2 - (of.astype(float) ** 2).sum() for of in (of_label, of_answer)])))
    covariance = float(hits.sum()) * n - float(of_label @ of_answer)
    return {
        "loss": float(each.mean()), "loss_se": _standard_error(each),
        "accuracy": float(right.mean()), "accuracy_se": _standard_error(right),
        "f1_macro": float((2 * hits[occurs] / (of_label + of_answer)[occurs]).mean()),
        "matthews": covariance / spread if spread > 0 else 0.0,
        "n": n, "confusion": confusion.tolist(),
    }  # fmt: skip


def at_chance(metrics: Mapping[str, Any]) -> str:
    """A word of warning where the answers are not right more often than the most common class alone would be (exact
    binomial test, one-sided 5%); else nothing.
    """
    confusion = np.array(metrics["confusion"])
    right, common, n = int(np.trace(confusion)), int(confusion.sum(1).max()), int(confusion.sum())
    if common < n and binomtest(right, n, common / n, alternative="greater").pvalue < 0.05:
        return ""
    return (
        f"{right:,} of {n:,} are answered right, the most common class alone is right in {common:,}: nothing shows that the "
        "model has learned the task, and importance measured on it may be noise"
    )


def _standard_error(values: np.ndarray) -> float | None:
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
