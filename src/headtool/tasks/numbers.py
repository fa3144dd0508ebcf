"""Text and the number it leads to: {text, value}, value a finite number or a string that is one."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from headtool.tasks.example import Example, Markers, RowError, text_of

NAMES = ("numbers",)
FIELDS = (("text", "value"),)
MAY = ()
SPANS = False
COMMAS = re.compile(r"[+-]?[0-9]{1,3}(?:,[0-9]{3})+(?![0-9,])")  # 1,000 is a thousand; 1,5 is no number


def example(row: Mapping[str, Any], markers: Markers) -> Example:
    """An example whose label is the value. Raises RowError for a value that is missing, no number or not finite."""
    text, value = text_of(row, "text"), row["value"]
    if value is None or (isinstance(value, str) and not value.strip()):
        raise RowError("its value is missing")
    if isinstance(value, bool):
        raise RowError(f"its value is no number: {value}")
    try:
        number = written(value) if isinstance(value, str) else float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise RowError(f"its value is no number: {str(value)[:40]}") from error
    if not math.isfinite(number):
        raise RowError(f"its value is not finite: {value}")
    return Example(text, label=number, cut="left")


def written(text: str) -> float:
    """The number that a text is, with or without commas between groups of three digits. Raises ValueError for others."""
    return float(text.replace(",", "") if COMMAS.match(text.strip()) else text)
