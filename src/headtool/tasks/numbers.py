"""Text and the number it leads to: {text, value}, value a finite number or a string that is one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from headtool.tasks.example import Example, Markers, RowError, text_of

NAMES = ("numbers",)
FIELDS = (("text", "value"),)
SPANS = False


def example(row: Mapping[str, Any], markers: Markers) -> Example:
    """An example whose label is the value. Raises RowError for a value that is missing, no number or not finite."""
    text, value = text_of(row, "text"), row["value"]
    if value is None or isinstance(value, bool) or (isinstance(value, str) and not value.strip()):
        raise RowError("its value is missing")
    try:
        number = float(value.replace(",", "") if isinstance(value, str) else value)
    except (TypeError, ValueError, OverflowError) as error:
        raise RowError(f"its value is no number: {str(value)[:40]}") from error
    if not math.isfinite(number):
        raise RowError(f"its value is not finite: {value}")
    return Example(text, label=number, cut="left")
