"""The closing words of an inspection: a line a block type, what --diff came to, where time and memory went."""

from __future__ import annotations

from typing import Any

import numpy as np

from headtool.console import Aligned, Fitted
from headtool.record.clock import human_bytes
from headtool.record.run import Run
from headtool.weights.inspection import Inspection

SHOWN = 12  # block types


def _changes(run: Run) -> list[str]:
    """What --diff came to: how many tensors changed and which the most, and the head that did."""
    import polars as pl

    told = []
    if "diff" in run.manifest["tables"]:
        frame = pl.read_parquet(run.path / "tables" / "diff.parquet")
        changed = frame.filter(pl.col("status") == "changed").drop_nulls("relative_distance")
        alone = frame["status"].str.starts_with("only")
        both = f"{(frame['status'] == 'changed').sum()} of {(~alone).sum()} tensors changed"
        told.append(f"diff     {both}{f', {alone.sum()} are in one only' if alone.any() else ''}")
        if changed.height:
            typical, most = (float(np.quantile(changed["relative_distance"], q)) for q in (0.5, 1))
            name = changed.sort("relative_distance")["param_name"][-1]
            told[-1] += f", the median by {typical:.2g} of its norm"
            told.append(f"most     {name}, by {most:.2g}")
    if "heads_diff" in run.manifest["tables"]:
        heads = pl.read_parquet(run.path / "tables" / "heads_diff.parquet").drop_nulls("Urel").sort("Urel")
        if heads.height and heads["Urel"][-1] > 0:
            typical, most = (float(np.quantile(heads["Urel"], q)) for q in (0.5, 1))
            where = f"layer {heads['layer'][-1]} head {heads['head'][-1]}"
            told.append(f"heads    Urel {typical:.2g} (median), of {where} {most:.2g}")
    return told


def closing(run: Run, found: Inspection) -> list[Any]:
    """The closing words: a line a block type, where time and memory went, what is left behind."""
    import polars as pl
    from rich.text import Text

    facts, clock = run.manifest["model"], run.clock
    looked_at = len({item.tensor.name for item in found.items})
    seen = f"{looked_at} of " if looked_at < facts["tensors"] else ""
    head = f" inspect-weights  {facts['label']}  {seen}{facts['tensors']} tensors  {facts['parameters']:,} parameters"
    head += f"  {', '.join(facts['dtypes'])}"
    frame = pl.read_parquet(run.path / "tables" / "parameters.parquet")
    by_type = (
        frame.group_by("block_type", maintain_order=True)
        .agg(
            pl.len().alias("tensors"), pl.col("n_params").sum(), pl.col("std").mean(), pl.col("sparsity").mean(),
            (pl.col("rank") / pl.min_horizontal("rows", "cols")).mean().alias("rank"),
            (pl.col("rank_resolved") / pl.min_horizontal("rows", "cols")).mean().alias("rank_resolved"),
            pl.col("stable_rank").mean(), pl.col("condition").median(), pl.col("alpha").median(),
        )
        .sort("n_params", descending=True)
    )  # fmt: skip
    titles = ["block type", "tensors", "parameters", "std", "sparsity", "rank", "resolved", "stable", "condition"]
    if not by_type["alpha"].is_null().all():
        titles.append("alpha")
    told = []
    for row in by_type.head(SHOWN).iter_rows():
        numbers = ["" if value is None else f"{value:.3g}" for value in row[3:5]]
        numbers += ["" if value is None else f"{value:.1%}" for value in row[5:7]]
        numbers += ["" if value is None else f"{value:.3g}" for value in row[7:]]
        told.append([row[0], str(row[1]), f"{row[2]:,}", *numbers][: len(titles)])
    medians = " and ".join(title for title in titles if title in ("condition", "alpha"))
    lines = [f" shown    a line a block type: means over its tensors, of {medians} the median"]
    lines += [f" phases   {'   '.join(f'{name} {seconds:.1f} s' for name, seconds in clock.wall.items())}"]
    if rate := clock.rate("bytes", "examine"):
        lines.append(f" rate     {human_bytes(rate)}/s of {human_bytes(clock.counts['bytes'])}")
    odd = frame.filter((pl.col("n_nan") > 0) | (pl.col("n_inf") > 0))
    if odd.height:
        lines.append(f" odd      {odd.height} tensors hold NaN or infinity, the first {odd['param_name'][0]}")
    lines += [f" {text}" for text in _changes(run)]
    lines.append(
        f" memory   {human_bytes(run.manifest['memory']['peak_rss'])} peak; the largest tensor has "
        f"{human_bytes(max(tensor.size for tensor in found.checkpoint.tensors))}"
    )
    page = ("embedding.md",) if (run.path / "embedding.md").is_file() else ()
    lines.append(f" left     {run.left(*page)}")
    return [Text(head, style="bold"), Fitted(titles, told, gap=1), Aligned(lines)]
