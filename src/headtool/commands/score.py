"""headtool score: how important, focused and task-aligned each attention head is."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from headtool import folder, ranks
from headtool import options as opt
from headtool.console import Console
from headtool.errors import HeadtoolError

if TYPE_CHECKING:
    from headtool.models.adapter import Adapter
    from headtool.models.locate import Located
    from headtool.record.run import Run
    from headtool.scores.measure import Pass

GROUP = "Scores"
ALL = folder.names("headtool.scores")
Scores = Annotated[
    str,
    opt.flag("--scores", help=f"A list of {', '.join(ALL)}.", group=GROUP, autocompletion=opt.complete_scores),
]
QueryFlag = Annotated[
    Literal["auto", "last", "first", "all"],
    opt.flag(
        "--query", help="Which position asks: auto is the last for decoders, the first for encoders.", group=GROUP
    ),
]
ExcludeBos = Annotated[
    bool, opt.flag("--exclude-bos", help="Leave the first token out of the attention rows.", group=GROUP)
]
Norm = Annotated[
    Literal["zscore", "percentile"], opt.flag("--norm", help="How scores are normalised within a layer.", group=GROUP)
]
LambdaEnt = Annotated[float, opt.flag("--lambda-ent", help="Weight of ent in combined.", group=GROUP)]
LambdaTask = Annotated[float, opt.flag("--lambda-task", help="Weight of task in combined.", group=GROUP)]
RankScope = Annotated[
    Literal["layer", "global"],
    opt.flag("--rank-scope", help="Ranks in combined are among the heads of the layer, or of the model.", group=GROUP),
]
TopK = Annotated[int, opt.flag("--top-k", min=1, help="Heads in topk_global.json.", group=GROUP)]
TopKLayer = Annotated[int, opt.flag("--top-k-layer", min=1, help="Heads a layer in topk_per_layer.json.", group=GROUP)]


def command(
    model: opt.Model,
    scores: Scores = "out,ent,task,combined",
    query: QueryFlag = "auto",
    exclude_bos: ExcludeBos = False,
    norm: Norm = "zscore",
    lambda_ent: LambdaEnt = 0.5,
    lambda_task: LambdaTask = 1.0,
    rank_scope: RankScope = "layer",
    top_k: TopK = 20,
    top_k_layer: TopKLayer = 5,
    data: opt.Data = None,
    task: opt.Task = None,
    field: opt.Field = None,
    question_marker: opt.QuestionMarker = None,
    choices_marker: opt.ChoicesMarker = None,
    limit: opt.Limit = None,
    subset: opt.Subset = "1024",
    subset_seed: opt.SubsetSeed = 999,
    batch_size: opt.BatchSize = "auto",
    max_length: opt.MaxLength = 512,
    seed: opt.Seed = 42,
    family: opt.Family = None,
    device: opt.Device = "auto",
    dtype: opt.Dtype = "auto",
    threads: opt.Threads = 0,
    out: opt.Out = None,
    force: opt.Force = False,
    shard: opt.Shard = None,
    dry_run: opt.DryRun = False,
    config: opt.Config = None,
    json: opt.Json = False,
    jsonl: opt.JsonLines = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
    debug: opt.Debug = False,
) -> Path:
    """Score every attention head of a model.

    [bold]headtool score demo[/]
    [bold]headtool score demo --scores out,ent,induction --query all[/]
    [bold]run=$(headtool score demo-encoder -q) && head -5 $run/tables/heads.csv[/]

    Leaves tables, top heads and heat maps in a run directory, and prints that directory.
    """
    arguments: dict[str, Any] = {name: value for name, value in locals().items()}
    from headtool.models import layout
    from headtool.models.locate import locate
    from headtool.record.run import Run
    from headtool.tasks import load

    share = ranks.share(shard)
    console = Console(quiet=quiet, verbose=verbose, json=json, silent=share.launched and share.index > 0)
    names = _names(scores)
    opt.number_or("auto", batch_size, "--batch-size")
    opt.number_or("all", subset, "--subset")
    for flag, value in (("--lambda-ent", lambda_ent), ("--lambda-task", lambda_task)):
        if not math.isfinite(value):
            raise HeadtoolError(f"{flag} {value}: not a finite number", hint=f"for example {flag} 0.5")
    load.check(data, task, field or ())
    located = locate(model)
    layout.find(located.model_type, family)
    inputs = located.fingerprint() | {"data": load.fingerprint(data, task)}
    target = Path(out) if out is not None else None
    ask = SimpleNamespace(**arguments)
    with Run.start(
        "score",
        arguments,
        inputs,
        label=located.label,
        out=target,
        force=force,
        console=console,
        share=share,
        dry=dry_run,
    ) as run:
        if run.done and not dry_run:
            console.note("done already; --force does it again")
            return run.announce()
        return _run(run, located, names, ask)


def _run(run: Run, located: Located, names: tuple[str, ...], ask: SimpleNamespace) -> Path:
    """Open, read, measure what is missing, and, where that completes the set, merge and write."""
    from headtool.models.open import open_model
    from headtool.record.files import read_part
    from headtool.scores import measure, outcome

    with run.clock.phase("open"):
        adapter = open_model(
            located, device=ask.device, dtype=ask.dtype, family=ask.family, threads=ask.threads, weights=not ask.dry_run
        )
    run.console.detail(
        f"{located.folder}: {adapter.located.model_type}, {adapter.kind}, {adapter.parameters:,} parameters, "
        f"{adapter.dtype} on {adapter.device}; its heads are where the layout says"
    )
    with run.clock.phase("data"):
        passes, facts = _passes(run, adapter, names, ask)
    units = [(each, group) for each in passes for group in range(len(each.groups))]
    for each in passes:
        sizes = [len(batch) for batch in each.batches]
        run.console.detail(
            f"{each.name}: {', '.join(each.scores)} at the {each.query} position(s) of {len(each.examples)} examples, "
            f"{len(sizes)} batches of {min(sizes)} to {max(sizes)}, {len(each.groups)} parts"
        )
    plan = {
        "device": adapter.runs_on.type,
        "dtype": str(adapter.dtype),
        "batches": [[len(b) for b in p.batches] for p in passes],
    }
    if ask.dry_run:
        return _show_plan(run, adapter, passes, len(units), plan)
    run.manifest["model"] = outcome.model_facts(adapter)
    run.manifest["data"] = facts
    parts = run.parts(plan)
    own = [unit for i, unit in enumerate(units) if run.share.owns(i)]
    left = [unit for unit in own if read_part(parts / unit[0].part(unit[1])) is None]
    if len(left) < len(own):
        run.console.note(f"going on: {len(own) - len(left)} of {len(own)} parts are there")
    with run.clock.phase("forward"), run.console.progress("scoring", len(own), len(own) - len(left)) as advance:
        for each, group in left:
            run.clock.count(**measure.work(adapter, each, group, parts))
            advance(1)
    names_of_parts = [each.part(group) for each, group in units]
    if run.share.launched and run.share.index > 0:
        return run.path  # rank 0 waits for all parts, merges and says so
    if not run.every_part(parts, names_of_parts, wait=run.share.launched):
        run.console.note("this share is done; the one that completes the set merges it")
        return run.announce()
    with run.merging() as merged_already:
        if not merged_already:
            with run.clock.phase("write"):
                measured = {name: result for each in passes for name, result in measure.merge(each, parts).items()}
                outcome.write(run, adapter, names, measured, ask)
            run.finish()
            run.console.show(*outcome.summary(run, measured))
    return run.announce()


def _passes(
    run: Run, adapter: Adapter, names: tuple[str, ...], ask: SimpleNamespace
) -> tuple[list[Pass], dict[str, Any]]:
    """What has to be measured, on what: the data for output norms and attention rows, repeated tokens for patterns."""
    from headtool.scores import combined, measure

    needed = [*names, *(combined.PARTS if "combined" in names else ())]
    needs = {name: measure.score_module(name).NEEDS for name in needed}
    on_data = [name for name, need in needs.items() if need in ("output", "rows")]
    on_repeats = [name for name, need in needs.items() if need == "repeats"]
    passes: list[Pass] = []
    facts: dict[str, Any] = {}
    if on_data:
        data_pass, facts = _data_pass(run, adapter, on_data, ask)
        passes.append(data_pass)
    if on_repeats:
        passes.append(measure.repeats_pass(adapter, tuple(on_repeats), _batch_size(ask), ask.exclude_bos, ask.seed))
    return passes, facts


def _data_pass(run: Run, adapter: Adapter, names: list[str], ask: SimpleNamespace) -> tuple[Pass, dict[str, Any]]:
    """The examples that --data and --task name, in batches; what the manifest says of them."""
    from headtool.models.batches import Examples
    from headtool.scores.measure import Pass, Query, tokens_a_batch
    from headtool.tasks import load
    from headtool.tasks.example import Markers

    console, encoder = run.console, not adapter.layout.causal
    if ask.data is None and ask.task is None:
        console.note("neither --data nor --task: the built-in task 'demo'")
    markers = Markers(ask.question_marker, ask.choices_marker)
    subset = opt.number_or("all", ask.subset, "--subset")
    chosen = load.choose(
        data=ask.data, task=ask.task, encoder=encoder, fields=ask.field or (), markers=markers, limit=ask.limit,
        subset=subset, subset_seed=ask.subset_seed,
    )  # fmt: skip
    for note in chosen.notes:
        console.note(note)
    longest = min(ask.max_length, adapter.longest)
    encodings = load.encode(chosen.examples(), adapter.tokenizer, longest)
    examples = Examples(encodings, pad=adapter.pad, types=adapter.has_types)
    if examples.cut:
        why = "--max-length" if longest == ask.max_length else "all that the model has room for"
        console.note(f"{examples.cut} of {len(examples)} examples are cut to {longest} tokens ({why})")
    if examples.largest >= adapter.vocabulary:
        hint = "the tokenizer is another model's"
        raise HeadtoolError(
            f"the tokenizer gives token {examples.largest}, the model knows {adapter.vocabulary}", hint=hint
        )
    if "task" in names:
        if chosen.shape.SPANS or markers != Markers():
            if not examples.with_span:
                raise load.no_span(chosen.name)
            console.note(f"the task span was found in {examples.with_span} of {len(examples)} examples")
        else:
            names = [name for name in names if name != "task"]
            console.warn(f"rows of {chosen.name} have no task span: 'task' is left out")
    if not names:
        hint = "name others with --scores, or the span with --question-marker"
        raise HeadtoolError("no score is left to measure", hint=hint)
    query: Query = ask.query if ask.query != "auto" else "first" if encoder else "last"
    batches = examples.plan(_batch_size(ask), tokens_a_batch(adapter))
    facts = {
        "name": chosen.name, "shape": chosen.shape.NAMES[0], "rows": chosen.readable, "examples": len(examples),
        "with_span": examples.with_span, "tokens": examples.tokens, "max_length": longest, "query": query,
        "subset": chosen.kept.tolist(),
    }  # fmt: skip
    return Pass("data", examples, batches, tuple(names), query, ask.exclude_bos, ask.seed), facts


def _batch_size(ask: SimpleNamespace) -> int | None:
    return opt.number_or("auto", ask.batch_size, "--batch-size")


def _show_plan(run: Run, adapter: Adapter, passes: list[Pass], units: int, plan: dict[str, Any]) -> Path:
    """What the run would do, on stdout."""
    from headtool.models.attention import BLOCK_ELEMENTS
    from headtool.record.clock import human_bytes

    each_bytes = adapter.dtype.itemsize
    widest = max(len(batch) * int(p.examples.lengths[batch].max()) for p in passes for batch in p.batches)
    weights = adapter.parameters * each_bytes
    memory = weights + widest * adapter.geometry.width * 16 * each_bytes + 16 * BLOCK_ELEMENTS[adapter.runs_on.type]
    done = units if run.done else run.parts_there(plan)
    fields: dict[str, Any] = {
        "run": str(run.path), "parts": units, "parts_done": done, "parts_left": units - done,
        "batches": sum(len(p.batches) for p in passes), "examples": sum(len(p.examples) for p in passes),
        "tokens": sum(p.examples.tokens for p in passes), "model_bytes": weights, "memory_bytes": memory,
    }  # fmt: skip
    told = fields | {"model_bytes": human_bytes(weights), "memory_bytes": human_bytes(memory)}
    run.console.result("\n".join(f"{name}\t{value}" for name, value in told.items()), fields)
    return run.path


def _names(scores: str) -> tuple[str, ...]:
    """The scores asked for, each once, in the order given. Raises HeadtoolError for an unknown or empty list."""
    names = tuple(dict.fromkeys(name.strip() for name in scores.split(",") if name.strip()))
    if not names:
        raise HeadtoolError("--scores is empty", hint=f"the scores are {', '.join(folder.names('headtool.scores'))}")
    for name in names:
        if name not in folder.names("headtool.scores"):
            folder.load("headtool.scores", name, "score")  # a plug-in's, or an error that says which there are
    return names
