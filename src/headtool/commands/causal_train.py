"""headtool causal-train: a decoder becomes a causal language model that reads and writes numbers with their uncertainty."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from headtool import completion, ranks
from headtool import options as opt
from headtool.commands.finetune import (
    BatchSize,
    Epochs,
    Limit,
    Rate,
    SaveSteps,
    Subset,
    TextField,
    Warmup,
    WeightDecay,
)
from headtool.console import Console
from headtool.errors import HeadtoolError

if TYPE_CHECKING:
    from headtool.causal.settings import Settings
    from headtool.causal.sources import Sources
    from headtool.models.locate import Located
    from headtool.record.run import Run

GROUP, GROUP_CAUSAL = "Training", "Causal model"

ExperimentName = Annotated[
    Literal["basic", "comprehensive", "comparison", "ablation", "initialization"],
    opt.flag("--experiment", help="Which configurations are trained, each from MODEL anew.", group=GROUP_CAUSAL),
]
MadeTask = Annotated[
    str | None,
    opt.flag(
        "--task",
        help="Made data sets in place of --data: basic, addition, conversion, copying ...",
        group=opt.GROUP_DATA,
        autocompletion=completion.complete_made,
    ),
]
Evaluate = Annotated[
    str | None,
    opt.flag("--eval", metavar="DATA", help="Rows to evaluate on; default a tenth of --data.", group=opt.GROUP_DATA),
]
ValueField = Annotated[
    str | None,
    opt.flag(
        "--value-field",
        metavar="PATH",
        help="The field that holds the number the text leads to; without it, all numbers in the text count.",
        group=opt.GROUP_DATA,
    ),
]
NumberPattern = Annotated[
    str | None,
    opt.flag("--number-pattern", metavar="REGEX", help="What counts as a number in a text.", group=opt.GROUP_DATA),
]
Examples = Annotated[
    int, opt.flag("--examples", min=1, help="Training examples of each made data set.", group=opt.GROUP_DATA)
]
HeadName = Annotated[
    Literal["ovr", "softmax"],
    opt.flag("--head", help="The loss of tokens: one-vs-rest over P, or softmax over loc.", group=GROUP_CAUSAL),
]
Distribution = Annotated[
    Literal["cauchy", "normal"], opt.flag("--distribution", help="The law of the individual U.", group=GROUP_CAUSAL)
]
CausalDim = Annotated[
    int | None,
    opt.flag("--causal-dim", min=1, help="Dimensions of U; default the model's width.", group=GROUP_CAUSAL),
]
Threshold = Annotated[float, opt.flag("--threshold", help="C in P(S > C).", group=GROUP_CAUSAL)]
RegWeight = Annotated[
    float, opt.flag("--reg-weight", help="Lambda, the weight of the number loss.", group=GROUP_CAUSAL)
]
GateAlpha = Annotated[
    float, opt.flag("--gate-alpha", help="Share of the number loss that P(<NUM>) does not gate.", group=GROUP_CAUSAL)
]
Gamma0 = Annotated[float, opt.flag("--gamma0", help="The scale of U at the start.", group=GROUP_CAUSAL)]
Noise = Annotated[float, opt.flag("--b-noise", help="The scale of the noise at the start.", group=GROUP_CAUSAL)]
NumberEncoding = Annotated[
    Literal["log", "linear"],
    opt.flag(
        "--number-encoding", help="How a value enters its embedding: sign(v) ln(1+|v|), or v.", group=GROUP_CAUSAL
    ),
]
Reduction = Annotated[
    Literal["sum", "mean"],
    opt.flag("--ovr-reduction", help="Over the vocabulary, of the one-vs-rest loss.", group=GROUP_CAUSAL),
]
Negatives = Annotated[
    int | None,
    opt.flag("--negatives", min=1, help="Sample N negative tokens a step in place of all.", group=GROUP_CAUSAL),
]
Standardize = Annotated[
    bool,
    opt.flag(
        "--standardize/--no-standardize",
        help="Regress in units of the training values: their median, half their interquartile range.",
        group=GROUP_CAUSAL,
    ),
]
Baselines = Annotated[
    bool,
    opt.flag("--baselines/--no-baselines", help="Train the softmax and L1 baseline too.", group=GROUP),
]
ReportTo = Annotated[
    str | None,
    opt.flag("--report-to", help="Send the training log to tensorboard or wandb as well.", group=opt.GROUP_TALK),
]


def command(
    model: opt.Decoder,
    experiment: ExperimentName = "basic",
    data: opt.Data = None,
    eval: Evaluate = None,
    text_field: TextField = None,
    value_field: ValueField = None,
    task: MadeTask = None,
    examples: Examples = 1000,
    number_pattern: NumberPattern = None,
    limit: Limit = None,
    subset: Subset = "all",
    subset_seed: opt.SubsetSeed = 999,
    max_length: opt.MaxLength = 256,
    head: HeadName = "ovr",
    distribution: Distribution = "cauchy",
    causal_dim: CausalDim = None,
    threshold: Threshold = 0.0,
    reg_weight: RegWeight = 1.0,
    gate_alpha: GateAlpha = 0.0,
    gamma0: Gamma0 = 10.0,
    b_noise: Noise = 0.1,
    number_encoding: NumberEncoding = "log",
    ovr_reduction: Reduction = "sum",
    negatives: Negatives = None,
    standardize: Standardize = True,
    epochs: Epochs = 5.0,
    lr: Rate = 1e-4,
    batch_size: BatchSize = 16,
    weight_decay: WeightDecay = 0.01,
    warmup: Warmup = 0.06,
    save_steps: SaveSteps = 0,
    baselines: Baselines = True,
    report_to: ReportTo = None,
    seed: opt.Seed = 42,
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
    """Train a decoder as a causal language model, whose numbers come with their uncertainty.

    [bold]headtool causal-train demo --task addition --epochs 10 --lr 3e-3 --gamma0 1[/]
    [bold]headtool causal-train demo --experiment ablation --examples 100 --epochs 1[/]
    [bold]headtool causal-predict $(headtool causal-train demo --task copying --lr 3e-3 --gamma0 1 -q) --number "Say 7 again:"[/]

    Leaves the model, results of every configuration and baseline on every evaluation set, and figures; prints its run directory.
    """
    arguments: dict[str, Any] = {name: value for name, value in locals().items()}
    from headtool.causal import experiments, numbers, settings, sources
    from headtool.models import layout
    from headtool.models.locate import locate
    from headtool.record.session import carry_out

    share = ranks.share(None)
    console = Console(quiet=quiet, verbose=verbose, json=json, silent=share.launched and share.index > 0)
    ask = SimpleNamespace(**arguments)
    _check(ask, share.count)
    idle, why = ("subset_seed", "without --data: of made sets the first rows are taken")
    if data is not None:
        idle, why = ("examples", "is of made data sets, and changes nothing here")
    for note in opt.harmless(command, arguments, (idle,), why):
        console.note(note)
    ask.report_to = settings.sinks(report_to)
    ask.number_pattern = numbers.pattern(number_pattern)
    asked = experiments.named(experiment)
    sides = sources.settle(data, eval, text_field, value_field, task, asked.sets)
    located = locate(model)
    layout.find(located.model_type, family)
    for note in opt.folders(data, eval):
        console.note(note)
    inputs = located.fingerprint() | sides.fingerprints()
    return carry_out(
        "causal-train",
        arguments,
        inputs,
        label=located.label,
        console=console,
        share=share,
        slow=("headtool.causal.prepare",),
        work=lambda run: _run(run, located, sides, ask),
    )


def _check(ask: SimpleNamespace, processes: int) -> None:
    """Raise HeadtoolError for numbers that cannot be meant."""
    opt.number_or("all", ask.subset, "--subset")
    opt.named(
        task=ask.task, eval=ask.eval, text_field=ask.text_field, value_field=ask.value_field, report_to=ask.report_to,
        number_pattern=ask.number_pattern,
    )  # fmt: skip
    bounds = (
        ("--epochs", ask.epochs, 0 < ask.epochs <= 1e6, "a number above 0, up to a million"),
        ("--lr", ask.lr, 0 < ask.lr < math.inf, "a number above 0"),
        ("--weight-decay", ask.weight_decay, 0 <= ask.weight_decay < math.inf, "a number from 0"),
        ("--warmup", ask.warmup, 0 <= ask.warmup < 1, "a share from 0 to below 1"),
        ("--threshold", ask.threshold, math.isfinite(ask.threshold), "a finite number"),
        ("--reg-weight", ask.reg_weight, 0 <= ask.reg_weight < math.inf, "a number from 0"),
        ("--gate-alpha", ask.gate_alpha, 0 <= ask.gate_alpha <= 1, "a share from 0 to 1"),
        ("--gamma0", ask.gamma0, 0 < ask.gamma0 < 1e6, "a number above 0 and below 1e6"),
        ("--b-noise", ask.b_noise, 0 <= ask.b_noise < 1e6, "a number from 0 to below 1e6"),
    )
    opt.within(command, bounds)
    if ask.negatives is not None and ask.head == "softmax":
        raise HeadtoolError("--negatives is of the one-vs-rest loss", hint="leave --head softmax out")
    if ask.head == "softmax":
        opt.idle(command, vars(ask), ("ovr_reduction",), "is of the one-vs-rest loss", "leave --head softmax out")
    if ask.experiment == "ablation":
        names = ("head", "distribution")
        opt.idle(command, vars(ask), names, "is what --experiment ablation varies", "leave one of them out")
    if ask.experiment == "comprehensive":
        why = "and --experiment comprehensive contradict each other: it is a list of made sets"
        opt.idle(command, vars(ask), ("data", "task"), why, "--experiment basic")
    if ask.batch_size % processes:
        raise HeadtoolError(
            f"--batch-size {ask.batch_size} cannot be shared by {processes} processes", hint="give a multiple of them"
        )


def _run(run: Run, located: Located, sides: Sources, ask: SimpleNamespace) -> Path:
    """Read the rows, train and evaluate every configuration, write what came out."""
    from headtool.causal import course, experiments, outcome, prepare, tokens
    from headtool.causal.model import CausalModel
    from headtool.models.devices import pick_double
    from headtool.models.language import add_row, open_language_model
    from headtool.record.session import show_plan
    from headtool.training import loop

    console = run.console
    with run.clock.phase("open"):
        ask.device = str(pick_double(ask.device))
        recipe = loop.settle(ask, run.share.count)
        opening: dict[str, Any] = {
            "device": ask.device,
            "double": ask.dtype == "fp64",
            "family": ask.family,
            "threads": ask.threads,
        }
        adapter = open_language_model(located, weights=False, **opening)  # shapes and tokens
        reader, added = tokens.reserve(adapter.tokenizer, ask.number_pattern)
        if not adapter.tokenizer.is_fast:
            raise HeadtoolError(
                f"{located.folder}: its tokenizer is not a fast one", hint="save it with a tokenizer.json"
            )
    with run.clock.phase("data"):
        data, settings = prepare.read(run, adapter, reader, sides, ask)
    if ask.causal_dim not in (None, adapter.geometry.width):
        console.note(
            f"--causal-dim {ask.causal_dim}: token scores have weights of their own; the decoder's head is not trained by them"
        )
    asked = experiments.named(ask.experiment)
    configurations = dict(asked.configurations(settings, adapter.geometry.width))
    if ask.baselines:
        configurations[experiments.PLAIN] = experiments.plain(settings)
    if ask.dry_run:
        return show_plan(run, prepare.plan(run, adapter, data, configurations, recipe), device=adapter.runs_on.type)

    def fresh(settings: Settings) -> CausalModel:
        """The model before training, from its files: one at a time is in memory."""
        backbone = open_language_model(located, **opening).model
        if added:
            add_row(backbone, reader.num, tokens.digits(reader.tokenizer))
        return CausalModel(backbone, settings, reader.num).to(recipe.device)

    run.manifest["model"] = adapter.facts() | {
        "label": located.label, "id": located.model_id, "revision": located.revision, "number_token": reader.token,
        "device": str(recipe.device),
    }  # fmt: skip
    parts = run.parts({"device": recipe.device.type, "dtype": str(recipe.dtype), "processes": recipe.ranks})
    facts = {"trained_from": located.model_id, "experiment": ask.experiment}
    found = course.run_all(run, configurations, fresh, data, recipe, parts, ask.report_to, facts)
    if run.share.index > 0:
        return run.path
    with run.clock.phase("write"):
        outcome.write(run, found, f"{ask.experiment}, {asked.title}", lines=ask.jsonl)
    run.manifest["checkpoints"] = {"model": {}}
    run.finish()
    return run.conclude(*outcome.closing(run, found))
