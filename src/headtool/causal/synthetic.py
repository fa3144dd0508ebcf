"""Made data: numbers that nothing in their text foretells, and numbers that it does.

basic, question_answering, extreme_values and boundary_values draw a value that is independent of the text before it: the
least mean absolute error on U(0, 100) is 25, by always saying 50. They measure calibration, not skill. addition,
conversion and copying can be learned. Training and evaluation rows of a learnable set never share a text.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from headtool.errors import unknown
from headtool.tasks.demo import held_out
from headtool.tasks.example import Example

TRAINING_SEED = 42
THINGS = ("house", "car", "table", "lamp", "book", "garden", "river", "engine", "bridge", "window")
# price, temperature, measurement, value, observation
TEMPLATES = (
    "The price of the {thing} is",
    "The temperature of the {thing} is",
    "The measured length of the {thing} is",
    "The value of the {thing} is",
    "We observed the {thing} and recorded",
)
QUESTIONS = (
    "Question: what is the price of the {thing}? Answer:",
    "Question: how warm is the {thing}? Answer:",
    "Question: how long is the {thing}? Answer:",
    "Question: what is the {thing} worth? Answer:",
    "Question: what was seen of the {thing}? Answer:",
)
UNITS = (("inches", "centimetres", 2.54), ("miles", "kilometres", 1.609344), ("pounds", "kilograms", 0.45359237))

Row = tuple[str, float]


@dataclass(frozen=True)
class Made:
    """A set of made rows: the seed of its evaluation rows, one row from a generator, whether text tells the number."""

    seed: int
    row: Callable[[random.Random], Row]
    learnable: bool


def _told(templates: tuple[str, ...], draw: Callable[[random.Random], float]) -> Callable[[random.Random], Row]:
    return lambda rng: (rng.choice(templates).format(thing=rng.choice(THINGS)), draw(rng))


def _addition(rng: random.Random) -> Row:
    a, b = rng.randint(0, 99), rng.randint(0, 99)
    return f"{a} plus {b} is", float(a + b)


def _conversion(rng: random.Random) -> Row:
    one, other, factor = rng.choice(UNITS)
    amount = rng.randint(1, 999) / 10
    return f"{amount:g} {one} in {other} is", round(amount * factor, 4)


def _copying(rng: random.Random) -> Row:
    value = round(rng.uniform(0, 100), 2)
    return f"Say {value:g} again:", value


SETS = {
    "basic": Made(101, _told(TEMPLATES, lambda rng: round(rng.uniform(0, 100), 2)), False),
    "question_answering": Made(102, _told(QUESTIONS, lambda rng: round(rng.uniform(0, 100), 2)), False),
    "extreme_values": Made(103, _told(TEMPLATES, lambda rng: float(f"{10 ** rng.uniform(-5, 5):.6g}")), False),
    "boundary_values": Made(104, _told(TEMPLATES, lambda rng: round(rng.random(), 4)), False),
    "addition": Made(105, _addition, True),
    "conversion": Made(106, _conversion, True),
    "copying": Made(107, _copying, True),
}


def named(name: str) -> Made:
    """The set of a name. Raises HeadtoolError for one that is not known."""
    if name not in SETS:
        raise unknown("made data set", name, SETS)
    return SETS[name]


def rows(name: str, n: int, *, training: bool) -> list[Example]:
    """N examples of a set, to train on or to evaluate on."""
    made = named(name)
    rng = random.Random(TRAINING_SEED if training else made.seed)
    found: list[Example] = []
    for text, value in _endless(made, rng):
        if len(found) == n:
            break
        if not made.learnable or held_out(text) != training:
            found.append(Example(text, label=value, cut="left"))
    return found


def _endless(made: Made, rng: random.Random) -> Iterator[Row]:
    while True:
        yield made.row(rng)
