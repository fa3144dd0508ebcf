"""An example: text to read, the span that the task is about, a label; and what can be wrong with a row."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal


class RowError(ValueError):
    """A row that cannot be made into an example, with the reason."""


@dataclass(frozen=True)
class Markers:
    """The texts between which the question stands, where the user names them."""

    question: str | None = None
    choices: str | None = None


@dataclass(frozen=True)
class Example:
    """Text, or a pair of texts; span is (start, stop) in characters of the text, or "pair" for the whole second text.

    cut says which side gives way when the tokens are too many. answer is what a language model should go on with,
    (what leads to it, the answer itself), where the rows have one.
    """

    text: str
    pair: str | None = None
    span: tuple[int, int] | Literal["pair"] | None = None
    label: Any = None
    cut: Literal["left", "right", "longest_first"] = "right"
    answer: tuple[str, str] | None = None


def text_of(row: Mapping[str, Any], field: str) -> str:
    """A field that must be text."""
    value = row.get(field)
    if not isinstance(value, str):
        raise RowError(f"the field '{field}' is no text")
    return value


def between(
    text: str, starts: Sequence[str], ends: Sequence[str], *, from_start: bool = False
) -> tuple[int, int] | None:
    """The span after the first of the start markers (any case) and before the first end marker, stripped; or None.

    from_start: without a start marker the span begins with the text. Without an end marker there is no span.
    """
    begin = re.search("|".join(re.escape(start) for start in starts), text, re.IGNORECASE) if starts else None
    if begin is None and not from_start:
        return None
    start = begin.end() if begin else 0
    stop = min((at for end in ends if (at := text.find(end, start)) >= 0), default=-1)
    inside = text[start:stop] if stop >= 0 else ""
    if not inside.strip():
        return None
    return start + len(inside) - len(inside.lstrip()), start + len(inside.rstrip())
