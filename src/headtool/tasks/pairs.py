"""Pairs of texts with a label, as in GLUE. The span is the second text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headtool.tasks.example import Example, Markers, text_of

NAMES = ("pairs",)
FIELDS = (("premise", "hypothesis"), ("sentence1", "sentence2"), ("question", "sentence"), ("question1", "question2"))
MAY = ("label",)
SPANS = True


def example(row: Mapping[str, Any], markers: Markers) -> Example | None:
    """An example, or None where both texts are blank. Raises RowError where one is no text."""
    first, second = next(pair for pair in FIELDS if all(field in row for field in pair))
    text, other = text_of(row, first).strip(), text_of(row, second).strip()
    if not text and not other:
        return None
    return Example(text, pair=other, span="pair", label=row.get("label"), cut="longest_first")
