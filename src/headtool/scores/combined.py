"""Combined rank: output norm, concentration and task attention fused by their ranks; and normalisation by layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from scipy.stats import rankdata

NAMES = ("combined",)
NEEDS = "scores"  # computed from the other scores, not from the model
PARTS = ("out", "ent", "task")
FLAT = 1e-9  # a layer whose standard deviation is below this has no z-scores to speak of


def combined(
    scores: Mapping[str, np.ndarray], weights: Mapping[str, float], scope: Literal["layer", "global"]
) -> np.ndarray:
    """The weighted sum of ranks: (..., layer, head) for scores of that shape.

    combined = sum_s weight_s r(s), r the average rank among the heads of the layer (or of the model), ascending from
    0, ties sharing theirs. A score that is missing from scores takes no part.
    """
    return sum(weights[name] * _rank(values, scope) for name, values in scores.items())  # type: ignore[return-value]


def normalise(values: np.ndarray, how: Literal["zscore", "percentile"]) -> np.ndarray:
    """Normalise over the heads of each layer, (layer, head).

    zscore: (x - mean) / population standard deviation, 0 where that is below 1e-9. percentile: average rank / heads,
    in (0, 1].
    """
    if how == "percentile":
        return rankdata(values, axis=-1) / values.shape[-1]
    centred = values - values.mean(-1, keepdims=True)
    spread = values.std(-1, keepdims=True)
    return np.where(spread < FLAT, 0.0, centred / np.where(spread < FLAT, 1.0, spread))


def _rank(values: np.ndarray, scope: str) -> np.ndarray:
    if scope == "global":
        return (rankdata(values.reshape(*values.shape[:-2], -1), axis=-1) - 1).reshape(values.shape)
    return rankdata(values, axis=-1) - 1
