"""Plain text, one row an example: {text}, {sentence, label}, or the lines of a .txt file. No span, but by markers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headtool.tasks.example import Example, Markers, between, text_of

NAMES = ("text",)
FIELDS = (("text",), ("sentence",))
MAY = ("label",)
SPANS = False


def example(row: Mapping[str, Any], markers: Markers) -> Example | None:
    """An example, or None for a blank text. Raises RowError where it is no text."""
    text = text_of(row, "text" if "text" in row else "sentence")
    if not text.strip():
        return None
    span = None
    if markers.question or markers.choices:
        ends = [markers.choices] if markers.choices else ["\n"]
        span = between(text, [markers.question] if markers.question else [], ends, from_start=markers.question is None)
    return Example(text, span=span, label=row.get("label"), cut="right")
