"""What a table is made of: columns with unit and meaning, and the keys that tables share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """A column. A name with {score} stands for one column a score that was asked for."""

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

    def resolve(self, scores: Iterable[str]) -> tuple[Column, ...]:
        """The columns for the scores of a run: {score} filled in."""
        resolved: list[Column] = []
        names = list(scores)
        templated = [column for column in self.columns if "{score}" in column.name]
        for column in self.columns:
            if column not in templated:
                resolved.append(column)
        for score in names:
            for column in templated:
                resolved.append(Column(column.name.format(score=score), column.kind, column.unit, column.doc))
        return tuple(resolved)


LAYER = Column("layer", "Int32", "", "layer, from 0")
HEAD = Column("head", "Int32", "", "query head, from 0")
KEY = ("layer", "head")
