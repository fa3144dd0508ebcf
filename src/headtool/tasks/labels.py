"""From the labels of rows to class numbers: which classes there are, what they are called, which one each row has."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headtool.errors import HeadtoolError
from headtool.tasks.load import Chosen

SHOWN = 5  # classes named in an error
WANTED = "a label is a whole number from 0, or a text; --field label=NAME names the field that has it"


@dataclass(frozen=True)
class Labels:
    """The labels of rows in order, and for each that occurs the place where it first does."""

    name: str
    values: Sequence[int | str]
    first: Mapping[int | str, str]

    @property
    def numbered(self) -> bool:
        """Are all of them numbers? Digits count: a CSV file has texts only."""
        return all(isinstance(value, int) or value.isdecimal() for value in self.first)


def read(rows: Chosen) -> Labels:
    """The labels of the rows. Raises HeadtoolError for a row that has none, or one that names no class."""
    values: list[int | str] = []
    first: dict[int | str, str] = {}
    for where, example in rows.placed():
        value = _value(example.label, where)
        values.append(value)
        first.setdefault(value, where)
    return Labels(rows.name, values, first)


def _value(label: Any, where: str) -> int | str:
    if (
        label is None
        or (isinstance(label, float) and math.isnan(label))
        or (isinstance(label, str) and not label.strip())
    ):
        lines = where.rpartition(":")[0].endswith(".txt")
        hint = "lines of text have none: take .csv or .jsonl, with a field that has it" if lines else WANTED
        raise HeadtoolError(f"{where}: it has no label", hint=hint)
    if isinstance(label, str):
        return label.strip()
    if isinstance(label, int) or (isinstance(label, float) and label.is_integer()):  # true and false are 1 and 0
        number = int(label)
        if number < 0:
            raise HeadtoolError(
                f"{where}: the label {number} is below 0", hint="-1 often marks rows whose label is secret"
            )
        return number
    raise HeadtoolError(f"{where}: the label {label!r} is no class", hint=WANTED)


def classes(labels: Labels, task: Sequence[str] | None, model: Sequence[str] | None) -> tuple[str, ...]:
    """What the classes are called, in the order of their numbers.

    The task says it, where it does. Else texts are those of the model's classifier where it knows them all, or else
    sorted; numbers are those of the model's classifier where they are as many, or else called LABEL_0, LABEL_1 ...

    Raises HeadtoolError where numbers leave one out, where numbers and texts are mixed, and for a single class.
    """
    if len(labels.first) < 2:
        raise HeadtoolError(
            f"{labels.name}: all rows have the label {next(iter(labels.first))!r}",
            hint="a classifier needs two classes",
        )
    if task is not None:
        return tuple(task)
    if not labels.numbered:
        if any(isinstance(value, int) for value in labels.first):
            raise HeadtoolError(f"{labels.name}: some labels are numbers, some are texts", hint=WANTED)
        found = sorted(str(value) for value in labels.first)
        return tuple(model) if model is not None and set(found) <= set(model) else tuple(found)
    present = {int(value) for value in labels.first}
    count = max(present) + 1
    if model is not None and len(model) == count:
        return tuple(model)
    if len(present) < count:
        missing = next(i for i in range(count) if i not in present)
        raise HeadtoolError(
            f"{labels.name}: no row has the label {missing} of 0 to {count - 1}",
            hint="number the classes from 0 without a gap, or name them by texts; a small --limit may have left one out",
        )
    return tuple(f"LABEL_{i}" for i in range(count))


def count(rows: Chosen | None) -> int | None:
    """How many classes the rows' labels name by number, for a model without a head; None where they name none."""
    if rows is None or all(example.label is None for example in rows.examples()):
        return None
    found = read(rows)
    return max(2, 1 + max(int(value) for value in found.first)) if found.numbered else None


def numbers(labels: Labels, names: Sequence[str]) -> np.ndarray:
    """The class number of each row: (example,) int64. Raises HeadtoolError for a label that is none of the classes."""
    number: dict[int | str, int] = {}
    for value, where in labels.first.items():
        if value in names:
            number[value] = list(names).index(str(value))
        elif str(value).isdecimal() and int(value) < len(names):
            number[value] = int(value)
        else:
            known = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
            raise HeadtoolError(
                f"{where}: the label {value!r} is none of the {len(names)} classes",
                hint=f"the classes are {known}, or 0 to {len(names) - 1}",
            )
    return np.array([number[value] for value in labels.values], np.int64)
