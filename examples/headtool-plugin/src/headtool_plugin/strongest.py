"""headtool strongest: the heads of a finished run that stand out, on one screen."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headtool import completion
from headtool import options as opt
from headtool.console import Console
from headtool.errors import HeadtoolError, unknown

RunDirectory = Annotated[
    Path,
    typer.Argument(metavar="RUN", help="A run directory.", autocompletion=completion.complete_runs, show_default=False),
]
By = Annotated[str, opt.flag("--by", metavar="COLUMN", help="The column of the table heads to sort by.")]


def command(run: RunDirectory, by: By = "combined", top_k: opt.TopK = None, json: opt.Json = False) -> None:
    """Print the strongest heads of a run.

    [bold]headtool strongest $(headtool score demo -q) --top-k 3[/]
    """
    import polars as pl

    file = run / "tables" / "heads.parquet"
    if not file.is_file():
        raise HeadtoolError(
            f"{run}: there is no table of heads", hint="give a run directory, as 'headtool score' prints it"
        )
    heads = pl.read_parquet(file)
    if by not in heads.columns:
        raise unknown("column", by, heads.columns)
    found = heads.sort(by, "layer", "head", descending=[True, False, False], nulls_last=True)
    rows = found.head(opt.top(top_k, heads.height)).select("layer", "head", by)
    Console(json=json).table(
        rows.columns, [[str(cell) for cell in row] for row in rows.iter_rows()], {"heads": rows.to_dicts()}
    )
