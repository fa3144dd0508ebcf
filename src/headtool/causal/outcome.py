"""From what every configuration came to, to what a reader gets: tables, metrics.json, figures, summary.md, closing words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from headtool.causal.course import Part
from headtool.causal.experiments import MEDIAN, PLAIN
from headtool.console import Aligned, Fitted
from headtool.figures import files
from headtool.figures.curves import curves
from headtool.figures.dots import dots
from headtool.record import tables
from headtool.record.files import write_text
from headtool.record.run import Run

# Metrics with a figure each: title, what the value should be (None where less, or more, is better).
FIGURES = {
    "mae": ("mean absolute error", None), "mdae": ("median absolute error", None),
    "picp_95": ("share of values inside the 95% interval", 0.95), "width_median_95": ("median width of the 95% interval", None),
    "nll": ("negative log-likelihood of the numbers (nats)", None), "pinball_80": ("pinball loss of the 80% interval", None),
    "accuracy_ovr": ("token accuracy, largest P", None), "accuracy_softmax": ("token accuracy, largest loc", None),
    "ece_ovr": ("calibration error of the largest P", 0.0), "loss_cls": ("token loss (nats)", None),
}  # fmt: skip
COURSE = {
    "loss_cls": "token loss (nats)", "loss_reg": "number loss (nats; softmax_l1: its own unit)", "scale_u": "mean scale of U",
    "accuracy_softmax": "token accuracy, largest loc", "sum_p": "sum of P over the vocabulary", "grad_norm": "gradient norm",
}  # fmt: skip
SHOWN = {
    "mae": "MAE", "mdae": "MdAE", "r2": "R2", "picp_95": "PICP 95%", "width_median_95": "median width 95%",
    "pinball_80": "pinball 80%", "nll": "NLL", "accuracy_ovr": "accuracy (P)", "accuracy_softmax": "accuracy (loc)",
    "num_f1_softmax": "F1 of <NUM> (loc)", "ece_ovr": "ECE (P)",
}  # fmt: skip
BRIEF = ("mae", "mdae", "picp_95", "width_median_95", "nll", "accuracy_softmax")
BASELINES = (MEDIAN, PLAIN)
SLIGHT = 0.05  # of the median's error: who is better by less has learnt next to nothing


def write(run: Run, found: Mapping[str, Part], what: str, *, lines: bool) -> None:
    """Write the tables results, training and predictions, metrics.json, the figures and summary.md."""
    _results(run, found, lines)
    _training(run, found, lines)
    _predictions(run, found, lines)
    content = {name: {"settings": part["settings"], "results": part["results"]} for name, part in found.items()}
    run.write_json("metrics.json", content)
    first = next(iter(found))
    run.manifest["metrics"] = {
        name: {d: {m: r.get(m) for m in BRIEF} for d, r in found[name]["results"].items()}
        for name in (first, *(b for b in BASELINES if b in found))
    }
    for dataset in _guessed(found):
        told = (
            "is hardly smaller than the median's, which reads nothing: more --epochs, a larger --lr, a smaller --gamma0"
        )
        run.console.warn(f"{first} has learnt no number of {dataset}: its mean absolute error {told}")
    _figures(run, found)
    write_text(run.path / "summary.md", summary(run.manifest, found, what))


def _guessed(found: Mapping[str, Part]) -> list[str]:
    """The data sets whose numbers the first configuration says hardly better than their median: its absolute error is not
    smaller by a twentieth, and by twice the standard error of the difference, number by number.
    """
    first, reads_nothing = (found[name]["predictions"] for name in (next(iter(found)), MEDIAN))
    told = []
    for dataset, own in first.items():
        value, ours, guess = (
            np.array(of[name], float)
            for of, name in ((own, "value"), (own, "median"), (reads_nothing[dataset], "median"))
        )
        guessed = np.abs(guess - value)
        gain = guessed - np.abs(ours - value)
        if len(gain) > 1 and gain.mean() <= max(2 * gain.std(ddof=1) / np.sqrt(len(gain)), SLIGHT * guessed.mean()):
            told.append(dataset)
    return told


def _results(run: Run, found: Mapping[str, Part], lines: bool) -> None:
    rows = [
        (name, dataset, metric, value)
        for name, part in found.items()
        for dataset, metrics in part["results"].items()
        for metric, value in metrics.items()
    ]
    columns = dict(zip(("config", "dataset", "metric", "value"), map(list, zip(*rows, strict=True)), strict=True))
    run.write("results", tables.build("results", columns), lines=lines)


def _training(run: Run, found: Mapping[str, Part], lines: bool) -> None:
    columns: dict[str, list] = {c.name: [] for c in tables.TABLES["causal.training"].columns}
    for name, part in found.items():
        course = part["training"]
        n = len(course.get("step", ()))
        for column, values in columns.items():
            values += [name] * n if column == "config" else course.get(column, [None] * n)
    run.write("causal.training", tables.build("causal.training", columns), lines=lines)


def _predictions(run: Run, found: Mapping[str, Part], lines: bool) -> None:
    columns: dict[str, list] = {c.name: [] for c in tables.TABLES["predictions"].columns}
    for name, part in found.items():
        for dataset, seen in part["predictions"].items():
            n = len(seen["value"])
            given = {"config": [name] * n, "dataset": [dataset] * n, **seen}
            for column, values in columns.items():
                values += given.get(column, [None] * n)
    run.write("predictions", tables.build("predictions", columns), lines=lines)


def _figures(run: Run, found: Mapping[str, Part]) -> None:
    datasets = list(next(iter(found.values()))["results"])
    for metric, (title, target) in FIGURES.items():
        values = {d: {n: part["results"][d].get(metric) for n, part in found.items()} for d in datasets}
        fewest = 2 if target is None else 1  # there is something to compare with
        if any(sum(v is not None for v in each.values()) >= fewest for each in values.values()):
            files.save(dots(title, values, BASELINES, target=target), run.path / "figures" / metric)
    courses = {name: part["training"] for name, part in found.items() if part["training"]}
    files.save(curves(COURSE, courses), run.path / "figures" / "training")


def summary(manifest: Mapping[str, Any], found: Mapping[str, Part], what: str) -> str:
    """summary.md: a table a data set, and what the first configuration wins or loses against the baselines."""
    text = [f"# {manifest['model']['label']}: {what}", ""]
    for dataset in next(iter(found.values()))["results"]:
        of = {name: part["results"][dataset] for name, part in found.items()}
        shown = [m for m in SHOWN if any(each.get(m) is not None for each in of.values())]
        text += [f"## {dataset}", "", f"| configuration | {' | '.join(SHOWN[m] for m in shown)} |"]
        text += [f"|---|{'---|' * len(shown)}"]
        text += [f"| {name} | {' | '.join(_told(m, each.get(m)) for m in shown)} |" for name, each in of.items()]
        text += ["", *_verdict(of), ""]
    text += [
        "`median` reads nothing: it says the median of the training values, and their central intervals. `softmax_l1` is the",
        "same decoder with its own softmax head and a linear regression by absolute error; its intervals are the quantiles of",
        "its errors on the training rows. One seed: nothing here says what another would have given.",
        "Every metric is in `tables/results`.",
        "",
    ]
    return "\n".join(text)


def _verdict(of: Mapping[str, Mapping[str, float | None]]) -> list[str]:
    first = next(iter(of))
    inside = of[first].get("picp_95")
    covered = [] if inside is None else [f"{inside:.1%} of the values are inside the 95% interval"]
    said = _ratios(of, ("mae", "mdae", "pinball_80")) + covered
    return [f"`{first}`: {'; '.join(said)}."] if said else []


def _ratios(of: Mapping[str, Mapping[str, float | None]], metrics: Sequence[str]) -> list[str]:
    """Each metric of the first configuration as so many times the baselines'."""
    own, said = of[next(iter(of))], []
    for metric in metrics:
        others = {name: of.get(name, {}).get(metric) for name in BASELINES}
        told = [f"{mine / other:.2f} times {name}'s" for name, other in others.items()
                if (mine := own.get(metric)) is not None and other]  # fmt: skip
        said += [f"{SHOWN[metric]} {', '.join(told)}"] if told else []
    return said


def _told(metric: str, value: float | None) -> str:
    if value is None:
        return ""
    share = metric.startswith(("picp", "accuracy", "num_f1", "ece"))
    return f"{value:.1%}" if share else f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def closing(run: Run, found: Mapping[str, Part]) -> list[Any]:
    """The closing words: what was trained on what, how it went, where time and memory went, what is left behind."""
    from rich.text import Text

    facts, data, clock = run.manifest["model"], run.manifest["data"], run.clock
    head = (
        f" causal-train  {facts['label']}  {facts['parameters']:,} parameters  {facts['dtype']} {facts['device']}"
        f"  {data['train']['examples']:,} examples"
    )
    metrics = ("mae", "mdae", "picp_95", "width_median_95", "pinball_80", "accuracy_softmax")
    told, lines = [], []
    for dataset in next(iter(found.values()))["results"]:
        of = {name: part["results"][dataset] for name, part in found.items()}
        told += [[dataset, name, *(_told(m, each.get(m)) for m in metrics)] for name, each in of.items()]
        if said := _ratios(of, ("mae", "pinball_80")):
            lines.append(f" against  {dataset}, {next(iter(of))}: {'; '.join(said)}")
    phases = "   ".join(f"{name} {seconds:.1f} s" for name, seconds in clock.wall.items())
    lines.append(f" phases   {phases}")
    examples, tokens = (clock.rate(name, "train") for name in ("examples", "tokens"))
    if examples and tokens:
        lines.append(f" rate     {examples:,.1f} examples/s   {tokens:,.0f} tokens/s")
    lines.append(f" memory   {run.memory()}")
    lines.append(f" left     {run.left('model', 'metrics.json', 'summary.md')}")
    return [
        Text(head, style="bold"),
        Fitted(("data set", "configuration", *(SHOWN[m] for m in metrics)), told, left=2),
        Aligned(lines),
    ]
