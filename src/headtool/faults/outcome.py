"""From gathered trials to what a reader gets: tables, figures, the closing words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from headtool.console import Aligned, Fitted
from headtool.faults import cost, gather
from headtool.faults.calibration import Seen, kv_equal
from headtool.faults.gather import Gathered
from headtool.faults.guard import Limits
from headtool.figures import files
from headtool.figures.fault_bounds import fault_bounds
from headtool.figures.fault_rates import fault_rates
from headtool.figures.overheads import overheads
from headtool.models.sites import SITES
from headtool.record import tables

if TYPE_CHECKING:
    from headtool.faults.sequences import Sequences
    from headtool.models.adapter import Adapter
    from headtool.record.run import Run

TOP_BITS = 3


@dataclass(frozen=True)
class Findings:
    """What a run came to, before it is written: clean is what each clean sequence showed, by its number."""

    trials: Gathered
    clean: Mapping[int, Seen]
    limits: Limits
    performance: Mapping[str, list[float]]


def write(run: Run, adapter: Adapter, sequences: Sequences, found: Findings, ask: SimpleNamespace) -> None:
    """Write the tables and figures of a run."""
    g, lines = adapter.geometry, ask.jsonl
    trials, detectors, marks = found.trials, found.trials.detectors, ask.marks
    made = tables.build(
        "trials", gather.trials(trials, adapter.dtype, marks), detector=detectors, steps=[str(step) for step in marks]
    )
    run.write("trials", made, lines=lines)
    run.write("sequences", tables.build("sequences", _sequences(sequences, found)), lines=lines)
    summary = tables.build("summary", gather.summary(trials))
    run.write("summary", summary, lines=lines)
    whole_of = summary.filter(site="all", layer=-1, bit=-1).drop("site", "layer", "bit")
    run.manifest["metrics"] = whole_of.rename({"n": "faults"}).row(0, named=True)
    alarms = _clean_alarms(found, sequences)
    told = gather.detectors(trials, alarms, f"bounds:{ask.bounds}")
    if told:
        run.write("detectors", tables.build("detectors", told), lines=lines)
    apart = np.stack([seen.apart for seen in found.clean.values()])
    equal = [bool(each.all()) for each in kv_equal(apart, adapter.dtype).T]
    shapes = next(iter(found.clean.values())).shapes.tolist()
    k_shape, v_shape = ([str(tuple(layer[i])) for layer in shapes] for i in (0, 1))
    worst = [float(x) if np.isfinite(x) else None for x in apart.max(0)]
    kv: dict[str, list[Any]] = {
        "layer": list(range(g.layers)), "kv_equal": equal, "k_shape": k_shape, "v_shape": v_shape,
        "largest_difference": worst,
    }  # fmt: skip
    run.write("kv_check", tables.build("kv_check", kv), lines=lines)
    bounds = None
    if ask.bounds != "none":
        tested = {i: seen for i, seen in found.clean.items() if i in sequences.tested}
        hit = trials if gather.violations(trials) is not None else None
        bounds = tables.build("bounds", gather.bounds(hit, tested, ask.bounds, ask.epsilon))
        run.write("bounds", bounds, lines=lines)
    performance = tables.build("performance", cost.columns(found.performance))
    run.write("performance", performance, lines=lines)
    label = run.manifest["model"]["label"]
    figures = {
        "fault_rates": fault_rates(
            summary, f"{label}: {len(trials.faults):,} faults ({ask.pattern}), {ask.phase} phase"
        )
    }
    if bounds is not None and bounds.height:
        figures["bounds"] = fault_bounds(bounds, f"{label}: softmax bounds ({ask.bounds}, {ask.epsilon})")
    figures["overheads"] = overheads(performance, f"{label}: what is added to a forward pass")
    for name, figure in figures.items():
        files.save(figure, run.path / "figures" / name)


def _sequences(sequences: Sequences, found: Findings) -> dict[str, list[Any]]:
    numbers = range(len(sequences.examples))
    return {
        "sequence": list(numbers),
        "part": ["calibration" if i in sequences.calibration else "trial" for i in numbers],
        "tokens": [json.dumps(sequences.examples.ids(i).tolist()) for i in numbers],
        "source_row": sequences.rows,
        "length": sequences.examples.lengths.tolist(),
        "loss": [found.clean[i].loss for i in numbers],
    }


def _clean_alarms(found: Findings, sequences: Sequences) -> dict[str, np.ndarray]:
    """Detector -> (sequence, layer) bool: alarms on the clean sequences that no limit was set by."""
    unseen = [seen for i, seen in found.clean.items() if i in sequences.tested]
    each = {}
    for name, limit in found.limits.limits.items():
        largest = np.stack([seen.largest[name] for seen in unseen])  # (sequence, layer, quantity)
        each[name] = (largest > limit.numpy()).any(-1)
    made = {"all": np.logical_or.reduce(list(each.values()))} | each if each else {}
    violated = np.stack([seen.violated > 0 for seen in unseen])
    return made | {f"bounds:{reference}": violated for reference in ("self", "golden")}


def closing(run: Run, ask: SimpleNamespace) -> list[Any]:
    """The closing words: rates, detectors, times, memory, what is left behind."""
    from rich.text import Text

    facts, clock = run.manifest["model"], run.clock
    summary = pl.read_parquet(run.path / "tables" / "summary.parquet")
    head = (
        f" inject  {facts['label']}  {facts['layers']} x {facts['heads']} heads  {facts['dtype']} {facts['device']}"
        f"  {run.manifest['trials']:,} faults ({ask.pattern})  {ask.phase} phase"
    )
    columns = ["site", "faults", "harmful [95%]", "inf, NaN", "worst bits"]
    columns += ["caught [95%]", "needless"] if "caught" in summary.columns else []
    told = []
    whole_sites = {row["site"]: row for row in summary.filter(layer=-1, bit=-1).iter_rows(named=True)}
    for row in (whole_sites[name] for name in ("all", *SITES) if name in whole_sites):
        bits = summary.filter(site=row["site"], layer=-1).filter(pl.col("bit") >= 0, pl.col("harmful") > 0)
        worst = bits.sort("harmful_rate", "bit", descending=True)["bit"][:TOP_BITS].to_list()
        cells = [
            row["site"],
            f"{row['n']:,} on {row['elements']:,}",
            _rate(row, "harmful"),
            f"{row['nonfinite']:,}",
            " ".join(map(str, worst)),
        ]
        if "caught" in summary.columns:
            cells += [_rate(row, "caught"), f"{row['needless']:,}"]
        told.append(cells)
    shown: list[Any] = [Text(head, style="bold"), Fitted(columns, told)]
    if "detectors" in run.manifest["tables"]:
        shown.append(_detectors(run))
    lines = [" faults   on so many elements, and those of one are alike"]
    if "caught" in summary.columns:
        lines[0] += "; caught by any detector but the bounds; needless: alarms at those that do no harm"
    lines += _harm(run, ask)
    lines += [f" phases   {'   '.join(f'{name} {seconds:.1f} s' for name, seconds in clock.wall.items())}"]
    if rate := clock.rate("trials", "trials"):
        lines.append(f" rate     {rate:,.1f} faults/s")
    lines += _performance(run)
    lines.append(f" memory   {run.memory()}")
    lines.append(f" left     {run.left()}")
    return [*shown, Aligned(lines)]


def _harm(run: Run, ask: SimpleNamespace) -> list[str]:
    """What counts as harmful, and what those did: their loss up or down, or not finite, which counts as harmful too."""
    by_loss = pl.col("outcome") == "harmful"
    told = pl.read_parquet(run.path / "tables" / "trials.parquet").select(
        up=(by_loss & (pl.col("loss_diff") > 0)).sum(),
        down=(by_loss & (pl.col("loss_diff") < 0)).sum(),
        nonfinite=(pl.col("outcome") == "nonfinite").sum(),
    )
    up, down, nonfinite = told.row(0)
    by = f"the loss by more than {ask.harm:.3g} of it and {ask.harm_floor:.3g} nats"
    return [f" harmful  {up:,} raise {by}, {down:,} lower it so, {nonfinite:,} are not finite"]


def _rate(row: Mapping[str, Any], kind: str) -> str:
    if row[f"{kind}_rate"] is None:
        return "-"
    low, high = 100 * row[f"{kind}_low"], 100 * row[f"{kind}_high"]
    return f"{row[f'{kind}_rate']:.1%} [{low:.1f}, {high:.1f}]"


def _detectors(run: Run) -> Any:
    frame = pl.read_parquet(run.path / "tables" / "detectors.parquet")
    bounded = frame["detector"].str.starts_with("bounds:").any()
    told = []
    for row in frame.iter_rows(named=True):
        name = "all but bounds" if row["detector"] == "all" and bounded else row["detector"]
        high = row["false_positive_high"]
        told.append(
            [name, _rate(row, "caught"), f"{row['needless']:,} of {row['harmless']:,}",
             f"{row['false_positives']:,} of {row['clean']:,}", "-" if high is None else f"{high:.2%}"]
        )  # fmt: skip
    return Fitted(("detector", "caught [95%]", "needless", "false positives", "at most (95%)"), told)


def _performance(run: Run) -> list[str]:
    rows = {r["metric"]: r for r in pl.read_parquet(run.path / "tables" / "performance.parquet").iter_rows(named=True)}
    median = {name: row["median"] for name, row in rows.items()}
    times = "  ".join(
        f"{name.removesuffix('_forward_s').replace('_s', '')} "
        f"{'+' if name in ('bounds_s', 'detection_s') else ''}{1e3 * median[name]:.1f} ms"
        for name in ("baseline_forward_s", "injected_forward_s", "bounds_s", "detection_s", "total_s")
        if name in median
    )
    over = "  ".join(
        f"{name.removeprefix('overhead_').removesuffix('_pct')} {median[name]:+.0f}%"
        + ("" if rows[name]["std"] is None else f" ± {rows[name]['std']:.0f}")
        for name in median
        if name.startswith("overhead_")
    )
    runs = rows["total_s"]["runs"]
    spread = "one run" if runs == 1 else f"median and deviation of {runs} ratios, run by run"
    batch = f"{median['batch']:.0f} x {median['tokens_a_sequence']:.0f} tokens"
    flops = f"attention {median['attention_gflop']:.2f} GFLOP, {1e3 * median['attention_tflops']:.1f} GFLOP/s of the plain pass"
    return [
        f" a pass   {batch}",
        f"          {times}",
        f" overhead {over} of the plain pass ({spread}; less in a larger model)",
        f" work     {flops}",
    ]
