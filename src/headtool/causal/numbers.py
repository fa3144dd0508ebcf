"""Numbers in text: found, taken out with their exact values, and written back.

What is kept exactly is each value (a float64) and the text around the numbers, not how a number was written: 1,000.5
comes back as 1000.5. A percent sign, a unit, a plus sign are text; a minus sign belongs to the number unless a word, a
digit or a closing bracket stands before it, so that 3-5 is two numbers and -3 is one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

import numpy as np

from headtool.errors import HeadtoolError
from headtool.tasks.numbers import written as number_of

# A sign; digits in groups of three or in a row, a fraction, or a fraction alone; an exponent.
NUMBER = re.compile(
    r"(?:(?<![\w.)\]}%-])-)?"
    r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|(?<![\w.])\.[0-9]+)"
    r"(?:[eE][+-]?[0-9]+)?"
)
FUSES = re.compile(r"[.,eE]")  # what a number could run on into
POSITIONAL = (1e-4, 1e16)  # sizes that are written without an exponent

Piece = str | float


def pattern(given: str | None) -> re.Pattern[str]:
    """The pattern of --number-pattern, or our own. Raises HeadtoolError for one that is no pattern."""
    if given is None:
        return NUMBER
    try:
        return re.compile(given)
    except re.error as error:
        raise HeadtoolError(
            f"--number-pattern {given}: no regular expression ({error})", hint="for example '[0-9]+'"
        ) from error


def split(text: str, numbers: re.Pattern[str] = NUMBER) -> list[Piece]:
    """The text in pieces: str as it stands, float where there was a number. No str is empty, none follows another.

    What a pattern of one's own finds and no float is (1/2, or a number too large for one) stays text.
    """
    pieces: list[Piece] = []
    done = 0
    for found in numbers.finditer(text):
        value = _value(found[0])
        if value is None:
            continue
        if found.start() > done:
            pieces.append(text[done : found.start()])
        pieces.append(value)
        done = found.end()
    return [*pieces, text[done:]] if done < len(text) else pieces


def join(pieces: Sequence[Piece]) -> str:
    """The text of pieces, numbers written as shortest strings that give the same float64.

    split(join(split(text))) == split(text): where a number so written would run on into the text after it (of 1.50.2,
    read as 1.5, '.', 2, the canonical 1.5 would not, of 1e0.2 the 1 would), it is written with an exponent.
    """
    plain = _joined(pieces, ())
    if _same(split(plain), pieces):
        return plain
    risky = [i for i, piece in enumerate(pieces[:-1]) if isinstance(piece, float) and FUSES.match(str(pieces[i + 1]))]
    return _joined(pieces, risky)


def written(value: float, *, exponent: bool = False) -> str:
    """A number as the shortest string that is the same float64: 1000.5, 3, -0, 1e+20."""
    size = abs(value)
    if not exponent and (size == 0 or POSITIONAL[0] <= size < POSITIONAL[1]):
        return np.format_float_positional(value, trim="-")
    return np.format_float_scientific(value, trim="-")


def _joined(pieces: Iterable[Piece], risky: Sequence[int]) -> str:
    text, last = "", None
    for i, piece in enumerate(pieces):
        if isinstance(piece, float) and isinstance(last, float):
            text += " "  # only a model puts two numbers side by side
        text += piece if isinstance(piece, str) else written(piece, exponent=i in risky)
        last = piece
    return text


def _value(found: str) -> float | None:
    try:
        value = number_of(found)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _same(one: Sequence[Piece], other: Sequence[Piece]) -> bool:
    """Equal pieces, the sign of zero included."""
    return list(map(repr, one)) == list(map(repr, other))
