"""From measured scores to what a reader gets: tables, top heads, heat maps, the closing words."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from headtool.console import Aligned, Fitted
from headtool.errors import FAILED, HeadtoolError
from headtool.figures import files
from headtool.figures.heatmap import heatmaps
from headtool.models.adapter import Adapter
from headtool.models.attention import BLOCK_ELEMENTS
from headtool.record import session, tables
from headtool.record.run import Run
from headtool.record.tables.score import TAKEN
from headtool.scores import combined as fusion
from headtool.scores import importance, update
from headtool.scores.certainty import Certainty
from headtool.scores.measure import Measured

if TYPE_CHECKING:
    from headtool.scores.passes import Pass

SHOWN = 10  # heads in the closing table
SURE = 0.975


@dataclass(frozen=True)
class Results:
    """What a run found: forward scores by name, and the certainty of ablation importance where that was asked for."""

    measured: Mapping[str, Measured]
    sure: Certainty | None


def write(
    run: Run, adapter: Adapter, names: tuple[str, ...], found: Mapping[str, Any], ask: SimpleNamespace
) -> Results:
    """Write the tables, the top heads and the heat maps of a run. found is what each pass came to, by its name.

    Raises HeadtoolError where no score is defined for any example.
    """
    measured: dict[str, Measured] = {}
    for name in ("data", "repeats"):
        measured |= found.get(name, {})
    if measured and not any(result.n for result in measured.values()):
        hint = "the first position of a decoder, say, sees itself alone: another --query, or no --exclude-bos"
        raise HeadtoolError("no score is defined for any example", hint=hint, code=FAILED)
    g = adapter.geometry
    layer, head = (axis.ravel().tolist() for axis in np.mgrid[: g.layers, : g.heads])
    keys: dict[str, Any] = {"layer": layer, "head": head}
    frames: dict[str, dict[str, Any]] = {}
    joined: dict[str, Any] = keys | {"kv_head": [g.kv_head(h) for h in head]}
    tops: dict[str, np.ndarray] = {}  # what heads can be ordered by, the first asked for first
    panels: dict[str, str] = {}
    if measured:
        raw, norm = dict(keys), dict(keys)
        for name, result in measured.items():
            raw[f"{name}_raw"] = _column(result.mean if result.n else None, len(layer))
            raw[f"{name}_se"] = _column(result.se, len(layer))
            raw[f"{name}_n"] = [result.n] * len(layer)
            norm[f"{name}_norm"] = _column(fusion.normalise(result.mean, ask.norm) if result.n else None, len(layer))
        frames |= {"scores_raw": raw, "scores_norm": norm}
        if "combined" in names and any(measured[name].n for name in fusion.PARTS if name in measured):
            top = _combined(run, measured, ask)
            frames["scores_combined"] = keys | top
            joined |= top
            tops["combined"], panels["combined"] = np.array(top["combined"]), "combined"
        joined |= raw | norm
        tops |= {name: result.mean.ravel() for name, result in measured.items() if result.n}
        panels |= {name: f"{name}_raw" for name, result in measured.items() if result.n}
    sure, fewest = None, importance.FEW
    if "combined" in names:  # which has intervals
        parts = (measured[name].n for name in fusion.PARTS if name in measured)
        fewest = min((n for n in parts if n), default=fewest)
    if "ablation" in found:
        own, sure = importance.columns(found["ablation"], ask.top_k, ask.seed)
        fewest = min(fewest, own["n"][0])
        frames["importance"] = keys | own
        frames["losses"] = importance.example_columns(found["ablation"], run.manifest["data"].pop("loss_rows"))
        joined |= {name: values for name, values in own.items() if name not in TAKEN}
        tops["ablation"], panels["ablation"] = np.array(own["I"]), "I"
    if fewest < importance.FEW:
        run.console.warn(importance.few(fewest))
    if "gradient" in found:
        run.manifest["data"].pop("loss_rows", None)
        own = importance.gradient_columns(found["gradient"])
        frames["gradfisher"] = keys | own
        joined |= {name: values for name, values in own.items() if name not in TAKEN}
        tops |= {name: np.array(own[column]) for name, column in (("gradient", "G"), ("fisher", "F"))}
        panels |= {"gradient": "G", "fisher": "F"}
    if "update" in names:
        moved = update.update(ask.before, adapter.located, adapter.layout, g, ask.include_bias)
        own = importance.update_columns(moved)
        frames["update"] = keys | own
        joined |= own
        tops["update"], panels["update"] = np.array(own["Urel"]), "Urel"
        if not any(own["U"]):
            run.console.warn("U is 0 for every head: no q, k, v or o differs from --init's")
    frames["heads"] = joined
    for name, values in frames.items():
        run.write(name, tables.build(name, values, measured), lines=ask.jsonl)
    first = next(name for name in ("combined", *names, *tops) if name in tops)
    _write_top(run, tops[first].reshape(g.layers, g.heads), ask.top_k, ask.top_k_layer)
    if rows := run.manifest.get("data", {}).pop("subset", None):
        run.write_json("eval_subset.json", {"seed": ask.subset_seed, "n": len(rows), "rows": rows})
        run.manifest["data"]["rows_sha256"] = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    wanted = {name for name in panels if name in names or name in measured}
    heads = tables.build("heads", joined, measured)
    figure = heatmaps(
        heads,
        {name: column for name, column in panels.items() if name in wanted},
        f"{run.manifest['model']['label']}: {g.layers} layers x {g.heads} heads",
    )
    files.save(figure, run.path / "figures" / "heads")
    if even := {name: result.even for name, result in measured.items() if result.even is not None}:
        run.manifest["even"] = even
    run.manifest["top"] = {"by": first, "heads": _order(tops[first], g.heads)[:SHOWN]}
    return Results(measured, sure)


def summary(run: Run, results: Results) -> list[Any]:
    """The closing words: what was run, the top heads, where time and memory went, what is left behind."""
    from rich.text import Text

    facts, clock = run.manifest["model"], run.clock
    head = f" score  {facts['label']}  {facts['layers']} x {facts['heads']} heads  {facts['dtype']} {facts['device']}"
    if data := run.manifest.get("data"):
        head += f"  {data['examples']:,} examples  {data['tokens']:,} tokens"
    top = run.manifest["top"]
    lines = [f" shown    the first {len(top['heads'])} of {facts['layers'] * facts['heads']} heads by {top['by']}"]
    if even := [f"{name} {value:.3g}" for name, value in run.manifest.get("even", {}).items()]:
        lines.append(
            f" even     attention spread evenly over what is visible gives, over all layers, {', '.join(even)}"
        )
    lines += _moved(run) if "update" in run.manifest["tables"] else []
    lines += [f" phases   {'   '.join(f'{name} {seconds:.1f} s' for name, seconds in clock.wall.items())}"]
    lines += [f" rate     {told}" for told in _rates(run)]
    lines += _certainties(run, results.sure)
    lines.append(f" memory   {run.memory()}")
    lines.append(f" left     {run.left('topk_global.json', 'topk_per_layer.json')}")
    return [Text(head, style="bold"), _top_table(run, results), Aligned(lines)]


def _moved(run: Run) -> list[str]:
    """How far training has moved the heads."""
    import polars as pl

    heads = pl.read_parquet(run.path / "tables" / "update.parquet").sort("Urel")
    typical, still, most = heads["Urel"].median(), (heads["U"] == 0).sum(), heads.row(-1, named=True)
    if still == heads.height:
        return [" moved    no head"]
    told = f"by Urel {typical:.2g} (median), most layer {most['layer']} head {most['head']}: {most['Urel']:.2g}"  # type: ignore[str-bytes-safe]
    return [f" moved    {told}" + (f"; {still} of {heads.height} heads not at all" if still else "")]


def _rates(run: Run) -> list[str]:
    counts, clock = run.clock.counts, run.clock
    told = []
    examples, tokens, flops = (clock.rate(name, "forward") for name in ("examples", "tokens", "attention_flops"))
    if examples and tokens and flops:
        total = counts["attention_flops"]
        told.append(
            f"{examples:,.1f} examples/s   {tokens:,.0f} tokens/s"
            f"   attention {total / 1e9:,.2f} GFLOP, {flops / 1e9:,.1f} GFLOP/s"
        )
    if ablations := clock.rate("ablations", "ablation"):
        told.append(f"{counts['ablations']:,.0f} ablations (heads x examples), {ablations:,.0f} a second")
    if backward := clock.rate("backward_examples", "backward"):
        told.append(f"{backward:,.1f} examples/s forward and backward")
    return told


def _certainties(run: Run, sure: Certainty | None) -> list[str]:
    """How much of the ranking by ablation stands."""
    if sure is None or sure.differs is None:
        return []
    k = min(run.manifest["top_k"], sure.rank.size)
    wide = sure.rank_high - sure.rank_low + 1
    firm = int((sure.top_k_share >= SURE).sum())
    return [
        f" certain  I differs from zero for {int(sure.differs.sum())} of {sure.rank.size} heads (all tests together: Holm, 5%;"
        " an interval above is of its head alone);"
        f" surely among the top {k} by I (in {SURE:.1%} of bootstrap samples): {firm};"
        f" places that the 95% interval of a rank spans: {int(np.median(wide))} (median), and 1 for"
        f" {int((wide == 1).sum())} of them"
    ]


def _top_table(run: Run, results: Results) -> Any:
    import polars as pl

    heads = pl.read_parquet(run.path / "tables" / "heads.parquet")
    rows = {(row["layer"], row["head"]): row for row in heads.iter_rows(named=True)}
    others = [name for name in ("G", "F", "Ppred", "U", "Urel") if name in heads.columns]
    shown = [(name, f"{name}_raw") for name in results.measured] + [(name, name) for name in others]
    intervals = [
        (name, low, high)
        for name, low, high in (("combined", "combined_low", "combined_high"), ("I", "I_low", "I_high"))
        if name in heads.columns
    ]
    told_sure = "top_k_share" in heads.columns and heads["top_k_share"].null_count() < heads.height
    by = " by combined" if "I" in heads.columns else ""
    share = [f"in top {run.manifest['top_k']}{by}"] if told_sure else []
    titles = [
        "layer",
        "head",
        *[name if heads[low].is_null().all() else f"{name} [95%]" for name, low, _ in intervals],
        *share,
        *[name for name, _ in shown],
    ]
    told: list[list[str]] = []
    for each in run.manifest["top"]["heads"]:
        row = rows[each["layer"], each["head"]]
        cells = [str(row["layer"]), str(row["head"])]
        cells += [
            f"{row[name]:.3g}" + ("" if row[low] is None else f" [{row[low]:.3g}, {row[high]:.3g}]")
            for name, low, high in intervals
        ]
        cells += [f"{row['top_k_share']:.0%}" for _ in share]
        cells += ["" if row.get(column) is None else f"{row[column]:.3g}" for _, column in shown]
        told.append(cells)
    return Fitted(titles, told, left=0)


def _combined(run: Run, measured: Mapping[str, Measured], ask: SimpleNamespace) -> dict[str, list[Any]]:
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
    told = {"combined_low": low, "combined_high": high, "top_k_share": among.mean(0)}
    if max(int(result.n) for result in parts.values()) < 2:  # one example says nothing of how sure it is
        told = dict.fromkeys(told, np.full(value.shape, None))
    return {name: array.ravel().tolist() for name, array in ({"combined": value} | told).items()}


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


def show_plan(run: Run, adapter: Adapter, all_passes: list[Pass], units: int, plan: dict[str, Any]) -> Path:
    """What the run would do, on stdout."""
    each_bytes = adapter.dtype.itemsize
    widest = max(
        (len(batch) * int(p.examples.lengths[batch].max()) for p in all_passes for batch in p.batches), default=0
    )
    weights = adapter.parameters * each_bytes
    memory = weights + widest * adapter.geometry.width * 16 * each_bytes + 16 * BLOCK_ELEMENTS[adapter.runs_on.type]
    done = units if run.done else run.parts_there(plan)
    fields: dict[str, Any] = {
        "parts": units, "parts_done": done, "parts_left": units - done,
        "passes": {p.name: len(p.examples) for p in all_passes}, "batches": sum(len(p.batches) for p in all_passes),
        "examples": max((len(p.examples) for p in all_passes), default=0),
        "tokens": max((p.examples.tokens for p in all_passes), default=0), "model_bytes": weights, "memory_bytes": memory,
    }  # fmt: skip
    return session.show_plan(run, fields, device=adapter.runs_on.type)
