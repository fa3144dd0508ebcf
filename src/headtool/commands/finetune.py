"""headtool finetune: train a sequence classifier, and keep the model before and after."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any

from headtool import completion, ranks
from headtool import options as opt
from headtool.console import Console
from headtool.errors import HeadtoolError

if TYPE_CHECKING:
    import numpy as np

    from headtool.models.adapter import Adapter
    from headtool.models.locate import Located
    from headtool.record.run import Run
    from headtool.tasks.load import Chosen
    from headtool.tasks.splits import Splits
    from headtool.training.lora import Lora
    from headtool.training.split import Split

GROUP, GROUP_LORA = "Training", "Adapters"

Task = Annotated[
    str | None,
    opt.flag(
        "--task",
        help="mnli, rte, sst2 ... or demo: its rows and classes; or pairs, text: how to read the rows of --train.",
        group=opt.GROUP_DATA,
        autocompletion=completion.complete_class_tasks,
    ),
]
Train = Annotated[
    str | None,
    opt.flag(
        "--train",
        metavar="DATA",
        help="Rows to train on: a file, or a hub data set ID[:CONFIG][:SPLIT].",
        group=opt.GROUP_DATA,
    ),
]
Evaluate = Annotated[
    str | None,
    opt.flag(
        "--eval",
        metavar="DATA",
        help="Rows to evaluate on; default the task's, or a tenth of --train.",
        group=opt.GROUP_DATA,
    ),
]
TextField = Annotated[
    str | None, opt.flag("--text-field", metavar="PATH", help="The field that holds the text.", group=opt.GROUP_DATA)
]
TextField2 = Annotated[
    str | None,
    opt.flag("--text-field2", metavar="PATH", help="The field of a pair's second text.", group=opt.GROUP_DATA),
]
LabelField = Annotated[
    str | None, opt.flag("--label-field", metavar="PATH", help="The field that holds the label.", group=opt.GROUP_DATA)
]
Limit = Annotated[
    int | None, opt.flag("--limit", min=1, help="Read the first N training rows only.", group=opt.GROUP_DATA)
]
Subset = Annotated[
    str, opt.flag("--subset", metavar="N|all", help="Evaluate on a seeded sample of N rows.", group=opt.GROUP_DATA)
]
Epochs = Annotated[float, opt.flag("--epochs", help="Passes over the training rows; 0.5 is half of one.", group=GROUP)]
Rate = Annotated[float, opt.flag("--lr", help="The highest learning rate.", group=GROUP)]
BatchSize = Annotated[int, opt.flag("--batch-size", min=1, help="Examples a step, over all processes.", group=GROUP)]
WeightDecay = Annotated[float, opt.flag("--weight-decay", help="AdamW's weight decay.", group=GROUP)]
Warmup = Annotated[
    float, opt.flag("--warmup", help="Share of the steps in which the learning rate rises.", group=GROUP)
]
Probe = Annotated[
    bool,
    opt.flag("--probe/--no-probe", help="First fit a new classifier alone, on frozen features.", group=GROUP),
]
SaveSteps = Annotated[
    int,
    opt.flag(
        "--save-steps", min=0, help="Steps between checkpoints; 0: each epoch, and every five minutes.", group=GROUP
    ),
]
UseLora = Annotated[
    bool, opt.flag("--lora", help="Train low-rank adapters on the attention, then merge them.", group=GROUP_LORA)
]
LoraRank = Annotated[int, opt.flag("--lora-rank", min=1, help="Rank of an adapter.", group=GROUP_LORA)]
LoraAlpha = Annotated[int, opt.flag("--lora-alpha", min=1, help="Its scale is alpha / rank.", group=GROUP_LORA)]
LoraDropout = Annotated[float, opt.flag("--lora-dropout", help="Dropout at its input.", group=GROUP_LORA)]
LoraTargets = Annotated[
    str, opt.flag("--lora-targets", help="Projections that have one, of q, k, v, o.", group=GROUP_LORA)
]


def command(
    model: opt.Model,
    task: Task = None,
    train: Train = None,
    eval: Evaluate = None,
    field: opt.Field = None,
    text_field: TextField = None,
    text_field2: TextField2 = None,
    label_field: LabelField = None,
    limit: Limit = None,
    subset: Subset = "all",
    subset_seed: opt.SubsetSeed = 999,
    max_length: opt.MaxLength = 256,
    epochs: Epochs = 3.0,
    lr: Rate = 2e-5,
    batch_size: BatchSize = 16,
    weight_decay: WeightDecay = 0.01,
    warmup: Warmup = 0.06,
    probe: Probe = False,
    save_steps: SaveSteps = 0,
    seed: opt.Seed = 42,
    lora: UseLora = False,
    lora_rank: LoraRank = 8,
    lora_alpha: LoraAlpha = 16,
    lora_dropout: LoraDropout = 0.05,
    lora_targets: LoraTargets = "q,k,v,o",
    family: opt.Family = None,
    device: opt.Device = "auto",
    dtype: opt.Dtype = "auto",
    threads: opt.Threads = 0,
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
    """Fine-tune a model as a sequence classifier, and keep it before and after.

    [bold]headtool finetune demo-encoder --task demo --epochs 1[/]
    [bold]headtool finetune demo --task demo --probe --lr 1e-3[/]
    [bold]run=$(headtool finetune demo-encoder --task demo --epochs 1 -q) && headtool score $run/ckpt_final[/]

    Leaves ckpt_init and ckpt_final, the course of the training and metrics in a run directory, and prints that directory.
    """
    arguments: dict[str, Any] = {name: value for name, value in locals().items()}
    from headtool.models import layout
    from headtool.models.locate import locate
    from headtool.record.session import carry_out
    from headtool.tasks import splits

    share = ranks.share(None)
    console = Console(quiet=quiet, verbose=verbose, json=json, silent=share.launched and share.index > 0)
    ask = SimpleNamespace(**arguments)
    _check(ask, share.count)
    adapters = _lora(ask)
    sides = splits.settle(
        task, train, eval, field=field or (), text=text_field, pair=text_field2, label=label_field
    )  # fmt: skip
    located = locate(model)
    layout.find(located.model_type, family)
    for note in opt.folders(train, eval):
        console.note(note)
    inputs = located.fingerprint() | sides.fingerprints()
    return carry_out(
        "finetune",
        arguments,
        inputs,
        label=located.label,
        console=console,
        share=share,
        slow=("headtool.training.course",),
        work=lambda run: _run(run, located, sides, adapters, ask),
    )


def _check(ask: SimpleNamespace, processes: int) -> None:
    """Raise HeadtoolError for numbers that cannot be meant."""
    opt.number_or("all", ask.subset, "--subset")
    opt.named(task=ask.task, text_field=ask.text_field, text_field2=ask.text_field2, label_field=ask.label_field)
    bounds = (
        ("--epochs", ask.epochs, 0 < ask.epochs <= 1e6, "a number above 0, up to a million"),
        ("--lr", ask.lr, 0 < ask.lr < math.inf, "a number above 0"),
        ("--weight-decay", ask.weight_decay, 0 <= ask.weight_decay < math.inf, "a number from 0"),
        ("--warmup", ask.warmup, 0 <= ask.warmup < 1, "a share from 0 to below 1"),
        ("--lora-dropout", ask.lora_dropout, 0 <= ask.lora_dropout < 1, "a share from 0 to below 1"),
    )
    opt.within(command, bounds)
    if ask.batch_size % processes:
        raise HeadtoolError(
            f"--batch-size {ask.batch_size} cannot be shared by {processes} processes", hint="give a multiple of them"
        )


def _lora(ask: SimpleNamespace) -> Lora | None:
    if not ask.lora:
        names = ("lora_rank", "lora_alpha", "lora_dropout", "lora_targets")
        opt.idle(command, vars(ask), names, "without --lora", "add --lora")
        return None
    from headtool.training import lora

    return lora.settle(ask.lora_rank, ask.lora_alpha, ask.lora_dropout, ask.lora_targets)


def _run(run: Run, located: Located, sides: Splits, adapters: Lora | None, ask: SimpleNamespace) -> Path:
    """Read the rows, prepare theta0 or find it prepared, train, save theta1."""
    from headtool.models import classifier
    from headtool.models.locate import locate
    from headtool.tasks import labels, splits
    from headtool.training import course, loop, metrics, outcome

    console = run.console
    with run.clock.phase("data"):
        subset = opt.number_or("all", ask.subset, "--subset")
        chosen = splits.choose(sides, limit=ask.limit, subset=subset, subset_seed=ask.subset_seed, seed=ask.seed)
        for note in (note for side in chosen for note in side.notes):
            console.note(note)
        own = classifier.class_names(located)
        read = [labels.read(side) for side in chosen]
        names = labels.classes(read[0], sides.classes, own)
        numbers = [labels.numbers(side, names) for side in read]
    with run.clock.phase("open"):
        recipe = loop.settle(ask, run.share.count)
        plan = {"device": recipe.device.type, "dtype": str(recipe.dtype), "processes": recipe.ranks}
        place = None if ask.dry_run else course.find(run.path, run.parts(plan), adapters, tidy=run.share.index == 0)
        begun = place is not None and place.begun is not None
        opened = classifier.open_classifier(
            locate(str(place.weights)) if place is not None and begun else located,
            names, device=ask.device, double=ask.dtype == "fp64", family=ask.family, threads=ask.threads,
            seed=ask.seed, weights=not ask.dry_run,
        )  # fmt: skip
    with run.clock.phase("data"):
        train, evaluate = (_split(run, opened.adapter, *side, ask) for side in zip(chosen, numbers, strict=True))
    if place is None:
        return outcome.show_plan(run, opened.adapter, train, evaluate, recipe, adapters)
    if never := [name for number, name in enumerate(names) if not (numbers[0] == number).any()]:
        console.warn(f"no training row is of class {', '.join(map(str, never[:4]))}")
    if own is not None and not classifier.fits(own, names):
        console.note(f"the model's classifier has other classes ({', '.join(own[:4])}): a new one is drawn")
    run.manifest["model"] = opened.adapter.facts() | {
        "label": located.label, "id": located.model_id, "revision": located.revision, "classes": len(names)
    }  # fmt: skip
    run.manifest["data"] = {
        "classes": list(names),
        "train": _facts(chosen[0], train),
        "eval": _facts(chosen[1], evaluate),
    }
    place = course.prepare(run, place, opened, train, recipe, ask.probe)
    finished = course.train(run, place, opened, train, evaluate, recipe, adapters)
    if run.share.index > 0:
        return run.path
    with run.clock.phase("write"):
        drawn = ask.seed if sides.holds_out else ask.subset_seed
        kept = chosen[1].kept.tolist()
        run.write_json("eval_subset.json", {"seed": drawn, "n": len(kept), "rows": kept})
        outcome.write(run, finished, place, recipe, adapters, lines=ask.jsonl)
    if told := metrics.at_chance(finished.evaluations[-1]):
        console.warn(told)
    run.finish()
    return run.conclude(*outcome.summary(run, finished.evaluations))


def _split(run: Run, adapter: Adapter, chosen: Chosen, numbers: np.ndarray, ask: SimpleNamespace) -> Split:
    """One side of the data, encoded."""
    from headtool.models.batches import Examples
    from headtool.tasks import load
    from headtool.training.split import Split, takes_types

    longest = min(ask.max_length, adapter.longest)
    encodings = load.encode(chosen.examples(), adapter.tokenizer, longest)
    examples = Examples(encodings, pad=adapter.pad, types=adapter.has_types)
    if examples.cut:
        why = "--max-length" if longest == ask.max_length else "all that the model has room for"
        run.console.note(f"{examples.cut} of {len(examples)} examples are cut to {longest} tokens ({why})")
    if examples.largest >= adapter.vocabulary:
        hint = "the tokenizer is another model's"
        raise HeadtoolError(
            f"the tokenizer gives token {examples.largest}, the model knows {adapter.vocabulary}", hint=hint
        )
    return Split(examples, numbers, takes_types(adapter))


def _facts(chosen: Chosen, split: Split) -> dict[str, Any]:
    """What the manifest says of one side of the data."""
    return {
        "name": chosen.name, "shape": chosen.shape.NAMES[0], "rows": chosen.readable, "examples": len(split),
        "tokens": split.examples.tokens, "cut": split.examples.cut, "longest": int(split.examples.lengths.max()),
    }  # fmt: skip
