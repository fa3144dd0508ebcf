"""headtool report: what finished runs say together of each attention head."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headtool import completion
from headtool import options as opt
from headtool.console import Aligned, Console, Fitted
from headtool.errors import HeadtoolError
from headtool.ranks import Share

if TYPE_CHECKING:
    from headtool.record.run import Run
    from headtool.reporting.analysis import Analysis
    from headtool.reporting.join import Group as Joined
    from headtool.reporting.source import Source

GROUP = "Report"
SHOWN = 5  # cases of a kind in the closing words
LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
COMPARED = "for example --compare FULL=runs/a,runs/b --compare LORA=runs/a,runs/c"
Runs = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="RUN...",
        help="Run directories of one model, before and after fine-tuning, of any seeds.",
        autocompletion=completion.complete_scored,
        show_default=False,
    ),
]
Compare = Annotated[
    list[str] | None,
    opt.flag(
        "--compare",
        metavar="LABEL=RUN,RUN",
        help="The runs of one method; repeat for the others. A RUN given apart joins each label that it fits.",
        group=GROUP,
    ),
]
High = Annotated[float, opt.flag("--p-high", help="Percentile from which a value is large.", group=GROUP)]
Low = Annotated[float, opt.flag("--p-low", help="Percentile up to which a value is small.", group=GROUP)]
Html = Annotated[bool, opt.flag("--html/--no-html", help="Write report.html.", group=GROUP)]
Seed = Annotated[
    int, opt.flag("--seed", min=0, max=opt.SEEDS, help="Seed of permutations and bootstrap samples.", group=GROUP)
]


def command(
    runs: Runs = None,
    compare: Compare = None,
    top_k: opt.TopK = None,
    p_high: High = 90.0,
    p_low: Low = 30.0,
    html: Html = True,
    seed: Seed = 42,
    out: opt.Out = None,
    force: opt.Force = False,
    dry_run: opt.DryRun = False,
    config: opt.Config = None,
    json: opt.Json = False,
    jsonl: opt.JsonLines = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
    debug: opt.Debug = False,
) -> Path:
    """Join finished runs head by head: statistics, cases, figures, pages.

    [bold]headtool report $(headtool score demo -q)[/]
    [bold]run=$(headtool score demo -q) && headtool report $run --top-k 5 --no-html[/]
    [bold]headtool report $(headtool score demo --scores ablation -q) $(headtool score demo --scores gradient -q)[/]

    Finds the runs before and after fine-tuning by their models' hashes; leaves tables and one page that needs no network.
    """
    arguments: dict[str, Any] = dict(locals())
    console = Console(quiet=quiet, verbose=verbose, json=json)
    if not 0 <= p_low < p_high <= 100:
        raise HeadtoolError(
            f"--p-low {p_low:g} --p-high {p_high:g}: not 0 <= low < high <= 100", hint="for example 30 and 90"
        )
    labels = _labels(compare)
    groups = _groups([Path(each) for each in runs or ()], labels, console)
    from headtool.record.session import carry_out

    everything = list(dict.fromkeys(s for group in groups for pair in group.pairs for s in pair.sources))
    first = everything[0]
    top = opt.top(top_k, first.layers * first.heads)
    if out is not None and Path(out).resolve() in {source.path.resolve() for source in everything}:
        raise HeadtoolError(f"--out {out}: one of the runs to report", hint="choose another --out")
    content = {group.label: [s.facts() for pair in group.pairs for s in pair.sources] for group in groups}
    inputs = {"runs": [str(s.path) for s in everything], "data": content}
    ask = SimpleNamespace(**arguments | {"top_k": top})
    return carry_out(
        "report",
        arguments,
        inputs,
        label=first.title,
        console=console,
        share=Share(),
        work=lambda run: _run(run, groups, everything, ask),
    )


def _run(run: Run, groups: list[Joined], everything: list[Source], ask: SimpleNamespace) -> Path:
    if ask.dry_run:
        return _show_plan(run, groups, everything)
    from headtool.reporting import outputs
    from headtool.reporting.analysis import analyse

    run.manifest["top_k"] = ask.top_k
    first = groups[0].pairs[0].sources[0]
    run.manifest["model"] = first.manifest["model"] | {"label": groups[0].title}
    with run.clock.phase("statistics"):
        analyses = [
            analyse(each, top_k=ask.top_k, p_high=ask.p_high, p_low=ask.p_low, seed=ask.seed) for each in groups
        ]
    if not any(pair.post for group in groups for pair in group.pairs):
        run.console.note("no run has --init: nothing is said of what fine-tuning moved")
    if all(statistic.value is None for analysis in analyses for statistic in analysis.mean.values()):
        run.console.note("the runs have no two columns that a statistic compares: there are tables and maps alone")
    run.manifest["metrics"] = {
        each.group.label: {name: one.value for name, one in each.mean.items() if one.value is not None}
        for each in analyses
    }
    with run.clock.phase("write"):
        outputs.write(run, analyses, ask)
    run.finish()
    return run.conclude(*_summary(run, analyses, ask))


def _labels(compare: list[str] | None) -> dict[str, list[Path]]:
    """Label -> runs of --compare. Raises HeadtoolError for what is not LABEL=RUN,RUN, and for a single label."""
    labels: dict[str, list[Path]] = {}
    for given in compare or ():
        label, equals, listed = given.partition("=")
        label, paths = label.strip(), [Path(each.strip()) for each in listed.split(",") if each.strip()]
        if not equals or not LABEL.fullmatch(label) or not paths:
            hint = f"{COMPARED}; from Python runs are one list: report([run, run])"
            raise HeadtoolError(f"--compare {given}: not of the form LABEL=RUN,RUN", hint=hint)
        if label.lower() in {known.lower() for known in labels}:  # a label names a folder, and some do not tell case
            raise HeadtoolError(f"--compare: the label {label} is given twice", hint=COMPARED)
        labels[label] = paths
    if len(labels) == 1:
        raise HeadtoolError(f"--compare: there is only one label, {next(iter(labels))}", hint=COMPARED)
    return labels


def _groups(paths: list[Path], labels: dict[str, list[Path]], console: Console) -> list[Joined]:
    """The runs read, checked and paired: one group a label, or one of all."""
    if not paths and not labels:
        there = f"; the newest in runs: {' '.join(newest)}" if (newest := completion.newest_scored()) else ""
        raise HeadtoolError("give a RUN", hint=f"a run directory, as 'headtool score' prints it{there}")
    from headtool.reporting import join
    from headtool.reporting.source import read

    known: dict[Path, Source] = {}
    for path in (*paths, *(path for each in labels.values() for path in each)):
        if path not in known:
            known[path] = read(path)
    join.check_one_model(list(known.values()))
    if not labels:
        return [join.group(join.ALL, join.distinct([known[path] for path in paths], console), console)]
    inside = {path.resolve() for each in labels.values() for path in each}
    offered = join.distinct([known[path] for path in paths], console)
    groups = [
        join.group(label, join.distinct([known[path] for path in each], console), console, offered)
        for label, each in labels.items()
    ]
    used = {source for group in groups for pair in group.pairs for source in pair.sources}
    for source in offered:
        if source not in used and source.path.resolve() not in inside:
            console.note(f"{source.path} fits no label of --compare and is left out")
    return groups


def _show_plan(run: Run, groups: list[Joined], sources: list[Source]) -> Path:
    """What the report would be made of, on stdout."""
    from headtool.record.session import word

    roles = {
        str(source.path): f"{group.label}\tseed {pair.seed}\t{when}\t{', '.join(source.tables)}"
        for group in groups for pair in group.pairs
        for when, members in (("pre", pair.pre), ("post", pair.post)) for source in members
    }  # fmt: skip
    fields: dict[str, Any] = {
        "run": str(run.path), "done": run.done, "runs": len(sources), "heads": groups[0].heads.height,
        "labels": [group.label for group in groups],
        "seeds": sorted({pair.seed for group in groups for pair in group.pairs}),
    }  # fmt: skip
    lines = [(name, word(name, value)) for name, value in fields.items()]
    run.console.plan([*lines, *roles.items()], fields | {"roles": roles})
    return run.path


def _may_be_none(row: Mapping[str, Any]) -> bool:
    return row.get("I_pre_differs") is False


def _heads(rows: Sequence[Mapping[str, Any]], kind: str) -> str:
    """The first cases of a kind by layer and head; with a question mark where importance is not known to differ from 0."""
    named = [
        f"L{row['layer']}H{row['head']}{'?' if kind == 'important_but_static' and _may_be_none(row) else ''}"
        for row in rows[:SHOWN]
    ]
    return f"{' '.join(named)}{' ...' if len(rows) > SHOWN else ''}; " if named else ""


def _summary(run: Run, analyses: list[Analysis], ask: SimpleNamespace) -> list[Any]:
    """The closing words: the statistics with their chance levels, the cases, and where the page is."""
    from rich.console import Group
    from rich.text import Text

    from headtool.reporting.cases import criteria
    from headtool.reporting.maps import small
    from headtool.reporting.statistics import FEWEST

    facts = run.manifest["model"]
    told: list[Any] = [Text(f" report  {facts['label']}  {facts['layers']} x {facts['heads']} heads", style="bold")]
    closing: list[str] = []
    for each in analyses:
        label = f"{each.group.label} " if len(analyses) > 1 else ""
        mean = f"mean of {len(each.by_seed)} seeds" if each.several else "value"
        made = {name: statistic for name, statistic in each.mean.items() if statistic.value is not None}
        rows = [
            [name, f"{one.value:.3f}", "" if one.ci_low is None else f"{one.ci_low:.2f} to {one.ci_high:.2f}", str(one.n),
             f"{one.chance:.3f}", small(one.p)]
            for name, one in made.items()
        ]  # fmt: skip
        if made:
            told.append(Fitted((f"{label}statistic", mean, "95% interval", "n", "chance", "p"), rows))
        if each.cases.thresholds:
            found = (
                f"{kind.replace('_', ' ')} {each.cases.count(kind)} ({_heads(each.cases.found[kind], kind)}"
                f"chance {each.cases.expected[kind]:.1f})"
                for kind in each.cases.found
            )
            closing.append(f" cases    {label}{'   '.join(found)}")
    if any(_may_be_none(row) for each in analyses for row in each.cases.found["important_but_static"][:SHOWN]):
        closing.append(" ?        whose I_pre is not known to differ from 0")
    n = facts["layers"] * facts["heads"]
    if closing and n >= FEWEST:
        met = criteria(n, ask.top_k, ask.p_high, ask.p_low)
        told_met = ", ".join(f"{what} in {p:.0%}" for what, p in met.items())
        closing.append(f" context  columns of random numbers, too, have {told_met} of cases; top is {ask.top_k}")
    closing.append(f" page     {'report.html' if ask.html else 'report.md'}")
    return [Group(*told, Aligned(closing))]
