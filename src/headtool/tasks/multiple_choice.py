"""Multiple-choice questions: {question, choices {text[], label[]}, answerKey}, as in ARC. The span is the question."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headtool.tasks.example import Example, Markers, RowError, between, text_of

NAMES = ("multiple_choice",)
FIELDS = (("question", "choices"),)
MAY = ("answerKey",)
SPANS = True
BEFORE = "Question: "


def prompt(row: Mapping[str, Any]) -> str:
    """The text a model is asked to go on from: the question, one line a choice, "Answer:"."""
    lines = "".join(
        f"{label}. {text}\n" for text, label in zip(row["choices"]["text"], row["choices"]["label"], strict=True)
    )
    return f"{BEFORE}{row['question'].strip()}\nChoices:\n{lines}Answer:"


def example(row: Mapping[str, Any], markers: Markers) -> Example | None:
    """An example, or None for a blank question. Raises RowError for a row of another shape."""
    question, choices = text_of(row, "question").strip(), row["choices"]
    if not isinstance(choices, Mapping) or not all(isinstance(choices.get(k), list | tuple) for k in ("text", "label")):
        raise RowError("the field 'choices' has no lists 'text' and 'label'")
    if len(choices["text"]) != len(choices["label"]) or not choices["text"]:
        raise RowError("the lists 'text' and 'label' of 'choices' are empty, or of unequal length")
    if not question:
        return None
    text = prompt(row)
    span: tuple[int, int] | None = (len(BEFORE), len(BEFORE) + len(question))
    if markers.question or markers.choices:
        span = between(text, [markers.question or BEFORE], [markers.choices or "Choices:"])
    key = row.get("answerKey")
    known = [str(label) for label in choices["label"]]
    if key not in (None, "") and str(key) not in known:
        raise RowError(f"its answerKey '{key}' is none of its choices ({', '.join(known)})")
    return Example(text, span=span, label=key, cut="left", answer=(" ", str(key)) if key not in (None, "") else None)
