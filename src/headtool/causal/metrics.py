"""How good predictions of tokens and numbers are, and how honest their probabilities and intervals. Nulls, never NaN."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

LEVELS = (0.5, 0.8, 0.95)
BINS = 10

Metrics = dict[str, float | None]


def tokens(label: np.ndarray, answer: np.ndarray, num: int) -> Metrics:
    """Accuracy; precision, recall and F1, each the mean over the classes weighted by how often they are the label; those
    of the number token alone. label and answer (position,) are token ids.
    """
    classes = int(max(label.max(initial=0), answer.max(initial=0), num)) + 1
    hits = np.bincount(label[label == answer], minlength=classes).astype(float)
    of_label, of_answer = (np.bincount(ids, minlength=classes).astype(float) for ids in (label, answer))
    n = len(label)
    precision = np.divide(hits, of_answer, out=np.zeros(classes), where=of_answer > 0)
    recall = np.divide(hits, of_label, out=np.zeros(classes), where=of_label > 0)
    f1 = np.divide(2 * hits, of_label + of_answer, out=np.zeros(classes), where=of_label + of_answer > 0)
    weighted = {"precision": precision, "recall": recall, "f1": f1}
    found: Metrics = {"accuracy": float(hits.sum() / n) if n else None}
    found |= {name: float((values * of_label).sum() / n) if n else None for name, values in weighted.items()}
    found["num_precision"] = float(precision[num]) if of_answer[num] else None
    found["num_recall"] = float(recall[num]) if of_label[num] else None
    found["num_f1"] = float(f1[num]) if of_label[num] + of_answer[num] else None
    return found


def calibration(confidence: np.ndarray, right: np.ndarray) -> Metrics:
    """ECE and MCE over ten bins of equal width, the last with confidence 1 in it, and the Brier score of the confidence.

    ECE = sum_b n_b / n |accuracy_b - confidence_b|, MCE the largest of these gaps (Naeini et al. 2015; Guo et al. 2017).
    """
    n = len(right)
    if not n:
        return dict.fromkeys(("ece", "mce", "brier"))
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    inside = counts > 0
    gaps = np.abs(np.bincount(bins, right, BINS) - np.bincount(bins, confidence, BINS))[inside] / counts[inside]
    return {
        "ece": float((gaps * counts[inside]).sum() / n), "mce": float(gaps.max()),
        "brier": float(((confidence - right) ** 2).mean()),
    }  # fmt: skip


def errors(value: np.ndarray, point: np.ndarray) -> Metrics:
    """Errors of point predictions. MAPE is over values other than 0; R2 is null where the values are all the same."""
    names = ("mae", "mdae", "mse", "rmse", "mape", "r2")
    if not len(value):
        return dict.fromkeys(names)
    away = np.abs(value - point)
    with np.errstate(over="ignore"):  # what overflows is null
        mse = float((away**2).mean())
        spread = float(((value - value.mean()) ** 2).mean())
    some = value != 0
    found = (
        float(away.mean()), float(np.median(away)), mse, math.sqrt(mse),
        float((away[some] / np.abs(value[some])).mean()) if some.any() else None,
        1 - mse / spread if 0 < spread < math.inf else None,
    )  # fmt: skip
    return dict(zip(names, (_finite(f) for f in found), strict=True))


def intervals(value: np.ndarray, low: Mapping[float, np.ndarray], high: Mapping[float, np.ndarray]) -> Metrics:
    """Of the central interval of each level: the share of values inside (PICP), the mean and median width, and the mean
    pinball loss of its two ends, the quantiles (1 - level) / 2 and (1 + level) / 2.
    """
    found: Metrics = {}
    for level in LEVELS:
        name = f"{100 * level:.0f}"
        if not len(value):
            found |= dict.fromkeys((f"picp_{name}", f"width_{name}", f"width_median_{name}", f"pinball_{name}"))
            continue
        a, b = low[level], high[level]
        found[f"picp_{name}"] = float(((a <= value) & (value <= b)).mean())
        found[f"width_{name}"] = _finite(float((b - a).mean()))
        found[f"width_median_{name}"] = _finite(float(np.median(b - a)))
        ends = [pinball(value, end, q) for end, q in ((a, (1 - level) / 2), (b, (1 + level) / 2))]
        found[f"pinball_{name}"] = _finite(float(np.mean(ends)))
    return found


def pinball(value: np.ndarray, quantile: np.ndarray, q: float) -> float:
    """The mean of max(q (v - x), (q - 1) (v - x)): least where x is the q quantile."""
    away = value - quantile
    return float(np.maximum(q * away, (q - 1) * away).mean())


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    """Spearman's rank correlation; null for fewer than 3 pairs or a constant side."""
    from scipy.stats import rankdata

    if len(a) < 3:
        return None
    ranks = [rankdata(x) - (len(x) + 1) / 2 for x in (a, b)]
    size = float(np.sqrt((ranks[0] ** 2).sum() * (ranks[1] ** 2).sum()))
    return float((ranks[0] * ranks[1]).sum()) / size if size > 0 else None


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
