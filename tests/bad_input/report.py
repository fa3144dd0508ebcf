"""headtool report: what is no run, and runs that do not go together."""

import json
from pathlib import Path

import numpy as np

import runs
from bad_input.case import case, file, folder


def pair():
    """Runs of one model before and after, of seed 1: pre-1, grad-1, post-1."""
    runs.pair(Path("."), 1)


def changed(run: str, **facts: object):
    def change() -> None:
        file = Path(run, "manifest.json")
        file.write_text(json.dumps(json.loads(file.read_text()) | facts))

    return change


def other(**shape):
    """A run of another model."""
    settled = {"layers": 6, "heads": 8} | {k: v for k, v in shape.items() if k in ("layers", "heads")}
    n = settled["layers"] * settled["heads"]
    return lambda: runs.make(Path("other"), {"importance": runs.importance(np.arange(n) / n)}, **shape) and None


def table(change):
    def make() -> None:
        change(Path("pre-1/tables/importance.parquet"))

    return make


def layers(count: int):
    """A manifest that says so many layers."""

    def make() -> None:
        facts = json.loads(Path("pre-1/manifest.json").read_text())["model"]
        changed("pre-1", model=facts | {"layers": count})()

    return make


TWO = "runs of one model before and after"
CASES = (
    case("report", "give a RUN"),
    case("report nothing", "nothing: there is no such run directory"),
    case("report file", "file: is no directory", "`file` is a file", file("file", "x")),
    case("report folder", "folder: no run directory: there is no manifest.json", "an empty folder", folder("folder")),
    case("report folder", "folder/manifest.json: not JSON", "manifest.json is cut", file("folder/manifest.json", "{")),
    case("report folder", "folder/manifest.json: no manifest of a run", "manifest.json holds a list", file("folder/manifest.json", "[1]")),
    case("report folder", "folder: no run: its manifest names no command", "manifest.json says nothing but done", file("folder/manifest.json", {"status": "done"})),
    case("report folder", "folder/manifest.json: not JSON", "manifest.json is deep as a well", file("folder/manifest.json", "[" * 100_000)),
    case("report pre-1", "pre-1: the run is not finished: it was interrupted, or is at work", "a run that is still running", pair, changed("pre-1", status="running"), hint="leave it out, or finish it: headtool score toy --config pre-1/config.yaml --out pre-1"),
    case("report pre-1", "pre-1: the run is not finished: it was interrupted, or is at work", "an unfinished finetune", pair, changed("pre-1", status="running", command="finetune"), hint="leave it out, or finish it by the same command again"),
    case("report pre-1", "pre-1: the run is not finished: its status is 'failed' (out of memory)", "a run that failed", pair, changed("pre-1", status="failed", error="out of memory")),
    case("report pre-1", "pre-1: a run of 'score' that has no table of heads", "a run without tables", pair, changed("pre-1", tables={})),
    case("report pre-1", "pre-1: a run of 'finetune', not of 'score'", "a run of finetune", pair, changed("pre-1", command="finetune", tables={}), hint="score a checkpoint of it, and report that: headtool score pre-1/ckpt_final"),
    case("report pre-1", "pre-1: a run of 'score' that has no table of heads", "tables is a list", pair, changed("pre-1", tables=[1])),
    case("report pre-1", "pre-1/tables/importance.parquet: the table is damaged or was changed since the run", "a table that was changed", pair, table(lambda f: f.write_bytes(f.read_bytes()[:-9] + b"different"))),
    case("report pre-1", "pre-1/tables/importance.parquet: the table is missing", "a table that is missing", pair, table(lambda f: f.unlink())),
    case("report pre-1", "pre-1/tables/importance.parquet: its rows are not the 7 x 8 heads of the model", "a manifest that says 7 layers", pair, layers(7)),
    case("report pre-1", "pre-1/tables/importance.parquet: its rows are not the 1000000000000 x 8 heads of the model", "a manifest that says a million million layers", pair, layers(10**12)),
    case("report pre-1 other", "runs of different models: pre-1 is of toy (llama, 6 x 8 heads), other is of toy (llama, 5 x 8 heads)", "a run of 5 layers", pair, other(layers=5)),
    case("report pre-1 other", "runs of different models: pre-1 is of toy (llama, 6 x 8 heads), other is of toy (llama, 6 x 4 heads)", "a run of 4 heads a layer", pair, other(heads=4)),
    case("report pre-1 other", "runs of different models: pre-1 is of toy (llama, 6 x 8 heads), other is of toy (bert, 6 x 8 heads)", "a run of another family", pair, other(family="bert")),
    case("report pre-1 other", "runs of different models, both of seed 1: pre-1 and other", "a run of another model of the same seed", pair, other(model="x", seed=1)),
    case("report pre-1 --top-k 49", "--top-k 49: the model has 48 heads", TWO, pair),
    case("report pre-1 --top-k 0", "invalid value for '--top-k': ...", TWO, pair),
    case("report pre-1 --p-low 90", "--p-low 90 --p-high 90: not 0 <= low < high <= 100", TWO, pair),
    case("report pre-1 --p-high 101", "--p-low 30 --p-high 101: not 0 <= low < high <= 100", TWO, pair),
    case("report pre-1 --p-low -1", "--p-low -1 --p-high 90: not 0 <= low < high <= 100", TWO, pair),
    case("report pre-1 --p-low nan", "--p-low nan --p-high 90: not 0 <= low < high <= 100", TWO, pair),
    case("report pre-1 --seed -1", "invalid value for '--seed': ...", TWO, pair),
    case("report pre-1 --compare FULL", "--compare FULL: not of the form LABEL=RUN,RUN", TWO, pair),
    case("report pre-1 --compare =a", "--compare =a: not of the form LABEL=RUN,RUN", TWO, pair),
    case("report pre-1 --compare FULL=", "--compare FULL=: not of the form LABEL=RUN,RUN", TWO, pair),
    case("report pre-1 --compare ../up=a", "--compare ../up=a: not of the form LABEL=RUN,RUN", TWO, pair),
    case("report pre-1 --compare FULL=a", "--compare: there is only one label, FULL", TWO, pair),
    case("report pre-1 --compare FULL=a --compare full=b", "--compare: the label full is given twice", TWO, pair),
    case("report pre-1 --compare FULL=a --compare LORA=b", "a: there is no such run directory", TWO, pair),
    case("report pre-1 --out pre-1 --force", "--out pre-1: one of the runs to report", TWO, pair),
)  # fmt: skip
