"""What the scores asked for need, and the arguments that none of them makes use of: these are refused rather than ignored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from headtool import folder
from headtool import options as opt
from headtool.console import Console

SCORES = "headtool.scores"
READ = ("data", "task", "field", "question_marker", "choices_marker")


def needs(names: Sequence[str]) -> dict[str, str]:
    """What each of the scores, and of those that combined is made of, needs to be measured. Nothing heavy is imported."""
    parts = folder.said(SCORES, "combined", "PARTS", "score") if "combined" in names else ()
    return {name: folder.said(SCORES, name, "NEEDS", "score") for name in (*names, *parts)}


def refuse(command: Callable[..., Any], ask: SimpleNamespace, names: Sequence[str]) -> None:
    """Raise HeadtoolError for an argument that is of another score than those asked for."""
    by_need, given = needs(names), vars(ask)
    kinds = set(by_need.values())
    reads = bool(kinds & {"output", "rows", "ablation", "gradient"})
    table = (
        (("lambda_ent", "lambda_task", "rank_scope"), "combined" in by_need, "is of the score combined", "combined"),
        (("ablate",), "ablation" in kinds, "is of the score ablation", "ablation"),
        (("include_bias",), "weights" in kinds, "is of the score update", "update"),
        (("exclude_bos",), kinds & {"rows", "repeats"}, "is of scores of attention rows", "ent"),
        (("query",), kinds & {"output", "rows"}, "is of scores that are read at one position of each row", "out"),
        (READ, reads, "is of scores that read rows", "out"),
    )
    for arguments, used, why, score in table:
        if not used:
            opt.idle(command, given, arguments, f"{why}, which none of --scores is", f"for example --scores {score}")


def note(command: Callable[..., Any], ask: SimpleNamespace, by_need: Mapping[str, str], console: Console) -> None:
    """Say which arguments change nothing of the scores asked for, and may stand."""
    kinds = set(by_need.values())
    reads = kinds & {"output", "rows", "ablation", "gradient"}
    spare = [*(() if "ablation" in kinds else ("memory", "verify")), *(() if reads else ("limit",))]
    for told in opt.harmless(command, vars(ask), spare, "changes nothing of these scores"):
        console.note(told)
