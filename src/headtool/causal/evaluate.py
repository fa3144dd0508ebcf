"""Run a causal model over rows, and measure what it says of every token and every number."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from headtool.causal import metrics
from headtool.causal.metrics import LEVELS, Metrics
from headtool.causal.model import CausalModel, Individual
from headtool.causal.rows import Rows
from headtool.models.batches import IGNORED

SCORES = 1 << 23  # numbers of scores that are held at a time
RULES = ("ovr", "softmax")  # the most likely by P_k, and by softmax(loc)
TOKENS = 4096  # in a padded batch


@dataclass(frozen=True)
class Seen:
    """What a model said. Of each position: label (position,), and by rule the answer and its probability. Of each number
    (number,): where it stood, its value, the median and the scale said, P_<NUM>, and whether a number was the answer.
    """

    label: np.ndarray
    answer: dict[str, np.ndarray]
    confidence: dict[str, np.ndarray]
    sum_p: float | None
    loss_cls: float
    loss_reg: float
    example: np.ndarray
    position: np.ndarray
    value: np.ndarray
    median: np.ndarray
    scale: np.ndarray | None  # None in the plain model
    nll: np.ndarray | None
    p_number: np.ndarray
    answered: np.ndarray  # by the head's own rule


@torch.no_grad()
def look(model: CausalModel, rows: Rows, advance: Callable[[int], None] = lambda _: None) -> Seen:
    """Run the model over rows, in eval mode; advance hears of examples done."""
    model.eval()
    device = model.bias.device
    per_token: list[dict[str, np.ndarray]] = []
    per_number: list[dict[str, np.ndarray]] = []
    losses = {"cls": 0.0, "reg": 0.0}
    order = np.lexsort((np.arange(len(rows)), rows.lengths))
    start = 0
    while start < len(order):
        size = max(1, TOKENS // int(rows.lengths[order[min(start + TOKENS, len(order)) - 1]]))
        index = order[start : start + size]
        start += size
        given = {name: tensor.to(device) for name, tensor in rows.inputs(index).items()}
        labels, targets = given.pop("labels"), given.pop("targets")
        z = model.features(**given)
        valid = labels != IGNORED
        individual = model.abduct(z[valid])
        per_token.append(_tokens(model, individual, labels[valid], losses))
        wanted = targets[valid].isfinite()
        some = Individual(individual.loc[wanted], None if individual.spread is None else individual.spread[wanted])
        row, position = (axis[wanted].cpu().numpy() for axis in valid.nonzero(as_tuple=True))
        per_number.append(
            {"example": index[row], "position": position + 1}
            | _numbers(model, some, targets[valid][wanted], losses)
            | {"answered": per_token[-1]["answer_" + model.settings.head][wanted.cpu().numpy()] == model.num}
        )
        advance(len(index))
    t = {name: np.concatenate([part[name] for part in per_token]) for name in per_token[0]}
    n = {name: np.concatenate([part[name] for part in per_number]) for name in per_number[0]}
    by = np.lexsort((n["position"], n["example"]))
    n = {name: values[by] for name, values in n.items()}
    rules = [rule for rule in RULES if f"answer_{rule}" in t]
    return Seen(
        label=t["label"],
        answer={rule: t[f"answer_{rule}"] for rule in rules},
        confidence={rule: t[f"confidence_{rule}"] for rule in rules},
        sum_p=float(t["sum_p"].mean()) if "sum_p" in t else None,
        loss_cls=losses["cls"] / len(t["label"]),
        loss_reg=losses["reg"] / max(len(n["value"]), 1),
        scale=n.pop("scale", None),
        nll=n.pop("nll", None),
        **{name: n[name] for name in ("example", "position", "value", "median", "p_number", "answered")},
    )


def _tokens(
    model: CausalModel, individual: Individual, labels: torch.Tensor, losses: dict[str, float]
) -> dict[str, np.ndarray]:
    found: dict[str, list[torch.Tensor]] = {}
    step = max(1, SCORES // len(model.bias))
    for start in range(0, len(labels), step):
        part = slice(start, start + step)
        some = Individual(individual.loc[part], None if individual.spread is None else individual.spread[part])
        loc, spread = model.scores(some)
        best = loc.max(-1)
        told = {
            "label": labels[part],
            "answer_softmax": best.indices,
            "confidence_softmax": (best.values - loc.logsumexp(-1)).exp().clamp(max=1),
        }
        if spread is not None:
            x = loc - model.settings.threshold
            told["answer_ovr"] = model.law.standing(x, spread).argmax(-1)
            p = model.law.probability(x, spread)
            told["confidence_ovr"] = p.gather(1, told["answer_ovr"][:, None])[:, 0]
            told["sum_p"] = p.sum(-1)
        losses["cls"] += float(model.token_loss(some, labels[part]))
        for name, tensor in told.items():
            found.setdefault(name, []).append(tensor)
    return {name: torch.cat(parts).cpu().double().numpy() if parts[0].is_floating_point() else
            torch.cat(parts).cpu().numpy() for name, parts in found.items()}  # fmt: skip


def _numbers(
    model: CausalModel, some: Individual, targets: torch.Tensor, losses: dict[str, float]
) -> dict[str, np.ndarray]:
    loc, spread = model.value(some)
    losses["reg"] += float(model.number_loss(some, targets).double().sum())
    told: dict[str, Any] = {"value": targets, "median": loc, "p_number": model.is_number(some)}
    if spread is not None:
        told["scale"] = model.law.scale(spread)
        told["nll"] = model.law.nll(targets, loc.double(), spread.double())
    return {name: tensor.double().cpu().numpy() for name, tensor in told.items()}


# -- intervals ----------------------------------------------------------------------------------------------------------

Ends = tuple[dict[float, np.ndarray], dict[float, np.ndarray]]


def ends(model: CausalModel, seen: Seen, residuals: np.ndarray | None) -> Ends:
    """The lower and upper ends of the central intervals. The plain model has none of its own: it gets the quantiles of
    its absolute errors on the training rows.
    """
    low, high = {}, {}
    for level in LEVELS:
        if seen.scale is not None:
            half = model.law.half_width(level) * seen.scale
        else:
            assert residuals is not None
            half = np.full_like(seen.median, np.quantile(residuals, level)) if len(residuals) else seen.median * 0
        low[level], high[level] = seen.median - half, seen.median + half
    return low, high


def always(values: np.ndarray, n: int) -> tuple[np.ndarray, Ends]:
    """The baseline that reads nothing: the median of the training values, and their central intervals."""
    low = {level: np.full(n, np.quantile(values, (1 - level) / 2)) for level in LEVELS}
    high = {level: np.full(n, np.quantile(values, (1 + level) / 2)) for level in LEVELS}
    return np.full(n, np.median(values)), (low, high)


# -- everything of one data set ------------------------------------------------------------------------------------------


def measure(model: CausalModel, seen: Seen, residuals: np.ndarray | None) -> Metrics:
    """Every metric by its name: of tokens with the rule's name at the end, of true positives with _tp."""
    found: Metrics = {
        "loss": seen.loss_cls + model.settings.reg_weight * seen.loss_reg, "loss_cls": seen.loss_cls,
        "loss_reg": seen.loss_reg, "sum_p": seen.sum_p, "positions": float(len(seen.label)),
    }  # fmt: skip
    for rule, answer in seen.answer.items():
        each = metrics.tokens(seen.label, answer, model.num)
        each |= metrics.calibration(seen.confidence[rule], (answer == seen.label).astype(float))
        found |= {f"{name}_{rule}": value for name, value in each.items()}
    low, high = ends(model, seen, residuals)
    found |= numbers(seen.value, seen.median, low, high)
    hit = seen.answered
    found |= {f"{name}_tp": value for name, value in metrics.errors(seen.value[hit], seen.median[hit]).items()}
    found["numbers_tp"] = float(hit.sum())
    if seen.scale is not None and seen.nll is not None:
        found["nll"] = float(seen.nll.mean()) if len(seen.nll) else None
        found["uncertainty_error"] = metrics.rank_correlation(seen.scale, np.abs(seen.value - seen.median))
    elif residuals is not None and len(residuals) and residuals.mean() > 0 and len(seen.value):
        b = float(residuals.mean())  # Laplace, as L1 has it
        found["nll"] = math.log(2 * b) + float(np.abs(seen.value - seen.median).mean()) / b
    return found


def numbers(
    value: np.ndarray, point: np.ndarray, low: dict[float, np.ndarray], high: dict[float, np.ndarray]
) -> Metrics:
    """The metrics that need no more than numbers, their predictions and intervals."""
    return metrics.errors(value, point) | metrics.intervals(value, low, high) | {"numbers": float(len(value))}
