"""The course of a run: clean passes, trials part by part or in rounds, and trials that are run the naive way too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np

from headtool.errors import FAILED, HeadtoolError
from headtool.faults import calibration, campaign
from headtool.faults.calibration import Seen
from headtool.faults.fault import Fault
from headtool.faults.gather import Gathered, gather
from headtool.faults.intervals import clustered
from headtool.faults.work import CLOSE_CHANGE
from headtool.record.files import read_part, whole_part, write_part

if TYPE_CHECKING:
    from headtool.faults.campaign import Campaign, Element
    from headtool.faults.sequences import Sequences
    from headtool.faults.work import Arrays, Backward, Forward
    from headtool.models.adapter import Adapter
    from headtool.record.run import Run

Parts = list[tuple[list[int], "Arrays"]]
ROUNDS = 2  # of a sample, at least: one says nothing of how elements differ


def clean(
    run: Run,
    adapter: Adapter,
    tested: Sequences,
    detectors: Mapping[str, ModuleType],
    parts: Path,
    ask: SimpleNamespace,
) -> dict[int, Seen]:
    """What each clean sequence showed, by its number. Every process makes what is not there: limits come before trials."""
    method = None if ask.bounds == "none" else ask.epsilon
    found = {}
    numbers = [*tested.calibration, *tested.tested]
    with run.console.progress("clean", len(numbers)) as advance, run.clock.phase("calibrate"):
        for number in numbers:
            path = parts / f"clean-{number:05d}.part"
            arrays = read_part(path)
            if arrays is None:
                batch = tested.batch(adapter, number)
                shown = calibration.clean(adapter, batch, detectors, method=method, tolerance=ask.tolerance)
                arrays = shown.arrays()
                write_part(path, arrays)
            found[number] = Seen.of_arrays(arrays)
            advance(1)
    return found


def inject(
    run: Run, worker: Forward | Backward, faults: Sequence[Fault], parts: Path, number: int, done: int, total: int
) -> Parts | None:
    """The trials of a round: those of this process's share that are missing are made. None where others' are missing.

    The places that are returned count from done, the trials of earlier rounds.
    """
    dealt = campaign.deal(faults)
    names = [f"trials-{number:03d}-{i:05d}.part" for i in range(len(dealt))]
    sequence = {each: i for i, each in enumerate(sorted({fault.sequence for fault in faults}))}
    by_part = faults[0].phase == "backward"  # all of one batch
    own = [i for i, p in enumerate(dealt) if run.share.owns(i if by_part else sequence[faults[p[0]].sequence])]
    left = [i for i in own if read_part(parts / names[i]) is None]
    if len(left) < len(own):
        run.console.note(f"going on: {len(own) - len(left)} of {len(own)} parts are there")
    units = sum(len(dealt[i]) for i in own)
    told = "injecting" if total == len(faults) else f"round {number + 1}"
    with (
        run.console.progress(told, units, units - sum(len(dealt[i]) for i in left)) as advance,
        run.clock.phase("trials"),
    ):
        for i in left:
            write_part(parts / names[i], worker.run([faults[place] for place in dealt[i]]))
            run.clock.count(trials=len(dealt[i]))
            advance(len(dealt[i]))
    if not run.every_part(parts, names, wait=run.share.launched, together=True):
        return None
    return [([done + p for p in places], whole_part(parts / name)) for places, name in zip(dealt, names, strict=True)]


def sample(
    run: Run, worker: Forward | Backward, trials: Campaign, parts: Path, most: int, ask: SimpleNamespace
) -> tuple[list[Fault], Parts]:
    """Rounds of one trial a stratum until the interval of the harmful rate is narrow enough, or there are enough; where that
    is as many as there are, all of them at once.

    Every process waits for the others' parts of a round: what is decided depends on the parts alone.
    """
    if most >= trials.population:
        faults = trials.every()
        run.console.note(f"that is every one of the {len(faults):,} faults that are possible")
        run.manifest["sample"] = {"population": trials.population, "most": most, "half_width": 0.0, "census": True}
        found = inject(run, worker, faults, parts, 0, 0, len(faults))
        assert found is not None  # all processes are at work
        return faults, found
    faults, found = [], []
    taken: set[Element] = set()
    number, width = 0, 1.0
    while len(faults) < most:
        new = trials.round(number, taken)
        if not new:
            break
        part = inject(run, worker, new, parts, number, len(faults), most)
        assert part is not None
        faults, found, number = faults + new, found + part, number + 1
        gathered = gather(faults, found, [], ask.harm, ask.harm_floor)
        low, high = clustered(gathered.harmful, gathered.element, ask.confidence)
        width = (high - low) / 2
        run.console.note(
            f"round {number}: {len(faults):,} faults, {gathered.harmful.mean():.1%} harmful, "
            f"+-{width:.2%} at {ask.confidence:.0%}"
        )
        if number >= ROUNDS and width <= ask.margin:
            break
    run.manifest["sample"] = {
        "population": trials.population, "most": most, "margin": ask.margin, "confidence": ask.confidence,
        "half_width": width, "census": False,
    }  # fmt: skip
    if width > ask.margin:
        run.console.warn(
            f"the margin of {ask.margin:g} was not reached: +-{width:.2%}. The {most:,} faults that independent ones would take"
            " are used up; those of one element are alike"
        )
    return faults, found


def verify(run: Run, worker: Forward | Backward, found: Gathered, ask: SimpleNamespace) -> None:
    """Run some faults the naive way too: half of them random, the others drawn from those that changed the loss most.

    Raises HeadtoolError (exit 1) where a change of the loss differs by more than sums in another order can.
    """
    if not ask.verify:
        return
    faults, rng = found.faults, np.random.default_rng(ask.seed)
    change = np.abs(np.nan_to_num(found.arrays["loss_diff"], nan=np.inf))
    most = np.argsort(-np.where(found.arrays["nonfinite"], -1, change), kind="stable")[: 10 * ask.verify]
    drawn = [*rng.permutation(most)[: ask.verify // 2].tolist(), *rng.permutation(len(faults)).tolist()]
    chosen = list(dict.fromkeys(drawn))[: ask.verify]
    largest = rounding = 0.0
    slight = max(ask.harm * float(np.median(found.arrays["loss_base"])), ask.harm_floor)
    for i in chosen:
        apart, close = worker.verify(faults[i])
        largest = max(largest, apart)
        rounding = max(rounding, apart - CLOSE_CHANGE * float(change[i]))  # of a large change a part is no wonder
        if not close:
            raise HeadtoolError(
                f"fault {faults[i].id}: the change of its loss and that of the naive way differ by {apart:.2g} nats",
                hint="please report it, with the model",
                code=FAILED,
            )
    run.manifest["verified"] = {"faults": len(chosen), "largest_difference": largest}
    run.console.note(
        f"{len(chosen)} faults run again the naive way: changes of the loss differ by {largest:.1e} nats at most"
    )
    if ask.phase == "forward" and rounding > slight:
        wider = "" if run.manifest["model"]["dtype"] == "float32" else "--dtype fp32, or "
        run.console.warn(
            f"some harmful faults may be rounding alone: it moves a loss by {rounding:.1g} nats here, and {slight:.1g} nats are "
            f"harm; take {wider}a larger --harm-floor"
        )
