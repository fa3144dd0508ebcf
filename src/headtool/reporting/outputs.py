"""What a report leaves in its directory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import polars as pl

from headtool.figures import files
from headtool.figures.distribution import distribution
from headtool.figures.headwise import headwise
from headtool.figures.heatmap import heatmaps
from headtool.figures.levels import levels
from headtool.figures.scatter import scatter
from headtool.record import tables
from headtool.record.files import whole, write_text
from headtool.record.run import Run
from headtool.reporting import compare, page
from headtool.reporting.analysis import Analysis
from headtool.reporting.cases import KINDS
from headtool.reporting.join import ALL, Group
from headtool.reporting.statistics import FIELDS, NAMES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINES: Mapping[str, tuple[str, ...]] = {
    "importance_pre": ("I", "loss_base", "loss_ablate", "n"),
    "importance_post": ("I", "loss_base", "loss_ablate", "n"),
    "gradfisher_pre": ("G", "F", "Ppred", "n"),
    "update": ("U", "Urel", "Uq", "Uk", "Uv", "Uo"),
}
PANELS = 12  # heat maps in figures/heads; the page has all
LEFT = (
    "heads.csv",
    "stats.json",
    "cases.json",
    "*.jsonl",
    "fig_*.png",
    "compare_*",
    "report.md",
    "report.html",
    "labels",
)


def write(run: Run, analyses: Sequence[Analysis], ask: SimpleNamespace) -> None:
    """Write every file of a report: tables, JSON, figures and pages. What an earlier report left goes first."""
    for pattern in LEFT:
        for old in run.path.glob(pattern):
            shutil.rmtree(old) if old.is_dir() else old.unlink()
    figures: dict[str, dict[str, bytes]] = {}
    for analysis in analyses:
        label = analysis.group.label
        folder = "" if label == ALL else f"labels/{label}/"
        (run.path / folder).mkdir(parents=True, exist_ok=True)
        _files(run, analysis, folder)
        with run.clock.phase("figures"):
            made = _figures(analysis, f"{_model(analysis)} {'' if label == ALL else label}".strip())
            figures[label] = {name: _save(run, folder, name, figure) for name, figure in made.items()}
    run.write("report", _long(analyses), lines=ask.jsonl)
    run.write("statistics", _statistics(analyses), lines=ask.jsonl)
    comparison = None
    if len(analyses) > 1:
        comparison = compare.metrics(analyses, ask.top_k, ask.seed)
        run.write_json("compare_metrics.json", comparison)
        write_text(run.path / "compare_summary.txt", compare.summary(comparison))
        with run.clock.phase("figures"):
            figures[""] = {name: _save(run, "", name, figure) for name, figure in _compared(analyses).items()}
    with run.clock.phase("pages"):
        for name, text in page.render(analyses, figures, comparison, vars(ask), run.console.warnings).items():
            write_text(run.path / name, text)


def _files(run: Run, analysis: Analysis, folder: str) -> None:
    with whole(run.path / folder / "heads.csv") as file:
        analysis.group.heads.write_csv(file)
    run.write_json(f"{folder}stats.json", analysis.stats())
    run.write_json(f"{folder}cases.json", analysis.all_cases())
    for name, columns in LINES.items():
        rows = [
            row for pair in analysis.group.pairs for row in _rows(pair.tables.get(name), columns, pair.seed, analysis)
        ]
        if rows:
            write_text(
                run.path / folder / f"{name}.jsonl", "".join(json.dumps(r, allow_nan=False) + "\n" for r in rows)
            )


def _rows(frame: pl.DataFrame | None, columns: Sequence[str], seed: int, analysis: Analysis) -> list[dict[str, Any]]:
    """The rows of a table as JSON has them; with several seeds each says its seed."""
    if frame is None:
        return []
    kept = frame.select("layer", "head", *(column for column in columns if column in frame.columns)).to_dicts()
    return [{"seed": seed, **row} for row in kept] if analysis.several else kept


def _long(analyses: Sequence[Analysis]) -> pl.DataFrame:
    """The table "report": every label, seed and head."""
    frames = [
        pair.heads.with_columns(pl.lit(each.group.label).alias("label"), pl.lit(pair.seed).alias("seed"))
        for each in analyses for pair in each.group.pairs
    ]  # fmt: skip
    joined = pl.concat(frames, how="diagonal")
    scores = dict.fromkeys(score for each in analyses for score in each.group.scores)
    return tables.build("report", joined.to_dict(as_series=False), scores)


def _statistics(analyses: Sequence[Analysis]) -> pl.DataFrame:
    rows: list[dict[str, Any]] = []
    for each in analyses:
        made = [(seed, found) for seed, found in each.by_seed.items()]
        for seed, found in [*made, *([(None, each.mean)] if each.several else [])]:
            rows += [
                {"label": each.group.label, "seed": seed, "statistic": name}
                | {field: getattr(found[name], field) for field in FIELDS}
                for name in NAMES
            ]
    return tables.build("statistics", {column: [row[column] for row in rows] for column in rows[0]})


def _model(analysis: Analysis) -> str:
    source = analysis.group.pairs[0].sources[0]
    label = analysis.group.title.replace("$", r"\$")  # matplotlib would read it as mathematics
    return f"{label}: {source.layers} layers x {source.heads} heads"


def _figures(analysis: Analysis, title: str) -> dict[str, Figure]:
    """The figures of one group that its columns allow, by file name."""
    heads = analysis.group.heads
    known = {column for column in heads.columns if heads[column].null_count() < heads.height}
    panels = {title: (heads, _keys(analysis))}
    made: dict[str, Figure] = {}
    for name, x, y in (
        ("fig_I_vs_U", "I_pre", "U"),
        ("fig_I_vs_G", "I_pre", "G"),
        ("fig_Ipre_vs_Ipost", "I_pre", "I_post"),
    ):
        if {x, y} <= known:
            made[name] = scatter(panels, x, *_with_share(y, known), diagonal=y == "I_post")
    if any(statistic.value is not None for statistic in analysis.mean.values()):
        made["fig_stats"] = levels({title: {name: s.as_dict() for name, s in analysis.mean.items()}})
    columns = [c for c in _mapped(analysis.group) if c in known]
    if columns:
        some = f" (the first {PANELS} of {len(columns)} columns)" if len(columns) > PANELS else ""
        made["heads"] = heatmaps(heads, {c: c for c in columns[:PANELS]}, title + some)
    return made


def _with_share(y: str, known: set[str]) -> tuple[str, ...]:
    """U beside Urel, by which its cases go."""
    return ("Urel", "U") if y == "U" and "Urel" in known else (y,)


def _mapped(group: Group) -> list[str]:
    """The columns worth a map: what the statistics are made of, then the scores."""
    return ["I_pre", "I_post", "U", "Urel", "G", "F", "Ppred", *(c for s in group.scores for c in (s, f"{s}_post"))]


def _keys(analysis: Analysis) -> dict[str, set[tuple[int, int]]]:
    return {kind: {(row["layer"], row["head"]) for row in analysis.cases.found[kind]} for kind in KINDS}


def _compared(analyses: Sequence[Analysis]) -> dict[str, Figure]:
    """The figures of a comparison, by file name."""
    groups = {each.group.label: each.group.heads for each in analyses}
    made: dict[str, Figure] = {}
    both = [a for a in analyses if {"I_pre", "U"} <= set(a.group.heads.columns)]
    if both:
        made["compare_I_vs_U"] = scatter(
            {a.group.label: (a.group.heads, _keys(a)) for a in both},
            "I_pre",
            *_with_share("U", set(both[0].group.heads.columns)),
        )
    made["compare_stats"] = levels({a.group.label: {n: s.as_dict() for n, s in a.mean.items()} for a in analyses})
    there = {column for heads in groups.values() for column in heads.columns}
    if updates := tuple(c for c in ("Urel", "U") if c in there):
        made["compare_update_dist"] = distribution(groups, updates)
    columns = tuple(c for c in compare.HEADWISE if all(c in heads.columns for heads in groups.values()))
    if columns:
        labels = list(groups)
        pairs = [(a, groups[a], b, groups[b]) for i, a in enumerate(labels) for b in labels[i + 1 :]]
        made["compare_headwise"] = headwise(pairs, columns)
    return made


def _save(run: Run, folder: str, name: str, figure: Figure) -> bytes:
    """Write a figure under figures/ as PNG and SVG (a label's own beside its tables, as PNG), and return the PNG."""
    picture = files.png(figure) if folder else files.save(figure, run.path / "figures" / name)
    if folder or name != "heads":  # the names that scripts look for stand at the top
        with whole(run.path / folder / f"{name}.png") as file:
            file.write(picture)
    return picture
