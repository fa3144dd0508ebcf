"""headtool inject: soft errors in attention, what they do, and what catches them."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from headtool import completion, folder, ranks
from headtool import options as opt
from headtool.console import Console
from headtool.errors import HeadtoolError
from headtool.faults import asked

if TYPE_CHECKING:
    from headtool.models.locate import Located
    from headtool.record.run import Run

FAULTS, WATCH = "Faults", "Detectors"
DETECTORS = folder.names(asked.DETECTORS)
MARGIN, CONFIDENCE, LR, CALIBRATE = 0.01, 0.95, 1e-4, 32


def complete_sites(incomplete: str) -> list[str]:
    return completion.of_list(asked.SITES if "," in incomplete else ("all", *asked.SITES), incomplete)


def complete_detectors(incomplete: str) -> list[str]:
    return completion.of_list((*asked.SETS, "none", *folder.offered(asked.DETECTORS)), incomplete)


def complete_patterns(incomplete: str) -> list[str]:
    known = ("flip", "multi", "multi:2", "stuck0", "stuck1", "random", "value:0", "burst", "burst:4")
    return [pattern for pattern in known if pattern.startswith(incomplete)]


Sites = Annotated[
    str,
    opt.flag(
        "--sites",
        metavar="all|LIST",
        help=f"Of {', '.join(asked.SITES)}.",
        group=FAULTS,
        autocompletion=complete_sites,
    ),
]
Bits = Annotated[str, opt.flag("--bits", metavar="all|LIST", help="Bits, from 0, such as 0,20-31.", group=FAULTS)]
Layers = Annotated[
    str, opt.flag("--layers", metavar="first|all|random|LIST", help="random: one by seed and site.", group=FAULTS)
]
Heads = Annotated[str, opt.flag("--heads", metavar="all|LIST", help="Query heads to hit.", group=FAULTS)]
Seeds = Annotated[
    str, opt.flag("--seeds", metavar="LIST", help="Each draws one element a site and layer.", group=FAULTS)
]
Sweep = Annotated[
    bool,
    opt.flag("--sweep/--sample", help="Every cell (site, layer, bit, seed), or rounds of a sample.", group=FAULTS),
]
Margin = Annotated[
    float, opt.flag("--margin", help="--sample: half the width of the harmful rate's interval to reach.", group=FAULTS)
]
Confidence = Annotated[float, opt.flag("--confidence", help="--sample: of that interval.", group=FAULTS)]
Pattern = Annotated[
    str,
    opt.flag(
        "--pattern",
        metavar="PATTERN",
        help="flip, multi[:N], stuck0, stuck1, random, value:X or burst[:N].",
        group=FAULTS,
        autocompletion=complete_patterns,
    ),
]
Duration = Annotated[
    Literal["transient", "permanent"],
    opt.flag("--duration", help="permanent: it strikes again at a recomputation, and at every step.", group=FAULTS),
]
Phase = Annotated[
    Literal["forward", "backward"],
    opt.flag("--phase", help="backward: hit the gradient at the site during a training step.", group=FAULTS),
]
Harm = Annotated[
    float, opt.flag("--harm", help="Relative change of the loss above which a fault is harmful.", group=FAULTS)
]
HarmFloor = Annotated[
    float, opt.flag("--harm-floor", help="Smallest change of the loss, in nats, that counts as harm.", group=FAULTS)
]
Steps = Annotated[
    str, opt.flag("--steps", metavar="LIST", help="backward: take the loss after so many steps.", group=FAULTS)
]
Lr = Annotated[float, opt.flag("--lr", help="backward: learning rate of AdamW.", group=FAULTS)]
Detect = Annotated[
    str,
    opt.flag(
        "--detect",
        metavar="SET|NAME,..|none",
        help=f"cheap, standard, strict, or a list of {', '.join(DETECTORS)}.",
        group=WATCH,
        autocompletion=complete_detectors,
    ),
]
CalibrationFile = Annotated[
    Path | None,
    opt.flag("--calibration", metavar="FILE", help="The limits of an earlier run: its calibration.json.", group=WATCH),
]
Bounds = Annotated[
    Literal["self", "golden", "none"],
    opt.flag("--bounds", help="Softmax bounds from the suspect run's own scores, or the clean run's.", group=WATCH),
]
Epsilon = Annotated[
    Literal["s@w", "q@o", "comb"],
    opt.flag("--epsilon", help="From scores and weights, from <out, q> where K = V, or the worse.", group=WATCH),
]
Tolerance = Annotated[
    float | None,
    opt.flag("--tolerance", help="Of the bounds, relative; default by dtype, 1e-5 in fp32.", group=WATCH),
]
ForceKv = Annotated[
    bool, opt.flag("--force-kv-equal", help="Give the key projections the values' weights and biases.", group=WATCH)
]
Runs = Annotated[int, opt.flag("--runs", min=1, help="Repetitions of the performance table.", group=opt.GROUP_TALK)]
Verify = Annotated[
    int, opt.flag("--verify", min=0, help="Run this many random faults the naive way too.", group=FAULTS)
]
Count = Annotated[int, opt.flag("--sequences", min=1, help="Sequences under test.", group=opt.GROUP_DATA)]
Calibrate = Annotated[
    int, opt.flag("--calibrate", min=1, help="Sequences before them that set the detectors' limits.", group=WATCH)
]
Batch = Annotated[
    int, opt.flag("--batch-size", min=1, help="Sequences a training or measured batch.", group=opt.GROUP_DATA)
]


def command(
    model: opt.Model,
    sites: Sites = "all",
    bits: Bits = "all",
    layers: Layers = "all",
    heads: Heads = "all",
    seeds: Seeds = "42,123",
    sweep: Sweep = True,
    margin: Margin = MARGIN,
    confidence: Confidence = CONFIDENCE,
    pattern: Pattern = "flip",
    duration: Duration = "transient",
    phase: Phase = "forward",
    steps: Steps = "1,10,100",
    lr: Lr = LR,
    harm: Harm = 0.01,
    harm_floor: HarmFloor = 1e-4,
    verify: Verify = 3,
    detect: Detect = "standard",
    calibration: CalibrationFile = None,
    calibrate: Calibrate = CALIBRATE,
    bounds: Bounds = "self",
    epsilon: Epsilon = "s@w",
    tolerance: Tolerance = None,
    force_kv_equal: ForceKv = False,
    data: opt.Data = None,
    task: opt.Task = None,
    field: opt.Field = None,
    sequences: Count = 32,
    limit: opt.Limit = None,
    batch_size: Batch = 8,
    max_length: opt.MaxLength = 128,
    seed: opt.Seed = 42,
    family: opt.Family = None,
    device: opt.Device = "auto",
    device_map: opt.DeviceMap = "none",
    max_memory: opt.MaxMemory = None,
    dtype: opt.Dtype = "auto",
    threads: opt.Threads = 0,
    runs: Runs = 5,
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
    """Inject soft errors into attention; measure what they do and what catches them.

    [bold]headtool inject demo[/]
    [bold]headtool inject demo --sites scores,out --bits 20-31 --dtype fp32 --layers first --detect strict[/]
    [bold]headtool inject demo-encoder --sample --margin 0.02 --bounds golden[/]
    [bold]headtool inject demo --phase backward --sites v --bits 23-31 --dtype fp32 --seeds 1 --steps 1,10[/]

    Leaves the tables of trials, detectors, bounds and costs, and figures, in a run directory, and prints that directory.
    """
    arguments: dict[str, Any] = {name: value for name, value in locals().items()}
    from headtool.models import layout
    from headtool.models.locate import locate
    from headtool.record.files import sha256
    from headtool.record.session import carry_out
    from headtool.tasks import load

    share = ranks.share(shard)
    console = Console(quiet=quiet, verbose=verbose, json=json, silent=share.launched and share.index > 0)
    for flag, value, most in (("--margin", margin, 0.5), ("--confidence", confidence, 1), ("--harm", harm, math.inf)):
        if not 0 < value < most:
            hint = f"for example {flag} {0.95 if flag == '--confidence' else 0.01}"
            raise HeadtoolError(f"{flag} {value}: not above 0 and below {most}", hint=hint)
    if not 0 <= harm_floor < math.inf:
        raise HeadtoolError(f"--harm-floor {harm_floor}: not a number from 0", hint="for example --harm-floor 0.001")
    if not 0 < lr < math.inf:
        raise HeadtoolError(f"--lr {lr}: not a number above 0", hint="for example --lr 1e-4")
    if tolerance is not None and not 0 <= tolerance < math.inf:
        raise HeadtoolError(f"--tolerance {tolerance}: not a number from 0", hint="for example --tolerance 1e-5")
    opt.named(task=task)
    asked.sites(sites)
    asked.detectors(detect)
    asked.numbers(dtype, bits=bits, layers=layers, heads=heads, seeds=seeds)
    marks = opt.numbers(steps, "--steps")
    if marks[0] < 1:
        raise HeadtoolError(
            "--steps 0: the loss before the first step is there anyway", hint="for example --steps 1,10"
        )
    if not sweep and share.count > 1 and not share.launched:
        hint = "torchrun starts processes that do; or --sweep"
        raise HeadtoolError("--sample decides after each round, so all shares must run at the same time", hint=hint)
    if phase == "backward" and (arguments["detect"] != "standard" or calibration is not None):
        raise HeadtoolError("detectors watch the forward phase", hint="leave out --detect and --calibration")
    if phase == "backward" and (bounds == "golden" or epsilon != "s@w" or tolerance is not None):
        raise HeadtoolError("bounds are of the forward phase", hint="leave out --bounds, --epsilon and --tolerance")
    if phase == "forward" and (arguments["steps"] != "1,10,100" or lr != LR):
        raise HeadtoolError("--steps and --lr are of a training", hint="--phase backward")
    if sweep and (margin != MARGIN or confidence != CONFIDENCE):
        raise HeadtoolError("--margin and --confidence are of a sample", hint="--sample")
    if bounds == "none" and (epsilon != "s@w" or tolerance is not None):
        raise HeadtoolError("--epsilon and --tolerance without bounds", hint="leave out --bounds none")
    if calibration is not None and calibrate != CALIBRATE:
        raise HeadtoolError("--calibrate is the other way to limits than --calibration", hint="leave one out")
    if phase == "backward" or arguments["detect"] == "none":
        for note in opt.harmless(command, arguments, ("calibrate",), "changes nothing without detectors"):
            console.note(note)
    if calibration is not None and not Path(calibration).is_file():
        raise HeadtoolError(
            f"--calibration {calibration}: there is no such file", hint="an earlier run's calibration.json"
        )
    load.check(data, task, field or ())
    located = locate(model)
    layout.find(located.model_type, family)
    for note in opt.folders(data):
        console.note(note)
    inputs = located.fingerprint() | {"data": load.fingerprint(data, task)}
    if calibration is not None:
        inputs["calibration"] = sha256(Path(calibration))
    spread = opt.spread(device_map, max_memory, device)
    if spread is not None and (phase == "backward" or force_kv_equal):
        hint = "leave out --phase backward and --force-kv-equal"
        raise HeadtoolError("--device-map spreads a model that is only read", hint=hint)
    if phase == "backward":
        arguments["bounds"] = "none"
    ask = SimpleNamespace(**arguments, marks=marks, spread=spread)
    return carry_out(
        "inject",
        arguments,
        inputs,
        label=located.label,
        console=console,
        share=share,
        slow=(
            "headtool.faults.prepare",
            "headtool.faults.course",
        ),
        work=lambda run: _run(run, located, ask),
    )


def _run(run: Run, located: Located, ask: SimpleNamespace) -> Path:
    """Prepare, inject what is missing, and, where that completes the set, merge and write."""
    from headtool.faults import calibration, cost, course, outcome, prepare, work
    from headtool.faults.gather import gather
    from headtool.models import devices

    console, forward = run.console, ask.phase == "forward"
    ready = prepare.ready(run, located, ask)
    if ask.dry_run:
        return prepare.show_plan(run, ready, ask)
    adapter, tested, trials, faults = ready.adapter, ready.tested, ready.trials, ready.faults
    run.manifest["model"] = adapter.facts()
    run.manifest["data"] = ready.facts
    parts = run.parts(ready.plan)
    seen = course.clean(run, adapter, tested, ready.detectors, parts, ask)
    limits = ready.limits(seen)
    with run.clock.phase("open"):
        permanent = ask.duration == "permanent"
        worker: work.Forward | work.Backward
        if forward:
            worker = work.forward(
                adapter, tested, detectors=ready.detectors, limits=limits, reference=ask.bounds, method=ask.epsilon,
                tolerance=ask.tolerance, permanent=permanent,
            )  # fmt: skip
        else:
            worker = work.backward(adapter, tested, ask.batch_size, ask.marks, ask.lr, permanent=permanent)
    found: course.Parts | None
    if ask.sweep:
        found = course.inject(run, worker, faults, parts, 0, 0, len(faults))
    else:
        faults, found = course.sample(run, worker, trials, parts, ready.most, ask)
    if told := devices.caveat(adapter.runs_on):
        console.warn(told)
    if run.share.launched and run.share.index > 0:
        return run.path  # rank 0 waits for all parts, merges and says so
    if found is None:
        console.note("this share is done; the one that completes the set merges it")
        return run.announce()
    with run.merging() as merged_already:
        if not merged_already:
            gathered = gather(faults, found, list(ready.detectors), ask.harm, ask.harm_floor)
            with run.clock.phase("verify"):
                course.verify(run, worker, gathered, ask)
            with run.clock.phase("measure"):
                method = None if ask.bounds == "none" or not forward else ask.epsilon
                performance = cost.measure(adapter, tested, trials, ready.detectors, ask, method=method)
            with run.clock.phase("write"):
                run.manifest["trials"] = len(faults)
                outcome.write(run, adapter, tested, outcome.Findings(gathered, seen, limits, performance), ask)
                if ready.detectors and ask.calibration is None:
                    run.write_json("calibration.json", calibration.held(ready.limits_of, limits, tested.digests()))
            run.finish()
            return run.conclude(*outcome.closing(run, ask))
    return run.announce()
