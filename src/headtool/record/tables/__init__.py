"""Every table headtool writes: name, version, columns with unit and meaning, key. The only schema definition.

docs/tables.md is generated from here. Layers and heads count from 0; what is missing is null, never NaN.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from headtool.record.tables import causal, finetune, inject, report, score, weights
from headtool.record.tables.columns import Table
from headtool.record.tables.score import SCORES

if TYPE_CHECKING:
    import polars as pl

__all__ = ["SCORES", "TABLES", "build"]

MODULES = (score, report, finetune, inject, weights, causal)  # one a command
TABLES: Mapping[str, Table] = {table.name: table for module in MODULES for table in module.TABLES}


def build(
    name: str, columns: Mapping[str, Sequence[Any]], scores: Iterable[str] = (), **names: Iterable[str]
) -> pl.DataFrame:
    """A frame of the named table from whole columns, in the schema's order, sorted by its key.

    scores, and names by their word, are what {score} and its like in the names of columns stand for.

    Columns that are not given are left out, except those of the key. Raises ValueError for a column that the
    schema does not know, for NaN or infinity (missing is None), and for columns of unequal length.
    """
    import polars as pl

    table = TABLES[name]
    schema = {column.name: getattr(pl, column.kind)() for column in table.resolve({"score": scores, **names})}
    stray = set(columns) - set(schema)
    if stray:
        raise ValueError(f"table {name} has no column {sorted(stray)}")
    missing = set(table.key) - set(columns)
    if missing:
        raise ValueError(f"table {name} needs the columns {sorted(missing)}")
    for column, values in columns.items():
        if any(isinstance(value, float) and not math.isfinite(value) for value in values):
            raise ValueError(f"table {name}, column {column}: NaN or infinity; missing values are None")
    kept = {column: kind for column, kind in schema.items() if column in columns}
    return pl.DataFrame({column: list(columns[column]) for column in kept}, schema=kept, strict=True).sort(table.key)
