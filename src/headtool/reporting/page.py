"""The pages for readers: report.md, and report.html, which holds all it needs."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from headtool import __version__
from headtool.record.tables import TABLES
from headtool.reporting import maps
from headtool.reporting.analysis import Analysis, settled
from headtool.reporting.cases import KINDS, TOLD, criteria
from headtool.reporting.join import INTERVALS, Pair
from headtool.reporting.source import READ
from headtool.reporting.statistics import FEWEST, NAMES

CAPTIONS = {
    "fig_I_vs_U": "importance before fine-tuning, and how far the head moved",
    "fig_I_vs_G": "importance before fine-tuning, and gradient importance",
    "fig_Ipre_vs_Ipost": "importance before and after fine-tuning",
    "fig_stats": "the statistics, their 95% intervals, and what chance gives",
    "compare_I_vs_U": "importance before fine-tuning, and how far the head moved",
    "compare_stats": "the statistics, their 95% intervals, and what chance gives",
    "compare_update_dist": "how far the heads moved: distributions",
    "compare_headwise": "head by head",
    "heads": "heat maps",
}
OPEN_MAPS = 6  # heat maps that are shown at once; the rest unfold
BESIDE = {f"I_{when}_{name}" for when in ("pre", "post") for name in INTERVALS if name != "differs"}  # not in the table


def render(
    analyses: Sequence[Analysis],
    figures: Mapping[str, Mapping[str, bytes]],
    comparison: Mapping[str, Any] | None,
    ask: Mapping[str, Any],
    warnings: Sequence[str],
) -> dict[str, str]:
    """File name -> text: report.md, and report.html unless ask says --no-html.

    figures: label -> file name -> PNG; those of the comparison are under "". ask: the arguments of the command. warnings: what a
    reader has to know of how the runs fit together.
    """
    first = analyses[0].group.pairs[0].sources[0]
    facts = {
        "version": __version__, "ask": ask, "warnings": warnings, "captions": CAPTIONS, "comparison": comparison,
        "model": first.manifest["model"] | {"label": analyses[0].group.title},
        "sections": [_section(each, figures.get(each.group.label, {}), ask) for each in analyses],
        "several_labels": len(analyses) > 1, "kinds": KINDS, "palette": maps.palette(), "steps": maps.STEPS,
        "open_maps": OPEN_MAPS, "compared": {name: _uri(png) for name, png in figures.get("", {}).items()},
        "runs": _runs(analyses), "criteria": _criteria(first.layers * first.heads, ask),
    }  # fmt: skip
    loader = jinja2.PackageLoader("headtool.reporting")
    pages = {"report.md": _environment(loader, escape=False).get_template("report.md").render(facts)}
    if ask["html"]:
        pages["report.html"] = _environment(loader, escape=True).get_template("report.html").render(facts)
    return pages


def _environment(loader: jinja2.BaseLoader, escape: bool) -> jinja2.Environment:
    made = jinja2.Environment(
        loader=loader, autoescape=escape, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )  # fmt: skip
    made.filters |= {"number": maps.number, "short": _short, "small": maps.small, "cell": _markdown_cell}
    return made


def _section(analysis: Analysis, figures: Mapping[str, bytes], ask: Mapping[str, Any]) -> dict[str, Any]:
    """Everything the pages say of one group."""
    heads, stats = analysis.group.heads, analysis.stats()
    columns = [column for column in heads.columns if column not in ("layer", "head", *BESIDE)]
    shown = [c for c in columns if heads[c].dtype.is_numeric() and not c.endswith("_sd")]
    about = [c for c in TOLD if c in columns]
    kinds = {
        (row["layer"], row["head"]): kind.replace("_", " ") for kind in KINDS for row in analysis.cases.found[kind]
    }
    table = [[row["layer"], row["head"], kinds.get((row["layer"], row["head"]), ""), *(row[c] for c in columns)]
             for row in heads.iter_rows(named=True)]  # fmt: skip
    return {
        "label": analysis.group.label, "seeds": list(analysis.by_seed), "several": analysis.several,
        "stats": {name: stats[name] for name in NAMES if stats[name]["value"] is not None},
        "absent": {name: stats[name].get("note", "") for name in NAMES if stats[name]["value"] is None},
        "spread": stats.get("spread", {}), "by_seed": stats.get("seeds", {}), "stability": analysis.stability,
        "cases": analysis.all_cases(), "n_heads": heads.height,
        "settled": _settled(analysis.group.pairs),
        "maps": [maps.heat_map(heads, c) for c in shown if heads[c].null_count() < heads.height],
        "columns": ["layer", "head", "case", *columns], "table": table,
        "figures": {name: _uri(png) for name, png in figures.items() if name != "heads"}, "figure_names": list(figures),
        "folder": "" if analysis.group.label == "all" else f"labels/{analysis.group.label}/",
        "case_columns": about, "symbols": _symbols(about),
    }  # fmt: skip


def _symbols(columns: Sequence[str]) -> dict[str, str]:
    """What the columns that cases and statistics are about stand for, in the words of the tables that they come from."""
    docs = {
        c.name: c.doc if c.unit == "1" else f"{c.doc} ({c.unit})" for name in READ[:3] for c in TABLES[name].columns
    }
    docs |= {"I_pre": f"before fine-tuning, {docs['I']}", "I_post": "the same after fine-tuning"}
    docs |= {"I_pre_differs": docs["differs"]}
    docs |= {name: f"before fine-tuning, {docs[name]}" for name in ("G", "F", "Ppred")}
    return {column: docs[column] for column in columns}


def _settled(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    told = []
    for pair in pairs:
        for when in ("pre", "post"):
            if found := settled(pair.heads, when):
                run = next(s for s in getattr(pair, when) if "importance" in s.tables)
                k = run.manifest.get("top_k") or run.manifest["arguments"].get("top_k")
                told.append({"seed": pair.seed, "what": f"I_{when}", "k": k, **found})
    return told


def _criteria(n: int, ask: Mapping[str, Any]) -> dict[str, float]:
    if n < FEWEST:
        return {}
    return criteria(n, ask["top_k"], ask["p_high"], ask["p_low"])


def _runs(analyses: Sequence[Analysis]) -> list[dict[str, Any]]:
    """Every run that was read, once, with its part in the report and its manifest."""
    told: dict[str, dict[str, Any]] = {}
    for analysis in analyses:
        for pair in analysis.group.pairs:
            for when, sources in (("pre", pair.pre), ("post", pair.post)):
                for source in sources:
                    path = str(source.path)
                    one = told.setdefault(path, {"path": path, "source": source, "parts": [], "manifest": ""})
                    label = "" if analysis.group.label == "all" else f"{analysis.group.label}, "
                    one["parts"].append(f"{label}seed {pair.seed}, {when}")
                    one["manifest"] = json.dumps(source.manifest, indent=1, ensure_ascii=False)
    return list(told.values())


def _uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _short(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _markdown_cell(value: object) -> str:
    """Text that a Markdown table or paragraph takes as it is."""
    text = " ".join(str(value).split())
    for mark in "\\`*_{}[]<>|#":
        text = text.replace(mark, "\\" + mark)
    return text
