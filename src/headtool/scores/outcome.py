"""From measured scores to what a reader gets: tables, top heads, heat maps, the closing words."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np

from headtool.errors import FAILED, HeadtoolError
from headtool.figures.heatmap import heatmaps
from headtool.models.adapter import Adapter
from headtool.record import tables
from headtool.record.clock import human_bytes
from headtool.record.files import whole
from headtool.record.run import Run
from headtool.scores import combined as fusion
from headtool.scores.measure import Measured

SHOWN = 10  # heads in the closing table
COLUMNS = 6  # scores in it


def write(
    run: Run, adapter: Adapter, names: tuple[str, ...], measured: Mapping[str, Measured], ask: SimpleNamespace
) -> None:
    """Write the tables, the top heads and the heat maps of a run.

    Raises HeadtoolError where no score is defined for any example.
    """
    if not any(result.n for result in measured.values()):
        hint = "the first position of a decoder, say, sees itself alone: another --query, or no --exclude-bos"
        raise HeadtoolError("no score is defined for any example", hint=hint, code=FAILED)
    g = adapter.geometry
    layer, head = (axis.ravel().tolist() for axis in np.mgrid[: g.layers, : g.heads])
    keys: dict[str, Any] = {"layer": layer, "head": head}
    raw, norm = dict(keys), dict(keys)
    for name, result in measured.items():
        raw[f"{name}_raw"] = _column(result.mean if result.n else None, len(layer))
        raw[f"{name}_se"] = _column(result.se, len(layer))
        raw[f"{name}_n"] = [result.n] * len(layer)
        norm[f"{name}_norm"] = _column(fusion.normalise(result.mean, ask.norm) if result.n else None, len(layer))
    frames = {"scores_raw": raw, "scores_norm": norm}
    top: dict[str, list[float]] = {}
    if "combined" in names and any(measured[name].n for name in fusion.PARTS if name in measured):
        top = _combined(run, measured, ask)
        frames["scores_combined"] = keys | top
    frames["heads"] = keys | {"kv_head": [g.kv_head(h) for h in head]} | top | raw | norm
    for name, columns in frames.items():
        run.write(name, tables.build(name, columns, measured), lines=ask.jsonl)
    counted = [name for name in (*names, *measured) if name in measured and measured[name].n]
    first = "combined" if top else counted[0]
    by = np.array(top["combined"]) if top else measured[first].mean.ravel()
    _write_top(run, by.reshape(g.layers, g.heads), ask.top_k, ask.top_k_layer)
    if rows := run.manifest.get("data", {}).pop("subset", None):
        run.write_json("eval_subset.json", {"seed": ask.subset_seed, "n": len(rows), "rows": rows})
    heads = tables.build("heads", frames["heads"], measured)
    panels = ({"combined": "combined"} if top else {}) | {name: f"{name}_raw" for name in measured}
    panels = {name: column for name, column in panels.items() if heads[column].null_count() < heads.height}
    figure = heatmaps(heads, panels, f"{run.manifest['model']['label']}: {g.layers} layers x {g.heads} heads")
    for suffix in ("png", "svg"):
        with whole(run.path / "figures" / f"heads.{suffix}") as file:
            figure.savefig(file, format=suffix, dpi=160)
    run.manifest["top"] = {"by": first, "heads": _order(by, g.heads)[:SHOWN]}


def model_facts(adapter: Adapter) -> dict[str, Any]:
    """What the manifest says of the model."""
    g = adapter.geometry
    return {
        "label": adapter.located.label, "id": adapter.located.model_id, "revision": adapter.located.revision,
        "model_type": adapter.located.model_type, "kind": adapter.kind, "parameters": adapter.parameters,
        "layers": g.layers, "heads": g.heads, "kv_heads": g.kv_heads, "head_dim": g.head_dim, "width": g.width,
        "dtype": str(adapter.dtype).removeprefix("torch."), "device": str(adapter.device),
        "bytes": adapter.parameters * adapter.dtype.itemsize,
    }  # fmt: skip


def summary(run: Run, measured: Mapping[str, Measured]) -> list[Any]:
    """The closing words: what was run, the top heads, where time and memory went, what is left behind."""
    from rich.text import Text

    facts, counts, clock = run.manifest["model"], run.clock.counts, run.clock
    head = f" score  {facts['label']}  {facts['layers']} x {facts['heads']} heads  {facts['dtype']} {facts['device']}"
    if data := run.manifest.get("data"):
        head += f"  {data['examples']:,} examples  {data['tokens']:,} tokens"
    phases = "   ".join(f"{name} {seconds:.1f} s" for name, seconds in clock.wall.items())
    lines = [f" phases   {phases}"]
    examples, tokens, flops = (clock.rate(name, "forward") for name in ("examples", "tokens", "attention_flops"))
    if examples and tokens and flops:
        total = counts["attention_flops"]
        lines.append(
            f" rate     {examples:,.1f} examples/s   {tokens:,.0f} tokens/s"
            f"   attention {total / 1e9:,.2f} GFLOP, {flops / 1e9:,.1f} GFLOP/s"
        )
    memory = run.manifest["memory"]
    device = f"   {human_bytes(memory['peak_device'])} peak on the device" if memory["peak_device"] else ""
    lines.append(
        f" memory   {human_bytes(memory['peak_rss'])} peak, {human_bytes(facts['bytes'])} of it the model{device}"
    )
    lines.append(
        f" left     {'  '.join(f'tables/{name}.parquet' for name in run.manifest['tables'])}  figures/heads.svg"
    )
    return [Text(head, style="bold"), _top_table(run, measured), Text("\n".join(lines), no_wrap=True)]


def _top_table(run: Run, measured: Mapping[str, Measured]) -> Any:
    import polars as pl
    from rich.table import Table

    heads = pl.read_parquet(run.path / "tables" / "heads.parquet")
    rows = {(row["layer"], row["head"]): row for row in heads.iter_rows(named=True)}
    fused = "combined" in heads.columns
    shown = Table(box=None, header_style="bold")
    titles = [
        "layer",
        "head",
        *["combined"] * fused,
        *list(measured)[:COLUMNS],
        *[f"in top {run.manifest['arguments']['top_k']}"] * fused,
    ]
    for title in titles:
        shown.add_column(title, justify="right", no_wrap=True)
    for each in run.manifest["top"]["heads"]:
        row = rows[each["layer"], each["head"]]
        told = [str(row["layer"]), str(row["head"])]
        if fused:
            told.append(f"{row['combined']:.3g} [{row['combined_low']:.3g}, {row['combined_high']:.3g}]")
        values = [row.get(f"{name}_raw") for name in list(measured)[:COLUMNS]]
        told += ["" if value is None else f"{value:.3g}" for value in values]
        if fused:
            told.append(f"{row['top_k_share']:.0%}")
        shown.add_row(*told)
    return shown


def _combined(run: Run, measured: Mapping[str, Measured], ask: SimpleNamespace) -> dict[str, list[float]]:
    """combined, and what the bootstrap over examples makes of it."""
    weights = {"out": 1.0, "ent": ask.lambda_ent, "task": ask.lambda_task}
    parts = {name: measured[name] for name in fusion.PARTS if name in measured and measured[name].n}
    missing = [name for name in fusion.PARTS if name in measured and name not in parts]
    if missing:
        run.console.warn(f"'combined' is made without {', '.join(missing)}")
    value = fusion.combined({name: result.mean for name, result in parts.items()}, weights, ask.rank_scope)
    both = np.logical_and.reduce([result.drawn for result in parts.values()])  # samples that drew some for each score
    drawn = fusion.combined({name: result.samples[both] for name, result in parts.items()}, weights, ask.rank_scope)
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    flat = drawn.reshape(len(drawn), -1)
    k = min(ask.top_k, flat.shape[1])
    among = np.argsort(np.argsort(-flat, axis=1, kind="stable"), axis=1) < k
    found = {"combined": value, "combined_low": low, "combined_high": high, "top_k_share": among.mean(0)}
    return {name: array.ravel().tolist() for name, array in found.items()}


def _write_top(run: Run, by: np.ndarray, k: int, k_layer: int) -> None:
    heads = by.shape[1]
    run.write_json("topk_global.json", _order(by.ravel(), heads)[:k])
    layers = {
        str(layer): [{"head": e["head"], "score": e["score"]} for e in _order(row, heads)[:k_layer]]
        for layer, row in enumerate(by)
    }
    run.write_json("topk_per_layer.json", layers)


def _order(by: np.ndarray, heads: int) -> list[dict[str, Any]]:
    """Heads from the highest score down; ties by layer, then head."""
    order = np.argsort(-by, kind="stable")
    return [{"layer": int(i) // heads, "head": int(i) % heads, "score": float(by[i])} for i in order]


def _column(values: np.ndarray | None, rows: int) -> list[float | None]:
    return [None] * rows if values is None else values.ravel().tolist()
