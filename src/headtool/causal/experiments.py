"""The five experiments: which configurations are trained, on what, and what they are evaluated on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from headtool.causal.settings import Settings
from headtool.errors import unknown

UNLEARNABLE = ("basic", "question_answering", "extreme_values", "boundary_values")
LEARNABLE = ("addition", "conversion", "copying")
EVALUATED = 200  # rows of a made set
MEDIAN, PLAIN = "median", "softmax_l1"  # the baselines that stand in every table


@dataclass(frozen=True)
class Experiment:
    """Configurations by name, the first of which is saved, and the made sets to evaluate on where there is no data."""

    title: str
    configurations: Callable[[Settings, int], Mapping[str, Settings]]  # from the settings asked for and the width
    sets: tuple[str, ...] = ("basic", *LEARNABLE)


def _comparison(s: Settings, width: int) -> Mapping[str, Settings]:
    of = dataclasses.replace
    dim = s.causal_dim or width
    return {
        "base": s,
        "causal_dim_small": of(s, causal_dim=max(1, dim // 2)), "causal_dim_large": of(s, causal_dim=2 * dim),
        "threshold_low": of(s, threshold=s.threshold - 10), "threshold_high": of(s, threshold=s.threshold + 10),
        "reg_weight_low": of(s, reg_weight=s.reg_weight / 10), "reg_weight_high": of(s, reg_weight=s.reg_weight * 10),
    }  # fmt: skip


def _ablation(s: Settings, width: int) -> Mapping[str, Settings]:
    of = dataclasses.replace
    full = of(s, head="ovr", distribution="cauchy")
    return {
        "full": full, "no_ovr": of(full, head="softmax"), "no_cauchy": of(full, distribution="normal"),
        "neither": of(full, head="softmax", distribution="normal"),
    }  # fmt: skip


def _initialization(s: Settings, width: int) -> Mapping[str, Settings]:
    of = dataclasses.replace
    return {
        "gamma0_first_principles": s, "gamma0_low": of(s, gamma0=s.gamma0 / 10), "gamma0_high": of(s, gamma0=s.gamma0 * 10),
    }  # fmt: skip


EXPERIMENTS = {
    "basic": Experiment("one configuration", lambda s, _: {"basic": s}),
    "comprehensive": Experiment("all evaluation sets", lambda s, _: {"comprehensive": s}, (*UNLEARNABLE, *LEARNABLE)),
    "comparison": Experiment("causal dimensions, thresholds and regression weights", _comparison),
    "ablation": Experiment("without one-vs-rest, without Cauchy, without either", _ablation),
    "initialization": Experiment("a tenth and ten times the starting scale gamma0", _initialization),
}  # fmt: skip


def named(name: str) -> Experiment:
    """The experiment of a name. Raises HeadtoolError for one that is not known."""
    if name not in EXPERIMENTS:
        raise unknown("experiment", name, EXPERIMENTS)
    return EXPERIMENTS[name]


def plain(s: Settings) -> Settings:
    """The baseline of the same decoder: its own softmax head, and a linear regression by absolute error."""
    return dataclasses.replace(
        s, plain=True, head="softmax", distribution="cauchy", causal_dim=None, negatives=None, gate_alpha=1.0
    )
