"""Arguments that none of the scores asked for makes use of: they are refused rather than ignored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

from headtool import options as opt
from headtool.console import Console

READ = ("data", "task", "field", "question_marker", "choices_marker")


def refuse(command: Callable[..., Any], ask: SimpleNamespace, needs: Mapping[str, str], console: Console) -> None:
    """Raise HeadtoolError for an argument that is of another score than those asked for; needs: what each one needs."""
    kinds, given = set(needs.values()), vars(ask)
    reads = bool(kinds & {"output", "rows", "ablation", "gradient"})
    table = (
        (("lambda_ent", "lambda_task", "rank_scope"), "combined" in needs, "is of the score combined", "combined"),
        (("ablate",), "ablation" in kinds, "is of the score ablation", "ablation"),
        (("include_bias",), "weights" in kinds, "is of the score update", "update"),
        (("exclude_bos",), kinds & {"rows", "repeats"}, "is of scores of attention rows", "ent"),
        (("query",), kinds & {"output", "rows"}, "is of scores at a position of the data", "out"),
        (READ, reads, "is of scores that read rows", "out"),
    )
    for names, used, why, score in table:
        if not used:
            opt.idle(command, given, names, f"{why}, which none of --scores is", f"for example --scores {score}")
    spare = [*(() if "ablation" in kinds else ("memory", "verify")), *(() if reads else ("limit",))]
    for note in opt.harmless(command, given, spare, "changes nothing of these scores"):
        console.note(note)
