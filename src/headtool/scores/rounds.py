"""The rounds of a sweep that ends when enough is known: more examples, fewer heads, until the intervals are narrow."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from headtool.errors import FAILED, HeadtoolError
from headtool.models.adapter import Adapter
from headtool.record.files import read_part, whole_part
from headtool.record.run import Run
from headtool.scores.ablation import Ablation, Losses
from headtool.scores.adaptive import Estimate, allotted, estimate, rounds, undecided
from headtool.scores.gradient import FirstOrder

LEAST = 16  # examples that are worth a round


@dataclass(frozen=True)
class Sampled:
    """What the rounds came to: the losses that were measured, all first-order effects, and the estimates."""

    losses: Losses
    first: np.ndarray
    estimate: Estimate


def sampled(
    run: Run, adapter: Adapter, whole: Ablation, first_pass: FirstOrder, parts: Path, ask: SimpleNamespace
) -> Sampled:
    """Ablate on growing samples until every head's 95% interval of what all examples would give has a half width of
    --ablate-error at most (or, with --ablate-until top-k, its place inside or outside the top k is clear), or the
    seconds of --ablate-budget are used up; where these alone are given, heads share them by how much first order leaves open.

    Every process does its share of a round and waits for the others': what is decided depends on the parts alone.
    """
    names = [first_pass.part(group) for group in range(len(first_pass.groups))]
    run.every_part(parts, names, wait=True, together=True)
    first, base = first_pass.merge(parts)
    if not (np.isfinite(first).all() and np.isfinite(base).all()):
        raise HeadtoolError("some losses or gradients are not finite", hint="--dtype fp32 or bf16", code=FAILED)
    total, active = len(whole.examples), np.ones(first.shape[:2], bool)
    found = np.full((2, *first.shape), np.nan, np.float32)
    order = np.random.default_rng(ask.seed).permutation(total)
    error = 0.0 if ask.ablate_error is None else ask.ablate_error
    top_k = ask.top_k if ask.ablate_until == "top-k" else None
    by_time_alone = ask.ablate_error is None and top_k is None
    seconds, done, room = 0.0, 0, float(total)  # room: so many more examples may be begun
    for number, wanted in enumerate(rounds(total)):
        size = min(wanted, done + int(min(room, total)))
        if not active.any() or size < min(done + LEAST, wanted):
            break
        share = whole.of(
            f"{whole.name}-round-{number:02d}-{_decided(order[done:size], active)}", order[done:size], active
        )
        _work(run, adapter, share, parts, f"round {number + 1}")
        part = share.merge(parts)
        for have, new in ((found[0], part.loss), (found[1], part.right)):
            known = np.isfinite(new)
            have[known] = new[known]
        taken = sum(float(whole_part(parts / share.part(group))["seconds"]) for group in range(len(share.groups)))
        each = taken / run.share.count / (int(active.sum()) * (size - done))  # fewer heads of a layer cost more each
        seconds, done = seconds + taken / run.share.count, size
        estimated = estimate(first, found[0] - base[0].astype(np.float64), order)
        widest = float(((estimated.high - estimated.low) / 2).max())
        told = f"round {number + 1}: {size} of {total} examples, {int(active.sum())} of {active.size} heads"
        run.console.note(f"{told}, widest interval +-{widest:.2g}")
        active &= undecided(estimated, error, top_k)
        if ask.ablate_budget is not None:
            affordable = (ask.ablate_budget - seconds) / each
            if by_time_alone:
                best = allotted(estimated, total, estimated.n.sum() + affordable)
                active &= best >= min(done + LEAST, total)
            room = affordable / max(active.sum(), 1)
    made, doubtful = int(estimated.n.sum()), int((estimated.n < estimated.enough).sum())
    run.console.note(f"{_reached(estimated, ask)}, by {made:,} of {active.size * total:,} ablations")
    if doubtful:
        run.console.warn(
            f"{doubtful} of {active.size} heads have effects that sit in a few examples: more examples would have to be "
            "ablated before their intervals can be relied on"
        )
    return Sampled(Losses(base[0], base[1], found[0], found[1]), first, estimated)


def _reached(found: Estimate, ask: SimpleNamespace) -> str:
    """How well I is known, in the words of the flag that asked for it."""
    half = (found.high - found.low) / 2
    if ask.ablate_error is None:
        return f"I is known to +-{float(half.max()):.2g} (95%) or better, as all these examples would give it"
    close = int((half <= ask.ablate_error).sum())
    return f"I is known to +-{ask.ablate_error:g} (95%), as all these examples would give it, of {close} of {half.size} heads"


def _decided(examples: np.ndarray, active: np.ndarray) -> str:
    """What a round sweeps, in its parts' names: a budget may decide otherwise where an earlier part had to be made again, or
    as many processes as before are not there, and parts of another decision are not to be mixed in.
    """
    return hashlib.sha256(examples.astype("<i8").tobytes() + np.packbits(active).tobytes()).hexdigest()[:8]


def _work(run: Run, adapter: Adapter, share: Ablation, parts: Path, told: str) -> None:
    own = [group for group in range(len(share.groups)) if run.share.owns(group)]
    left = [group for group in own if read_part(parts / share.part(group)) is None]
    with run.console.progress(told, len(own), len(own) - len(left)) as advance, run.clock.phase(share.phase):
        for group in left:
            run.clock.count(**share.work(adapter, group, parts))
            advance(1)
    names = [share.part(group) for group in range(len(share.groups))]
    run.every_part(parts, names, wait=True, together=True)
