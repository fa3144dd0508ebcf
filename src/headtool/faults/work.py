"""Trials as work: a part is some faults of one sequence, or some of the training batch, and what they did, as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from headtool.errors import FAILED, HeadtoolError
from headtool.faults import trial
from headtool.faults.backward import Training, plain
from headtool.faults.fault import Fault
from headtool.models.suffix import Suffix, resumable

if TYPE_CHECKING:
    from headtool.faults.sequences import Sequences
    from headtool.models.adapter import Adapter

BOUND = ("head", "row", "n", "epsilon", "lower1", "middle", "upper1", "upper2", "margin", "margin_clean")
# How far a change of the loss may be from the naive way's: of 1 + the loss, and of the change. In half precision one
# rounding that falls the other way goes through the whole model: 0.06 nats were seen in bf16, near a loss of 0.01.
CLOSE = {torch.float64: 1e-9, torch.float32: 1e-5, torch.float16: 2e-2, torch.bfloat16: 1e-1}
CLOSE_CHANGE = 0.02
Arrays = dict[str, np.ndarray]


@dataclass
class Forward:
    """Faults in a forward pass. The sequence recorded last is kept: parts come sequence by sequence."""

    setup: trial.Setup
    sequences: Sequences
    _kept: tuple[int, Suffix] | None = field(default=None, repr=False)

    def run(self, faults: Sequence[Fault]) -> Arrays:
        """What faults of one sequence did, in their order: arrays (trial, ...)."""
        results: dict[int, trial.Result] = {}
        with torch.inference_mode():
            recorded = self._recorded(faults[0].sequence)
            for layer in sorted({fault.layer for fault in faults}):
                some = [(i, fault) for i, fault in enumerate(faults) if fault.layer == layer]
                found = trial.run(self.setup, recorded, [fault for _, fault in some])
                results |= {i: result for (i, _), result in zip(some, found, strict=True)}
        return self._arrays([results[i] for i in range(len(faults))])

    def _recorded(self, sequence: int) -> Suffix:
        if self._kept is None or self._kept[0] != sequence:
            batch = self.sequences.batch(self.setup.adapter, sequence)
            self._kept = None  # before the next is recorded: they are the largest things in memory
            self._kept = (sequence, Suffix(self.setup.adapter, batch, cut=self.setup.cut))
        return self._kept[1]

    def _arrays(self, results: list[trial.Result]) -> Arrays:
        numbers = {
            name: np.array([getattr(r, name) for r in results], float)
            for name in ("loss_base", "loss_diff", "logit_max_abs", "logit_kl", "top1_changed")
        }
        flags = {name: np.array([getattr(r, name) for r in results], bool) for name in ("masked", "nonfinite")}
        ratios = [[(r.ratios or {}).get(name, np.nan) for name in self.setup.detectors] for r in results]
        corrected = [-1 if r.corrected is None else int(r.corrected) for r in results]
        bounds = [[np.nan] * len(BOUND) if r.bound is None else [r.bound[name] for name in BOUND] for r in results]
        shaped = np.array(ratios, float).reshape(len(results), len(self.setup.detectors))
        return numbers | flags | _elements([(r.before, r.after) for r in results]) | {
            "ratios": shaped, "corrected": np.array(corrected, np.int8), "bounds": np.array(bounds, float),
        }  # fmt: skip

    def verify(self, fault: Fault) -> tuple[float, bool]:
        """(how far the change of the loss is from that of the naive way, is that within tolerance)."""
        adapter = self.setup.adapter
        base, naive = trial.plain(adapter, self.sequences.batch(adapter, fault.sequence), fault)
        found = self.run([fault])
        if bool(found["nonfinite"][0]) or not np.isfinite(naive):
            return 0.0, bool(found["nonfinite"][0]) == (not np.isfinite(naive))
        apart = abs(float(found["loss_diff"][0]) - (naive - base))
        return apart, apart <= CLOSE[adapter.dtype] * (1 + abs(base)) + CLOSE_CHANGE * abs(naive - base)


@dataclass
class Backward:
    """Faults in the gradient of a training step."""

    training: Training

    def run(self, faults: Sequence[Fault]) -> Arrays:
        """What the faults did, in their order: arrays (trial, ...)."""
        steps = [self.training.trial(fault) for fault in faults]
        return _elements([(step.before, step.after_bits) for step in steps]) | {
            "loss_base": np.array([step.base for step in steps], float),
            "norm_ratio": np.array([step.norm_ratio for step in steps], float),
            "rel_error": np.array([step.rel_error for step in steps], float),
            "after": np.array([step.after for step in steps], float),
            "clean": np.array([step.clean for step in steps], float),
        }

    def verify(self, fault: Fault) -> tuple[float, bool]:
        """(how far the last loss is from that of the naive way, is that within tolerance)."""
        first, again = np.array(self.training.trial(fault).after), np.array(plain(self.training, fault))
        if not np.array_equal(np.isnan(first), np.isnan(again)):
            return float("inf"), False
        apart = float(np.abs(first - again)[~np.isnan(first)].max(initial=0.0))
        return apart, apart <= CLOSE[self.training.adapter.dtype] * (1 + float(np.nanmax(np.abs(again), initial=0.0)))


def forward(adapter: Adapter, sequences: Sequences, **settings: object) -> Forward:
    """The forward phase's work. settings are those of trial.Setup."""
    with torch.inference_mode():
        cut = resumable(adapter, sequences.batch(adapter, sequences.tested[0]))
    return Forward(trial.Setup(adapter, cut, **settings), sequences)  # type: ignore[arg-type]


def backward(
    adapter: Adapter, sequences: Sequences, size: int, marks: Sequence[int], lr: float, *, permanent: bool
) -> Backward:
    """The backward phase's work: batches of the sequences under test, in their order.

    Raises HeadtoolError (exit 1) where the clean training is not finite.
    """
    numbers = np.array(sequences.tested)
    batches = [
        sequences.examples.batch(numbers[start : start + size]).to(adapter.device)
        for start in range(0, len(numbers), size)
    ]
    training = Training(adapter, batches, marks, lr, permanent=permanent)
    if not np.isfinite(training.clean(0)[1]).all():
        raise HeadtoolError(
            "the loss of the training without a fault is not finite", hint="a smaller --lr", code=FAILED
        )
    return Backward(training)


def _elements(pairs: Sequence[tuple[tuple[int, float], tuple[int, float]]]) -> Arrays:
    return {
        "before_bits": np.array([a[0] for a, _ in pairs], np.uint64),
        "before": np.array([a[1] for a, _ in pairs], float),
        "after_bits": np.array([b[0] for _, b in pairs], np.uint64),
        "after_value": np.array([b[1] for _, b in pairs], float),
    }
