"""What a group of runs amounts to: statistics by seed, their mean, cases, and how settled importance is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl

from headtool.reporting import seeds
from headtool.reporting.cases import KINDS, Cases, find
from headtool.reporting.join import Group
from headtool.reporting.statistics import Statistic, measure


@dataclass(frozen=True, eq=False)
class Analysis:
    """A group with everything that is computed from it. Statistics are by name; those by seed by seed first."""

    group: Group
    by_seed: dict[int, dict[str, Statistic]]
    mean: dict[str, Statistic]
    cases: Cases
    cases_by_seed: dict[int, Cases]
    stability: dict[str, Any]
    top_k: int

    @property
    def several(self) -> bool:
        return len(self.by_seed) > 1

    def stats(self) -> dict[str, Any]:
        """The content of stats.json. With several seeds the statistics are means, and three keys are added."""
        told: dict[str, Any] = {name: statistic.as_dict() for name, statistic in self.mean.items()}
        told |= {"topk": self.top_k, "n_heads": self.group.heads.height}
        told |= {f"n_{kind}": self.cases.count(kind) for kind in KINDS}
        if self.several:
            told["seeds"] = {
                str(seed): {name: each.as_dict() for name, each in made.items()} for seed, made in self.by_seed.items()
            }
            told["spread"] = seeds.spread(self.by_seed)
            told["rank_stability"] = self.stability
        return told

    def all_cases(self) -> dict[str, Any]:
        """The content of cases.json. With several seeds the cases are those of the means, each with its seeds."""
        told = self.cases.as_dict()
        if not self.several:
            return told
        for kind in KINDS:
            told[kind] = [row | {"seeds": self.seeds_of(kind, row)} for row in told[kind]]
        return told | {"seeds": {str(seed): each.as_dict() for seed, each in self.cases_by_seed.items()}}

    def seeds_of(self, kind: str, case: dict[str, Any]) -> list[int]:
        """The seeds in which a head is a case of the kind by itself."""
        key = (case["layer"], case["head"])
        return [
            seed for seed, each in self.cases_by_seed.items()
            if key in {(row["layer"], row["head"]) for row in each.found[kind]}
        ]  # fmt: skip


def analyse(group: Group, *, top_k: int, p_high: float, p_low: float, seed: int) -> Analysis:
    """Compute everything that a report says of a group."""
    by_seed = {pair.seed: measure(pair.heads, top_k, seed) for pair in group.pairs}
    frames = {pair.seed: pair.heads for pair in group.pairs}
    return Analysis(
        group=group,
        by_seed=by_seed,
        mean=seeds.mean(by_seed),
        cases=find(group.heads, p_high, p_low),
        cases_by_seed={each: find(frame, p_high, p_low) for each, frame in frames.items()},
        stability=seeds.stability(frames, top_k, seed) if len(frames) > 1 else {},
        top_k=top_k,
    )


def settled(heads: pl.DataFrame, when: str) -> dict[str, int] | None:
    """How sure importance is: heads that differ from zero (Holm), ranks and top-k memberships that are settled.

    A rank is settled where its 95% interval is one rank; membership where a head is among the top k of at least
    97.5%, or at most 2.5%, of the bootstrap samples. None where the table does not say.
    """
    differs, low, high, share = (f"I_{when}_{name}" for name in ("differs", "rank_low", "rank_high", "top_k_share"))
    told: dict[str, int] = {"heads": heads.height}
    if differs in heads.columns:
        told["differ"] = int(heads[differs].sum())
    if low in heads.columns and high in heads.columns:
        told["ranks"] = int((heads[low] == heads[high]).sum())
        told["rank_width"] = int((heads[high] - heads[low] + 1).median() or 0)  # type: ignore[arg-type]
    if share in heads.columns:
        told["members"] = int((heads[share] >= 0.975).sum())
        told["open"] = int(heads[share].is_between(0.025, 0.975, closed="none").sum())
    return told if len(told) > 1 else None
