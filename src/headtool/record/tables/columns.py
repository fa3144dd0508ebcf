"""What a table is made of: columns with unit and meaning, and the keys that tables share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """A column. A name with {score}, {detector} ... stands for one column a score or detector that was asked for."""

    name: str
    kind: str  # a Polars type
    unit: str
    doc: str


@dataclass(frozen=True)
class Table:
    """A table: the order of its columns, and the key that its rows are sorted by.

    Where commands write tables of the same name, the one here begins with its command: inspect.heads is heads.parquet.
    """

    name: str
    version: int
    doc: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]

    @property
    def file(self) -> str:
        """The name of its files, without their suffix."""
        return self.name.rpartition(".")[2]

    def resolve(self, names: Mapping[str, Iterable[str]]) -> tuple[Column, ...]:
        """The columns of a run: {score} and its like filled in with what names holds under that word, at the end."""
        kind = {column: found[1] for column in self.columns if (found := re.search(r"{(\w+)}", column.name))}
        resolved = [column for column in self.columns if column not in kind]
        for word, filled in names.items():
            for name in filled:
                for column in (column for column, its in kind.items() if its == word):
                    resolved.append(Column(column.name.format(**{word: name}), column.kind, column.unit, column.doc))
        return tuple(resolved)


LAYER = Column("layer", "Int32", "", "layer, from 0")
HEAD = Column("head", "Int32", "", "query head, from 0")
KEY = ("layer", "head")
