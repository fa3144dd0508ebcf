"""How sure a ranking of heads is: bootstrap intervals, p-values, ranks that are settled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from headtool.scores.adaptive import LEVEL, Estimate

REPLICATES = 1000  # bootstrap samples
CHUNK = 256  # examples whose weights are drawn at a time


@dataclass(frozen=True)
class Certainty:
    """Of a mean over examples, (layer, head) each: itself, standard error, 95% interval, p-value of zero, whether it
    differs from zero, its rank among all heads with that rank's interval, and how often it is among the top k.
    """

    mean: np.ndarray
    se: np.ndarray | None
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray | None
    differs: np.ndarray | None
    rank: np.ndarray
    rank_low: np.ndarray
    rank_high: np.ndarray
    top_k_share: np.ndarray


def certainty(effects: np.ndarray, top_k: int, seed: int) -> Certainty:
    """The certainty of the means of effects (layer, head, example) float64.

    Interval, rank interval and share are from 1,000 bootstrap samples of the examples, in which each is drawn Poisson(1)
    times; p is of the paired t-test, and differs is Holm's correction of it over all heads, at 5%.
    """
    n = effects.shape[-1]
    se = effects.std(-1, ddof=1) / np.sqrt(n) if n > 1 else None
    return judged(effects.mean(-1), se, np.array(n), bootstrap_means(effects, seed), top_k)


def judged(mean: np.ndarray, se: np.ndarray | None, n: np.ndarray, samples: np.ndarray, top_k: int) -> Certainty:
    """The certainty of means (layer, head), from their standard errors over n examples and their bootstrap samples
    (sample, layer, head).
    """
    low, high = np.percentile(samples, [50 - 50 * LEVEL, 50 + 50 * LEVEL], axis=0)
    flat = samples.reshape(len(samples), -1)
    ranks = np.argsort(np.argsort(-flat, axis=1, kind="stable"), axis=1) + 1
    rank_low, rank_high = np.percentile(ranks, [50 - 50 * LEVEL, 50 + 50 * LEVEL], axis=0, method="nearest")
    share = (ranks <= min(top_k, flat.shape[1])).mean(0)
    rank = np.argsort(np.argsort(-mean.ravel(), kind="stable")) + 1
    p = differs = None
    if se is not None:
        p = p_of_zero(mean, se, n)
        differs = holm(p.ravel()).reshape(mean.shape)
    shaped = (x.reshape(mean.shape) for x in (rank, rank_low, rank_high, share))
    return Certainty(mean, se, low, high, p, differs, *shaped)


def bootstrap_means(effects: np.ndarray, seed: int) -> np.ndarray:
    """Bootstrap samples (sample, layer, head) of the means of effects (layer, head, example)."""
    total, drawn = np.zeros((REPLICATES, *effects.shape[:-1])), np.zeros(REPLICATES)
    rng = np.random.default_rng(seed)
    for start in range(0, effects.shape[-1], CHUNK):
        part = effects[..., start : start + CHUNK]
        weight = rng.poisson(1.0, (REPLICATES, part.shape[-1])).astype(np.float64)
        total += np.tensordot(weight, part, (1, 2))
        drawn += weight.sum(1)
    kept = drawn > 0
    return total[kept] / drawn[kept, None, None]


def bootstrap_estimates(found: Estimate, first: np.ndarray, seed: int) -> np.ndarray:
    """Bootstrap samples (sample, layer, head) of estimates from first-order effects of all examples (layer, head,
    example) and exact ones of some: of their two means, over the same drawn examples.
    """
    shape = (REPLICATES, *found.I.shape)
    fitted, drawn = np.zeros(shape), np.zeros((REPLICATES, 1, 1))
    rest, drawn_exact = np.zeros(shape), np.zeros(shape)
    known = np.isfinite(found.residual)
    residual = np.where(known, found.residual, 0.0)
    rng = np.random.default_rng(seed)
    for start in range(0, first.shape[-1], CHUNK):
        some = slice(start, start + CHUNK)
        weight = rng.poisson(1.0, (REPLICATES, first[..., some].shape[-1])).astype(np.float64)
        fitted += np.tensordot(weight, first[..., some], (1, 2)) * found.slope
        rest += np.tensordot(weight, residual[..., some], (1, 2))
        drawn_exact += np.tensordot(weight, known[..., some].astype(np.float64), (1, 2))
        drawn += weight.sum(1)[:, None, None]
    samples = fitted / np.maximum(drawn, 1) + rest / np.maximum(drawn_exact, 1)
    centre = found.slope * first.mean(-1) + residual.sum(-1) / known.sum(-1)
    return samples + (found.I - centre)


def p_of_zero(mean: np.ndarray, se: np.ndarray, n: np.ndarray | int) -> np.ndarray:
    """The two-sided p-value of the t-test that a mean of n is zero; 1 where all n are zero."""
    t = np.divide(np.abs(mean), se, out=np.where(mean == 0, 0.0, np.inf), where=se > 0)
    return 2 * stats.t.sf(t, np.maximum(n - 1, 1))


def holm(p: np.ndarray, level: float = 1 - LEVEL) -> np.ndarray:
    """Which of m hypotheses are rejected so that with probability 1 - level none is wrongly (Holm 1979)."""
    order = np.argsort(p, kind="stable")
    passed = p[order] <= level / np.arange(len(p), 0, -1)
    rejected = np.zeros(len(p), bool)
    rejected[order[: len(p) if passed.all() else int(np.argmin(passed))]] = True
    return rejected
