"""Instructions in the form of commonsense_170k: {instruction, input, output, answer}. The span is the question in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headtool.tasks.example import Example, Markers, between, text_of

NAMES = ("commonsense_170k",)
FIELDS = (("instruction",),)
MAY = ("input", "output", "answer")
SPANS = True
STARTS = ("question:",)
ENDS = ("Answer1:", "Option1:", "Ending1:", "Solution1:", "Choice1:", "Answer format:")


def example(row: Mapping[str, Any], markers: Markers) -> Example | None:
    """An example, or None for a blank instruction. Raises RowError where it is no text.

    The question begins after the first "question:" (any case; else at the start) and ends at the first of ENDS.
    """
    text = text_of(row, "instruction")
    if row.get("input"):
        text = f"{text}\n{text_of(row, 'input')}"
    if not text.strip():
        return None
    starts = [markers.question] if markers.question else STARTS
    span = between(text, starts, [markers.choices] if markers.choices else ENDS, from_start=markers.question is None)
    key = row.get("answer")
    output = str(row.get("output") or "")
    answer = None
    if isinstance(key, str) and key:  # "the correct answer is answer1": the last word of it is what counts
        lead = output[: output.rfind(key)] if key in output else ""
        answer = ("\n" + lead, key)
    return Example(text, span=span, label=key, cut="left", answer=answer)
