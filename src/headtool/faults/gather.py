"""From the arrays of parts to the columns of the tables trials, summary, detectors and bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from headtool.faults import bits
from headtool.faults.calibration import ROW, Seen
from headtool.faults.fault import BY_KEY, Fault
from headtool.faults.intervals import clustered, upper
from headtool.faults.trial import OUTCOMES
from headtool.faults.work import BOUND, Arrays

INFINITE = 1e308  # what a ratio that has no number is written as
Columns = dict[str, list[Any]]


@dataclass(frozen=True)
class Gathered:
    """All trials of a run: faults, and arrays (trial, ...) of what they did; harmful counts what is not finite too."""

    faults: Sequence[Fault]
    arrays: Arrays
    outcome: np.ndarray  # place in OUTCOMES
    detectors: tuple[str, ...]

    @property
    def harmful(self) -> np.ndarray:
        return self.outcome >= OUTCOMES.index("harmful")

    @property
    def element(self) -> np.ndarray:
        """(trial,) the number of the element that each trial hits: the bits of one element are a cluster."""
        known: dict[Any, int] = {}
        return np.array([known.setdefault(fault.element, len(known)) for fault in self.faults])

    def alarms(self) -> dict[str, np.ndarray]:
        """(trial,) bool a detector, and 'all' for any of them; of the softmax bounds under their own name."""
        found: dict[str, np.ndarray] = {}
        if "ratios" in self.arrays and self.detectors:
            found = {name: self.arrays["ratios"][:, i] > 1 for i, name in enumerate(self.detectors)}
            found = {"all": np.logical_or.reduce(list(found.values()))} | found
        return found


def gather(
    faults: Sequence[Fault],
    parts: Sequence[tuple[Sequence[int], Arrays]],
    detectors: Sequence[str],
    harm: float,
    harm_floor: float,
) -> Gathered:
    """Put parts (places of their faults, arrays) together in the order of the faults.

    A finite change of the loss is harmful above both harm, a share of the loss, and harm_floor, in nats.
    """
    order = np.argsort(np.concatenate([np.asarray(places, int) for places, _ in parts]), kind="stable")
    arrays = {name: np.concatenate([a[name] for _, a in parts])[order] for name in parts[0][1]}
    base = arrays["loss_base"]
    if "after" in arrays:  # backward: what the training came to
        with np.errstate(invalid="ignore"):
            diff = arrays["after"][:, -1] - arrays["clean"][:, -1]
        arrays["nonfinite"] = ~np.isfinite(arrays["after"][:, -1])
        base = arrays["clean"][:, -1]
        arrays["loss_diff"] = diff
    diff, nonfinite = arrays["loss_diff"], arrays["nonfinite"]
    with np.errstate(invalid="ignore"):
        outcome = np.where(diff == 0, 0, np.where(np.abs(diff) > np.maximum(harm * np.abs(base), harm_floor), 2, 1))
    return Gathered(faults, arrays, np.where(nonfinite, 3, outcome), tuple(detectors))


def trials(found: Gathered, dtype: torch.dtype, marks: Sequence[int]) -> Columns:
    """The columns of the table trials."""
    a, faults = found.arrays, found.faults
    digits = bits.bits_of(dtype) // 4
    made: Columns = {
        name: [getattr(fault, name) for fault in faults]
        for name in ("phase", "layer", "head", "site", "sequence", "row", "column", "pattern", "bit", "seed")
    }
    made["fault_id"] = [fault.id for fault in faults]
    made["hit"] = [fault.width for fault in faults]
    made["field"] = [None if fault.bit < 0 else bits.field(fault.bit, dtype) for fault in faults]
    for name, value in (("before", "before"), ("after", "after_value")):
        made[name] = _numbers(a[value])
        made[f"{name}_bits"] = [f"{int(pattern):0{digits}x}" for pattern in a[f"{name}_bits"]]
    made["loss_base"] = _numbers(a["loss_base"])
    base, after = a["loss_base"], None
    lost = a["nonfinite"]
    if "after" in a:
        base, after = a["clean"][:, -1], a["after"][:, -1]
        made |= {"grad_norm_ratio": _numbers(a["norm_ratio"]), "grad_rel_error": _numbers(a["rel_error"])}
        for i, step in enumerate(marks):
            made[f"loss_after_{step}"], made[f"clean_after_{step}"] = (
                _numbers(a["after"][:, i]),
                _numbers(a["clean"][:, i]),
            )
    else:
        after = base + a["loss_diff"]
        made["masked"] = a["masked"].tolist()
        for name in ("logit_max_abs", "logit_kl", "top1_changed"):
            made[name] = _numbers(np.where(lost, np.nan, a[name]))
    made["loss_injected"] = _numbers(np.where(lost, np.nan, after))
    made["loss_diff"] = _numbers(np.where(lost, np.nan, a["loss_diff"]))
    with np.errstate(divide="ignore", invalid="ignore"):
        made["loss_rel"] = _numbers(np.where(lost, np.nan, a["loss_diff"] / np.abs(base)))
    made["nonfinite"] = lost.tolist()
    made["outcome"] = [OUTCOMES[i] for i in found.outcome]
    alarms = found.alarms()
    if alarms:
        each = {name: alarm for name, alarm in alarms.items() if name != "all"}
        made["detected"] = alarms["all"].tolist()
        made["detected_by"] = [" ".join(n for n, alarm in each.items() if alarm[i]) for i in range(len(faults))]
        made["corrected"] = [None if c < 0 else bool(c) for c in a["corrected"]]
        for i, name in enumerate(found.detectors):
            made[f"{name}_ratio"] = np.nan_to_num(a["ratios"][:, i], nan=INFINITE, posinf=INFINITE).tolist()
    violated = violations(found)
    if violated is not None:
        made["bounds_violated"] = violated.tolist()
    return made


def violations(found: Gathered) -> np.ndarray | None:
    """(trial,) bool: was a softmax bound violated? None where bounds were not asked for."""
    if "bounds" not in found.arrays:
        return None
    margin = found.arrays["bounds"][:, BOUND.index("margin")]
    return None if bool(np.isnan(margin).all()) else margin < 0


def summary(found: Gathered) -> Columns:
    """The columns of the table summary: rates by site, layer and bit, and by each of them alone."""
    faults, harmful, element = found.faults, found.harmful, found.element
    caught = found.alarms().get("all")
    site = np.array([fault.site for fault in faults])
    layer = np.array([fault.layer for fault in faults])
    bit = np.array([fault.bit for fault in faults])
    cells = {("all", -1, -1): np.ones(len(faults), bool)}
    for name in dict.fromkeys(site.tolist()):
        of = site == name
        cells[name, -1, -1] = of
        cells |= {(name, int(i), -1): of & (layer == i) for i in np.unique(layer[of])}
        cells |= {(name, -1, int(b)): of & (bit == b) for b in np.unique(bit[of]) if b >= 0}
    cells |= {("all", -1, int(b)): bit == b for b in np.unique(bit) if b >= 0}
    hidden = found.arrays.get("masked", np.zeros(len(faults), bool))
    for name in BY_KEY:
        for told, of in ((f"{name}:hidden", hidden & (site == name)), (f"{name}:visible", ~hidden & (site == name))):
            if hidden[site == name].any() and of.any():
                cells[told, -1, -1] = of
                cells |= {(told, -1, int(b)): of & (bit == b) for b in np.unique(bit[of]) if b >= 0}
    made: Columns = {}
    for (name, at, number), of in cells.items():
        n, bad = int(of.sum()), int((harmful & of).sum())
        low, high = clustered(harmful, element, of=of)
        row: dict[str, Any] = {
            "site": name, "layer": at, "bit": number, "n": n, "elements": len(np.unique(element[of])), "harmful": bad,
            "harmful_rate": bad / n, "harmful_low": low, "harmful_high": high,
            "nonfinite": int((found.arrays["nonfinite"] & of).sum()),
        }  # fmt: skip
        if caught is not None:
            row |= _caught(caught, harmful, element, of) | {"needless": int((caught & ~harmful & of).sum())}
        for column, value in row.items():
            made.setdefault(column, []).append(value)
    return made


def detectors(found: Gathered, clean: Mapping[str, np.ndarray], bounds: str | None) -> Columns:
    """The columns of the table detectors. clean: detector -> (sequence, layer) bool alarms on clean data; bounds is what
    the softmax bounds are called.
    """
    alarms = found.alarms()
    violated = violations(found)
    if violated is not None and bounds is not None:
        alarms[bounds] = violated
    made: Columns = {}
    for name, alarm in alarms.items():
        row = {"detector": name, "harmful": int(found.harmful.sum()), "harmless": int((~found.harmful).sum())}
        row |= _caught(alarm, found.harmful, found.element, np.ones(len(alarm), bool))
        row["needless"] = int((alarm & ~found.harmful).sum())
        seen = clean[name]
        row |= {"clean": seen.size, "false_positives": int(seen.sum())}
        row["false_positive_high"] = upper(int(seen.sum()), seen.size)
        flagged = int(seen.any(1).sum())
        row |= {"clean_sequences": len(seen), "flagged_sequences": flagged, "flagged_high": upper(flagged, len(seen))}
        for column, value in row.items():
            made.setdefault(column, []).append(value)
    return made


def _caught(alarm: np.ndarray, harmful: np.ndarray, element: np.ndarray, of: np.ndarray) -> dict[str, Any]:
    bad = harmful & of
    if not bad.any():
        return {"caught": 0, "caught_rate": None, "caught_low": None, "caught_high": None}
    low, high = clustered(alarm, element, of=bad)
    hits = int((alarm & bad).sum())
    return {"caught": hits, "caught_rate": hits / int(bad.sum()), "caught_low": low, "caught_high": high}


def bounds(found: Gathered | None, clean: Mapping[int, Seen], reference: str, method: str) -> Columns:
    """The columns of the table bounds: one drawn row a head of every clean sequence, the critical row of every fault."""
    made: Columns = {name: [] for name in ("kind", "fault_id", "sequence", "layer", "head", "row")}
    numbers: list[np.ndarray] = []
    for sequence, seen in clean.items():
        layers, heads = seen.row.shape
        numbers.append(seen.rows.reshape(-1, len(ROW)))
        made["kind"] += ["clean"] * layers * heads
        made["fault_id"] += [None] * layers * heads
        made["sequence"] += [sequence] * layers * heads
        made["layer"] += np.repeat(np.arange(layers), heads).tolist()
        made["head"] += np.tile(np.arange(heads), layers).tolist()
        made["row"] += seen.row.ravel().tolist()
    if found is not None:
        hit = found.arrays["bounds"]
        numbers.append(hit[:, 2 : 2 + len(ROW)])
        made["kind"] += ["injected"] * len(hit)
        made["fault_id"] += [fault.id for fault in found.faults]
        made["sequence"] += [fault.sequence for fault in found.faults]
        made["layer"] += [fault.layer for fault in found.faults]
        made["head"] += hit[:, 0].astype(int).tolist()
        made["row"] += hit[:, 1].astype(int).tolist()
    table = np.concatenate(numbers)
    some = table[:, 0] >= 2  # a row with one visible key has no bounds
    made = {name: [value for value, keep in zip(values, some, strict=True) if keep] for name, values in made.items()}
    table = table[some]
    made["n_keys"] = table[:, 0].astype(int).tolist()
    for i, name in enumerate(ROW[1:], 1):
        made[name] = _numbers(table[:, i])
    made["violated"] = (table[:, -1] < 0).tolist()
    if found is not None:
        before = np.full(len(some), np.nan)
        before[len(some) - len(found.faults) :] = found.arrays["bounds"][:, BOUND.index("margin_clean")]
        made["margin_clean"] = _numbers(before[some])
    made |= {"reference": [reference] * len(table), "method": [method] * len(table)}
    return made


def _numbers(values: np.ndarray) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]
