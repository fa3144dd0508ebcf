"""headtool score: how important, focused and task-aligned each attention head is."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from headtool import completion, folder, ranks
from headtool import options as opt
from headtool.console import Console
from headtool.errors import HeadtoolError

if TYPE_CHECKING:
    from headtool.models.locate import Located
    from headtool.record.run import Run

GROUP = "Scores"
FORMAT = 2  # of the parts of a pass; those of another are made again
HEAVIEST = 1e6  # a weight in combined: what it is multiplied with are ranks
ALL = folder.names("headtool.scores")
Scores = Annotated[
    str,
    opt.flag("--scores", help=f"A list of {', '.join(ALL)}.", group=GROUP, autocompletion=completion.complete_scores),
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
Ablate = Annotated[
    Literal["zero", "mean", "resample"],
    opt.flag(
        "--ablate",
        help="What takes an ablated head's place: nothing, its mean output, its output on another example.",
        group=GROUP,
    ),
]
AblateError = Annotated[
    float | None,
    opt.flag(
        "--ablate-error",
        metavar="X",
        help="Ablate on a growing sample until I is known to +-X (95%) as all examples would give it.",
        group=GROUP,
    ),
]
AblateBudget = Annotated[
    float | None,
    opt.flag("--ablate-budget", metavar="SECONDS", help="The same for as long as the ablations may take.", group=GROUP),
]
AblateUntil = Annotated[
    Literal["error", "top-k"],
    opt.flag(
        "--ablate-until", help="top-k: a head whose place inside or outside the top k is clear is known.", group=GROUP
    ),
]
Verify = Annotated[
    int, opt.flag("--verify", min=0, help="Ablate this many random heads the naive way too, and compare.", group=GROUP)
]
Init = Annotated[
    str | None,
    opt.flag(
        "--init",
        metavar="CKPT",
        help="The checkpoint before fine-tuning, for update.",
        group=GROUP,
        autocompletion=completion.complete_models,
    ),
]
IncludeBias = Annotated[bool, opt.flag("--include-bias", help="Count the biases of q, k and v in update.", group=GROUP)]
Memory = Annotated[
    str,
    opt.flag(
        "--memory",
        metavar="SIZE|auto",
        help="Memory for an ablation's forward pass, such as 2GB: how many heads are stacked.",
        group=GROUP,
    ),
]
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
    ablate: Ablate = "zero",
    ablate_error: AblateError = None,
    ablate_budget: AblateBudget = None,
    ablate_until: AblateUntil = "error",
    verify: Verify = 3,
    init: Init = None,
    include_bias: IncludeBias = False,
    memory: Memory = "auto",
    top_k: opt.TopK = None,
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
    device_map: opt.DeviceMap = "none",
    max_memory: opt.MaxMemory = None,
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
    [bold]headtool score demo-encoder --scores ablation,gradient[/]
    [bold]run=$(headtool score demo-encoder -q) && head -5 $run/tables/heads.csv[/]

    Scores: out, resid (how large its output is), ent, ent_rel (how
    concentrated its attention), task (attention to the question), combined
    (ranks of out, ent, task added up), previous, first, duplicate, induction
    (patterns); ablation (I: how much the loss rises without it), gradient,
    fisher (G, F: of the loss), update (U: how far it moved from --init).

    Leaves tables, top heads and heat maps in a run directory, and prints that directory.
    """
    arguments: dict[str, Any] = {name: value for name, value in locals().items()}
    from headtool.models import layout
    from headtool.models.locate import locate
    from headtool.record.session import carry_out
    from headtool.scores import idle
    from headtool.tasks import load

    share = ranks.share(shard)
    console = Console(quiet=quiet, verbose=verbose, json=json, silent=share.launched and share.index > 0)
    names = _names(scores)
    opt.number_or("auto", batch_size, "--batch-size")
    opt.number_or("all", subset, "--subset")
    opt.memory(memory)
    opt.named(task=task, question_marker=question_marker, choices_marker=choices_marker)
    for flag, value in (("--lambda-ent", lambda_ent), ("--lambda-task", lambda_task)):
        if not abs(value) <= HEAVIEST:
            hint = f"for example {flag} 0.5"
            raise HeadtoolError(f"{flag} {value}: not a number from -{HEAVIEST:g} to {HEAVIEST:g}", hint=hint)
    for flag, limit_of in (("--ablate-error", ablate_error), ("--ablate-budget", ablate_budget)):
        if limit_of is not None and not 0 < limit_of < math.inf:
            raise HeadtoolError(f"{flag} {limit_of}: not a number above 0", hint=f"for example {flag} 0.01")
        if limit_of is not None and share.count > 1 and not share.launched:
            hint = "torchrun starts processes that do"
            raise HeadtoolError(f"{flag} decides after each round, so all shares must run at the same time", hint=hint)
    sampled = ablate_error is not None or ablate_budget is not None
    if sampled and "ablation" not in names:
        raise HeadtoolError("--ablate-error and --ablate-budget are about ablation", hint="--scores ablation")
    if ablate_until != "error" and not sampled:
        hint = "for example --ablate-error 0.01"
        raise HeadtoolError(f"--ablate-until {ablate_until} needs --ablate-error or --ablate-budget", hint=hint)
    if "update" in names and init is None:
        beside = Path(model).parent / "ckpt_init"
        hint = f"--init {beside}" if beside.is_dir() else "give it with --init"
        raise HeadtoolError("update needs the checkpoint before fine-tuning", hint=hint)
    idle.refuse(command, SimpleNamespace(**arguments), names)
    load.check(data, task, field or ())
    located = locate(model)
    layout.find(located.model_type, family)
    for note in opt.folders(data):
        console.note(note)
    inputs = located.fingerprint() | {"data": load.fingerprint(data, task)}
    spread = opt.spread(device_map, max_memory, device)
    ask = SimpleNamespace(**arguments, spread=spread, before=locate(init) if init is not None else None)
    if ask.before is not None:
        inputs["init_sha256"] = ask.before.fingerprint()["weights_sha256"]
    return carry_out(
        "score",
        arguments,
        inputs,
        label=located.label,
        console=console,
        share=share,
        slow=(
            "headtool.models.open",
            "headtool.scores.passes",
        ),
        work=lambda run: _run(run, located, names, ask),
    )


def _run(run: Run, located: Located, names: tuple[str, ...], ask: SimpleNamespace) -> Path:
    """Open, read, measure what is missing, and, where that completes the set, merge and write."""
    from headtool.models import devices, layout
    from headtool.models.open import kind_of, open_model, same_tokens
    from headtool.record.files import read_part
    from headtool.scores import idle, importance, outcome, passes, rounds
    from headtool.tasks import labels

    console, by_need = run.console, idle.needs(names)
    idle.note(command, ask, by_need, console)
    with run.clock.phase("data"):
        chosen = passes.choose(run, names, layout.find(located.model_type, ask.family).causal, ask)
    with run.clock.phase("open"):
        headless = kind_of(located) == "headless" and set(by_need.values()) & set(passes.LOSSES)
        classes = labels.count(chosen) if headless else None
        adapter = open_model(
            located, device=ask.device, dtype=ask.dtype, family=ask.family, threads=ask.threads,
            weights=not ask.dry_run, classes=classes, seed=ask.seed, spread=ask.spread,
        )  # fmt: skip
    ask.top_k = opt.top(ask.top_k, adapter.geometry.layers * adapter.geometry.heads)
    if ask.top_k_layer > max(adapter.geometry.heads, opt.default(command, "top_k_layer")):
        what = f"--top-k-layer {ask.top_k_layer}: a layer has {adapter.geometry.heads} heads"
        raise HeadtoolError(what, hint="a smaller number")
    if ask.before is not None:
        same_tokens(adapter, ask.before)
    if adapter.drawn:
        console.warn(
            f"the checkpoint has no classifier: one of {classes} classes is drawn at random (seed {ask.seed}), so its "
            "losses, and all that is made of them, are noise; headtool finetune --probe fits one"
        )
    console.detail(
        f"{located.named}: {adapter.located.model_type}, {adapter.kind}, {adapter.parameters:,} parameters, "
        f"{adapter.dtype} on {adapter.device}; its heads are where the layout says"
    )
    with run.clock.phase("data"):
        plan = passes.build(run, adapter, names, chosen, ask)
    units = [(each, group) for each in plan.passes for group in range(len(each.groups))]
    for each in plan.passes:
        sizes = [len(batch) for batch in each.batches]
        console.detail(
            f"{each.name}: {len(each.examples)} examples, {len(sizes)} batches of {min(sizes)} to {max(sizes)}, "
            f"{len(each.groups)} parts"
        )
    decisive = {
        "format": FORMAT,
        "device": adapter.runs_on.type,
        "dtype": str(adapter.dtype),
        "batches": [[len(b) for b in p.batches] for p in plan.passes],
        "parts": [len(p.groups) for p in plan.passes],
        "rows": plan.swept.rows if plan.swept is not None else None,
    }
    if ask.dry_run:
        return outcome.show_plan(run, adapter, plan.passes, len(units), decisive)
    run.manifest["model"] = adapter.facts()
    run.manifest["top_k"] = ask.top_k
    run.manifest["data"] = plan.facts
    parts = run.parts(decisive)
    own = [unit for i, unit in enumerate(units) if run.share.owns(i)]
    left = [unit for unit in own if read_part(parts / unit[0].part(unit[1])) is None]
    if len(left) < len(own):
        console.note(f"going on: {len(own) - len(left)} of {len(own)} parts are there")
    with console.progress("scoring", len(own), len(own) - len(left)) as advance:
        for each, group in left:
            with run.clock.phase(each.phase):
                run.clock.count(**each.work(adapter, group, parts))
            advance(1)
    sampled = None
    if plan.first is not None and plan.swept is not None:
        sampled = rounds.sampled(run, adapter, plan.swept, plan.first, parts, ask)
    if told := devices.caveat(adapter.runs_on):
        console.warn(told)
    if run.share.launched and run.share.index > 0:
        return run.path  # rank 0 waits for all parts, merges and says so
    if not run.every_part(parts, [each.part(group) for each, group in units], wait=run.share.launched):
        console.note("this share is done; the one that completes the set merges it")
        return run.announce()
    with run.merging() as merged_already:
        if not merged_already:
            with run.clock.phase("write"):
                found = {each.name: each.merge(parts) for each in plan.passes}
                if sampled is not None:
                    found["ablation"] = sampled
            if plan.swept is not None:
                with run.clock.phase("verify"):
                    importance.verify(run, adapter, plan.swept, found["ablation"], ask)
            with run.clock.phase("write"):
                results = outcome.write(run, adapter, names, found, ask)
            run.finish()
            return run.conclude(*outcome.summary(run, results))
    return run.announce()


def _names(scores: str) -> tuple[str, ...]:
    """The scores asked for, each once, in the order given. Raises HeadtoolError for an unknown or empty list."""
    names = tuple(dict.fromkeys(name.strip() for name in scores.split(",") if name.strip()))
    if not names:
        raise HeadtoolError("--scores is empty", hint=f"the scores are {', '.join(folder.names('headtool.scores'))}")
    for name in names:
        if name not in folder.names("headtool.scores"):
            folder.load("headtool.scores", name, "score")  # a plug-in's, or an error that says which there are
    return names
