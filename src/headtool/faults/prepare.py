"""What an injection needs before its first trial: the model, the sequences, the detectors, the faults to be tried."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

from headtool.errors import HeadtoolError
from headtool.faults import asked, bits, calibration, campaign, guard
from headtool.faults import sequences as under_test
from headtool.faults.calibration import Seen
from headtool.faults.campaign import Campaign
from headtool.faults.fault import Fault
from headtool.faults.sequences import Sequences
from headtool.models import layout
from headtool.models import sites as six
from headtool.models.adapter import Adapter
from headtool.models.open import kind_of, open_model
from headtool.record import session
from headtool.tasks import labels, load

if TYPE_CHECKING:
    from headtool.models.locate import Located
    from headtool.record.run import Run
    from headtool.tasks.load import Chosen


@dataclass(frozen=True)
class Ready:
    """All that trials are made of. most: how many trials there will be at most; faults: those of a sweep."""

    adapter: Adapter
    tested: Sequences
    detectors: Mapping[str, ModuleType]
    trials: Campaign
    faults: list[Fault]
    most: int
    facts: dict[str, Any]  # of the data, for the manifest
    plan: dict[str, Any]  # what trials depend on beyond the arguments
    limits_of: dict[str, Any]  # what limits of detectors hold for
    given: guard.Limits | None  # those of --calibration

    def limits(self, seen: Mapping[int, Seen]) -> guard.Limits:
        """The detectors' limits: those of --calibration, or from what the clean sequences showed."""
        if self.given is not None:
            return self.given
        return calibration.limits(self.detectors, [seen[i] for i in self.tested.calibration])


def ready(run: Run, located: Located, ask: SimpleNamespace) -> Ready:
    """Read, open, and settle what is tried. Raises HeadtoolError for what this model or these arguments cannot have."""
    console, forward = run.console, ask.phase == "forward"
    pattern = bits.parse(ask.pattern)
    names = asked.detectors(ask.detect if forward else "none")
    if ask.data is None and ask.task is None:
        console.note("neither --data nor --task: the built-in task 'demo'")
    with run.clock.phase("data"):
        causal = layout.find(located.model_type, ask.family).causal
        chosen = load.choose(
            data=ask.data, task=ask.task, encoder=not causal, fields=ask.field or (), limit=ask.limit, subset=None
        )
    with run.clock.phase("open"):
        adapter = _open(run, located, chosen, ask)
    with run.clock.phase("data"):
        tested = _sequences(adapter, chosen, names, ask)
    for note in (*chosen.notes, *tested.notes):
        console.note(note)
    for warning in tested.warnings:
        console.warn(warning)
    first = calibration.clean(adapter, tested.batch(adapter, 0), {}, method=None, tolerance=None)
    equal = bool(calibration.kv_equal(first.apart, adapter.dtype).all())
    if ask.force_kv_equal and not equal:
        console.warn(
            "keys are not the values, though they are projected alike: a rotation or a norm of the keys undoes it"
        )
    if forward:
        _bounds_can(adapter, equal, ask)
    detectors, left_out = guard.usable(adapter, names, kv_equal=equal)
    for name, why in left_out.items():
        console.note(f"the detector {name} is left out: {why}")
    lengths = tested.lengths if forward else {i: tested.lengths[i] for i in tested.tested[: ask.batch_size]}
    trials = campaign.settle(
        adapter.geometry, adapter.dtype, lengths, phase=ask.phase, sites=ask.sites, layers=ask.layers, heads=ask.heads,
        bits_asked=ask.bits, seeds=ask.seeds, pattern=pattern,
    )  # fmt: skip
    faults = trials.sweep() if ask.sweep else []
    most = len(faults) or trials.enough(ask.margin, ask.confidence)
    if not ask.sweep:
        console.note(
            f"{trials.population:,} faults are possible; +-{ask.margin:g} at {ask.confidence:.0%} asks for {most:,} of them at"
            f" most, in rounds of one in each of {trials.strata:,} strata"
        )
    facts = {
        "name": chosen.name, "shape": chosen.shape.NAMES[0], "rows": chosen.readable, "loss": tested.loss,
        "examples": len(tested.examples), "tokens": tested.examples.tokens,
        "max_length": min(ask.max_length, adapter.longest),
    }  # fmt: skip
    plan = {
        "device": adapter.runs_on.type, "dtype": str(adapter.dtype), "lengths": list(map(int, tested.examples.lengths)),
        "detectors": list(detectors), "chunk": campaign.CHUNK[ask.phase],
    }  # fmt: skip
    limits_of = {
        "model": run.manifest["inputs"]["weights_sha256"], "dtype": str(adapter.dtype).removeprefix("torch."),
        "length": int(tested.examples.lengths.max()), "force_kv_equal": ask.force_kv_equal,
    }  # fmt: skip
    given = None
    if ask.calibration is not None:
        given = calibration.load(Path(ask.calibration), limits_of, detectors, adapter.geometry.layers)
    return Ready(adapter, tested, detectors, trials, faults, most, facts, plan, limits_of, given)


def _open(run: Run, located: Located, chosen: Chosen, ask: SimpleNamespace) -> Adapter:
    """The model, with a classifier drawn where it has no head, and with K = V where that is asked for."""
    classes = labels.count(chosen) if kind_of(located) == "headless" else None
    adapter = open_model(
        located, device=ask.device, dtype=ask.dtype, family=ask.family, threads=ask.threads, classes=classes,
        seed=ask.seed, spread=ask.spread,
    )  # fmt: skip
    if adapter.drawn:
        run.console.warn(
            f"the checkpoint has no classifier: one of {classes} classes is drawn at random (seed {ask.seed})"
        )
    six.require(adapter)
    if ask.force_kv_equal:
        calibration.force_kv_equal(adapter)
    return adapter


def _sequences(adapter: Adapter, chosen: Chosen, names: tuple[str, ...], ask: SimpleNamespace) -> Sequences:
    """The sequences under test, and before them those that set limits: none where limits are given or not needed."""
    seen = frozenset[str]()
    if ask.calibration is not None:
        seen = frozenset(calibration.read(Path(ask.calibration))["sequences"])
    return under_test.read(
        adapter,
        chosen,
        max_length=min(ask.max_length, adapter.longest),
        calibrating=0 if not names or ask.calibration is not None else ask.calibrate,
        tested=ask.sequences,
        seed=ask.seed,
        seen=seen,
    )


def _bounds_can(adapter: Adapter, equal: bool, ask: SimpleNamespace) -> None:
    """Raise HeadtoolError for an epsilon that this model does not have."""
    if ask.bounds == "none" or ask.epsilon == "s@w":
        return
    config = adapter.model.config.get_text_config()
    capped = getattr(config, "attn_logit_softcapping", None) is not None
    if capped or not adapter.layout.interface or adapter.located.model_type == "gpt_oss":
        raise HeadtoolError(f"--epsilon {ask.epsilon}: this family's scores are not q k^T alone", hint="--epsilon s@w")
    if not equal:
        raise HeadtoolError(f"--epsilon {ask.epsilon} needs K = V, and they differ", hint="--force-kv-equal, or s@w")


def show_plan(run: Run, ready: Ready, ask: SimpleNamespace) -> Path:
    """What the run would do, on stdout."""
    adapter, tested, g = ready.adapter, ready.tested, ready.adapter.geometry
    recorded = int(tested.examples.lengths.max()) * g.layers * 9 * g.width * adapter.dtype.itemsize
    weights = adapter.parameters * adapter.dtype.itemsize
    fields: dict[str, Any] = {
        "faults": ready.most, "population": ready.trials.population,
        "strata": ready.trials.strata, "sequences": len(tested.tested), "calibrating": len(tested.calibration),
        "tokens": tested.examples.tokens, "model_bytes": weights,
        "memory_bytes": weights * (1 if ask.phase == "forward" else 6) + 3 * recorded,
    }  # fmt: skip
    return session.show_plan(run, fields, device=adapter.runs_on.type)
