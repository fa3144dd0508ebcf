"""What a causal model is and where its training is told, as far as flags say it: nothing here needs torch."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Literal

from headtool.errors import HeadtoolError

SINKS = {"tensorboard": ("tensorboard", "tensorboardX"), "wandb": ("wandb",)}  # of --report-to, and what each needs
Mode = Literal["standard", "causal", "compatible"]
Shared = Literal["none", "individual", "noise"]


@dataclass(frozen=True)
class Settings:
    """What a causal model is, beside its weights. plain: the baseline, the decoder's own head and a regression by L1."""

    head: Literal["ovr", "softmax"] = "ovr"
    distribution: Literal["cauchy", "normal"] = "cauchy"
    causal_dim: int | None = None  # None: the width of the decoder
    threshold: float = 0.0
    reg_weight: float = 1.0
    gate_alpha: float = 0.0
    gamma0: float = 10.0
    b_noise: float = 0.1
    number_encoding: Literal["log", "linear"] = "log"
    ovr_reduction: Literal["sum", "mean"] = "sum"
    negatives: int | None = None
    centre: float = 0.0  # regression is of (value - centre) / unit
    unit: float = 1.0
    plain: bool = False


@dataclass(frozen=True)
class Asked:
    """How to infer. shared: the same draw for all positions of a sequence, of the individual or of the noise (mode causal)."""

    mode: Mode = "standard"
    interval: float = 0.95
    new_tokens: int = 1
    number: bool = False  # the number, whatever the most likely token
    shared: Shared = "none"
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 0.9
    seed: int = 42


def sinks(asked: str | None) -> list[str]:
    """The names in --report-to. Raises HeadtoolError for one that is not known, or that is not installed."""
    names = [name.strip() for name in (asked or "none").split(",") if name.strip() and name.strip() != "none"]
    for name in names:
        if name not in SINKS:
            raise HeadtoolError(
                f"--report-to {name}: not one of none, {', '.join(SINKS)}", hint="tables/training has it all"
            )
        if not any(importlib.util.find_spec(package) for package in SINKS[name]):
            raise HeadtoolError(f"--report-to {name}: it is not installed", hint=f"pip install {SINKS[name][0]}")
    return names
