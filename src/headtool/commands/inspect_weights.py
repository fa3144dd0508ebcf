"""headtool inspect-weights: what the weights of a checkpoint are like, read from its files."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from headtool import completion, ranks
from headtool import options as opt
from headtool.console import Console
from headtool.errors import HeadtoolError

if TYPE_CHECKING:
    from headtool.record.run import Run
    from headtool.weights.examine import Wish
    from headtool.weights.inspection import Inspection

GROUP, CLUSTERS = "Weights", "Embedding"
PathOrId = Annotated[
    str,
    typer.Argument(
        metavar="PATH_OR_ID",
        help="A model folder, a .safetensors file, a hub id (id@revision), 'demo' or 'demo-encoder'.",
        autocompletion=completion.complete_models,
        show_default=False,
    ),
]
Heads = Annotated[bool, opt.flag("--heads/--no-heads", help="The table of heads.", group=GROUP)]
Diff = Annotated[
    str | None,
    opt.flag(
        "--diff",
        metavar="OTHER",
        help="Compare with another checkpoint of the same model, tensor by tensor and head by head.",
        group=GROUP,
        autocompletion=completion.complete_models,
    ),
]
Spectrum = Annotated[
    Literal["auto", "none"],
    opt.flag("--spectrum", help="Singular values of every matrix, or statistics of the values alone.", group=GROUP),
]
RankTol = Annotated[
    str,
    opt.flag(
        "--rank-tol",
        metavar="X|numpy",
        help="rank counts singular values above X times the largest; numpy: X = max(rows, cols) 2^-23.",
        group=GROUP,
    ),
]
Alpha = Annotated[bool, opt.flag("--alpha", help="Fit a power law to the tail of each spectrum.", group=GROUP)]
ZeroEps = Annotated[float, opt.flag("--zero-eps", help="Up to this size a value counts as zero.", group=GROUP)]
Include = Annotated[
    str | None,
    opt.flag(
        "--include",
        metavar="GLOBS",
        help="Only parameters that fit one of these, such as '*.3.self_attn.*'.",
        group=GROUP,
    ),
]
Exclude = Annotated[
    str | None, opt.flag("--exclude", metavar="GLOBS", help="No parameters that fit one of these.", group=GROUP)
]
AllowPickle = Annotated[
    bool,
    opt.flag("--allow-pickle", help="Read PyTorch pickles too, with weights_only=True (imports torch).", group=GROUP),
]
Format = Annotated[
    Literal["json", "jsonl"] | None,
    opt.flag("--format", help="Write the tables in this format too; Parquet and CSV are always written.", group=GROUP),
]
Figures = Annotated[bool, opt.flag("--figures/--no-figures", help="Draw the figures.", group=GROUP)]
Embedding = Annotated[bool, opt.flag("--embedding", help="Cluster the rows of the word embedding.", group=CLUSTERS)]
KMethod = Annotated[
    Literal["elbow", "silhouette", "calinski"],
    opt.flag("--k-method", help="How the number of clusters is chosen.", group=CLUSTERS),
]
KMax = Annotated[int, opt.flag("--k-max", min=3, max=512, help="Clusters at most.", group=CLUSTERS)]
Clusters = Annotated[
    int | None, opt.flag("--clusters", min=1, max=4096, help="Take this number of clusters.", group=CLUSTERS)
]
Sample = Annotated[
    int,
    opt.flag(
        "--sample", min=100, help="Rows that the number of clusters is chosen on, a seeded sample.", group=CLUSTERS
    ),
]


def command(
    path: PathOrId,
    heads: Heads = True,
    embedding: Embedding = False,
    diff: Diff = None,
    rank_tol: RankTol = "numpy",
    spectrum: Spectrum = "auto",
    alpha: Alpha = False,
    zero_eps: ZeroEps = 1e-8,
    include: Include = None,
    exclude: Exclude = None,
    k_method: KMethod = "elbow",
    k_max: KMax = 40,
    clusters: Clusters = None,
    sample: Sample = 16_000,
    allow_pickle: AllowPickle = False,
    format: Format = None,
    figures: Figures = True,
    family: opt.Family = None,
    threads: opt.Threads = 0,
    seed: opt.Seed = 42,
    out: opt.Out = None,
    force: opt.Force = False,
    shard: opt.Shard = None,
    dry_run: opt.DryRun = False,
    config: opt.Config = None,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
    debug: opt.Debug = False,
) -> Path:
    """Look at a checkpoint's weights without building the model: statistics, spectra, heads, clusters, differences.

    [bold]headtool inspect-weights demo[/]
    [bold]headtool inspect-weights demo --include '*self_attn*' --alpha[/]
    [bold]headtool inspect-weights demo --embedding --k-max 12[/]
    [bold]run=$(headtool inspect-weights demo -q) && head -3 $run/tables/heads.csv[/]

    Reads one tensor at a time; of a model on the hub only the bytes that it needs. Leaves tables and figures in a run directory.
    """
    arguments: dict[str, Any] = dict(locals())
    share = ranks.share(shard)
    console = Console(quiet=quiet, verbose=verbose, json=json, silent=share.launched and share.index > 0)
    tolerance = _tolerance(rank_tol)
    opt.named(include=include, exclude=exclude, diff=diff)
    if not 0 <= zero_eps < math.inf:
        raise HeadtoolError(f"--zero-eps {zero_eps}: not a number from 0", hint="for example --zero-eps 1e-8")
    if alpha and spectrum == "none":
        raise HeadtoolError("--alpha is fitted to spectra", hint="leave out --spectrum none")
    from headtool.record.session import carry_out

    if not embedding:
        names = ("k_method", "k_max", "clusters", "sample")
        opt.idle(command, arguments, names, "is of the clusters of the embedding", "add --embedding")
    if clusters is not None:
        opt.idle(
            command,
            arguments,
            ("k_method", "k_max"),
            "chooses the number that --clusters gives",
            "leave one of them out",
        )
    if spectrum == "none":
        opt.idle(command, arguments, ("rank_tol",), "is of spectra", "leave out --spectrum none")
    from headtool.weights.examine import Wish
    from headtool.weights.inspection import inspect

    wish = Wish(zero_eps, tolerance, spectrum == "auto", alpha)
    ask = SimpleNamespace(**arguments | {"include": opt.globs(include), "exclude": opt.globs(exclude), "wish": wish})
    found = inspect(str(path), ask)
    inputs: dict[str, Any] = {"model": found.checkpoint.model_id, "weights": found.checkpoint.fingerprint}
    if found.checkpoint.revision:
        inputs["revision"] = found.checkpoint.revision
    if found.other is not None:
        inputs["other"] = found.other.fingerprint
    return carry_out(
        "inspect-weights",
        arguments,
        inputs,
        label=found.checkpoint.label,
        console=console,
        share=share,
        work=lambda run: _run(run, found, ask),
    )


def _run(run: Run, found: Inspection, ask: SimpleNamespace) -> Path:
    """Examine what is missing, and, where that completes the set, merge and write."""
    from headtool.record.files import read_part, write_part
    from headtool.weights import outcome, summary
    from headtool.weights.inspection import do
    from headtool.weights.work import ROOM, Room, ready, spread

    console = run.console
    for text in found.notes:
        console.note(text)
    for text in found.warnings:
        console.warn(text)
    if ask.dry_run:
        return _show_plan(run, found, ask.wish)
    ready(ask.wish)
    parts = run.parts(found.plan)
    own = [task for i, task in enumerate(found.tasks) if run.share.owns(i)]
    left = sorted((t for t in own if read_part(parts / t.part) is None), key=lambda t: -t.bytes)
    if len(left) < len(own):
        console.note(f"going on: {len(own) - len(left)} of {len(own)} parts are there")
    room = Room(ROOM + 3 * max(tensor.size for tensor in found.checkpoint.tensors))
    threads = ask.threads or ranks.free_cores()
    done = sum(task.bytes for task in own) - sum(task.bytes for task in left)
    with (
        run.clock.phase("examine"),
        console.progress("examining", sum(task.bytes for task in own), done, unit="bytes") as advance,
    ):
        for task, arrays in spread(left, lambda task: do(found, task, ask.wish, room), min(threads, max(len(left), 1))):
            write_part(parts / task.part, arrays)
            run.clock.count(bytes=task.bytes)
            advance(task.bytes)
    if run.share.launched and run.share.index > 0:
        return run.path  # rank 0 waits for all parts, merges and says so
    if not run.every_part(parts, [task.part for task in found.tasks], wait=run.share.launched):
        console.note("this share is done; the one that completes the set merges it")
        return run.announce()
    with run.merging() as merged_already:
        if not merged_already:
            outcome.write(run, found, parts, ask)
            run.finish()
            return run.conclude(*summary.closing(run, found))
    return run.announce()


def _show_plan(run: Run, found: Inspection, wish: Wish) -> Path:
    """What the run would do, on stdout."""
    from headtool.record.session import show_plan
    from headtool.weights.work import need

    total, memory = sum(task.bytes for task in found.tasks), sum(sorted(need(item, wish) for item in found.items)[-2:])
    done = len(found.tasks) if run.done else run.parts_there(found.plan)
    fields: dict[str, Any] = {
        "parts": len(found.tasks), "parts_done": done, "parts_left": len(found.tasks) - done,
        "tensors": len(found.checkpoint.tensors), "rows": len(found.items), "bytes": total, "memory_bytes": memory,
    }  # fmt: skip
    return show_plan(run, fields)


def _tolerance(text: str | float) -> float | None:
    """The factor of --rank-tol, or None for numpy's."""
    if str(text) == "numpy":
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < 1:
        raise HeadtoolError(f"--rank-tol {text}: neither 'numpy' nor a factor between 0 and 1", hint="for example 1e-6")
    return value
