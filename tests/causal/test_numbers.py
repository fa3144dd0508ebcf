"""Numbers out of text and back: values exact, the text around them as it stood."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headtool.causal import numbers
from headtool.errors import HeadtoolError

FINITE = st.floats(allow_nan=False, allow_infinity=False)
# Text that is full of what numbers are made of.
DENSE = st.text(alphabet="0123456789.,eE+-% ax$()é/", max_size=24)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("-3", [-3.0]),
        ("1e5 and 1E-5", [1e5, " and ", 1e-5]),
        ("1,000.5", [1000.5]),
        ("12,34", [12.0, ",", 34.0]),
        ("1,0005", [1.0, ",", 5.0]),
        ("3%", [3.0, "%"]),
        ("3-5", [3.0, "-", 5.0]),
        ("2026-11-25", [2026.0, "-", 11.0, "-", 25.0]),
        ("B2B", ["B", 2.0, "B"]),
        ("covid-19", ["covid-", 19.0]),
        ("$-.5", ["$", -0.5]),
        ("a.5", ["a.", 5.0]),
        ("+7", ["+", 7.0]),
        ("(-7)", ["(", -7.0, ")"]),
        ("is -1.5e+300.", ["is ", -1.5e300, "."]),
        ("1e999", ["1e999"]),
        ("no number", ["no number"]),
        ("", []),
    ],
)
def test_what_is_read(text, pieces):
    assert numbers.split(text) == pieces


@given(FINITE)
@example(-0.0)
@example(5e-324)
@example(1.7976931348623157e308)
@example(123456789012345680.0)
def test_any_float_is_written_and_read_exactly(value):
    for exponent in (False, True):
        text = numbers.written(value, exponent=exponent)
        (back,) = numbers.split(text)
        assert back == value
        assert math.copysign(1, back) == math.copysign(1, value)
    assert len(numbers.written(value, exponent=True)) <= len(repr(value)) + 4  # shortest digits; e+00 is the rest


@given(FINITE, st.sampled_from(["{:,.2f}", "{:e}", "{:+.17g}", "{:.0%}", "{:G}"]))
def test_surfaces_are_read_as_python_reads_them(value, form):
    surface = form.format(value)
    read = [p for p in numbers.split(surface) if isinstance(p, float)]
    expected = float(surface.replace(",", "").replace("%", ""))
    if math.isfinite(expected):
        assert read == [expected]


@given(DENSE)
@settings(max_examples=1500)
@example("1.0.5")
@example("10.0.0.1")
@example("1.5e3.5")
@example("1e0,123")
@example("2e0e5")
@example("1.0e+5e7")
@example("-0.0,000")
def test_text_comes_back_with_its_values(text):
    """Pieces are the text in order; writing and reading gives the same pieces, and is at rest after one turn."""
    pieces = numbers.split(text)
    again = numbers.join(pieces)
    assert list(map(repr, numbers.split(again))) == list(map(repr, pieces))
    assert numbers.join(numbers.split(again)) == again


@given(st.text(max_size=40))
def test_text_without_numbers_is_unchanged(text):
    around = re.sub("[0-9]", "", text)
    assert numbers.join(numbers.split(around)) == around


@given(DENSE)
def test_the_text_around_the_numbers_is_the_text_without_them(text):
    left = [p for p in numbers.split(text) if isinstance(p, str)]
    position = 0
    for piece in left:
        position = text.index(piece, position) + len(piece)


def test_a_pattern_of_ones_own():
    whole = numbers.pattern(r"[0-9]{4}-[0-9]{2}|[0-9]+/[0-9]+|[0-9]+")
    assert numbers.split("in 2026-11 it was 1/2 of 30", whole) == ["in 2026-11 it was 1/2 of ", 30.0]
    with pytest.raises(HeadtoolError, match="no regular expression"):
        numbers.pattern("[0-9")
