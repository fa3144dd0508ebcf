"""Which rows a causal model is trained on and evaluated on: --data and --eval, or made sets by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from headtool.causal import synthetic
from headtool.causal.experiments import EVALUATED, LEARNABLE, UNLEARNABLE
from headtool.errors import HeadtoolError
from headtool.tasks import load
from headtool.tasks.example import Example
from headtool.tasks.load import Chosen

HELD_OUT = 0.1  # of the rows of --data, where there is no --eval


@dataclass(frozen=True)
class Sources:
    """Files and how to read their rows, or the names of made sets."""

    data: str | None
    evaluation: str | None
    shape: str
    fields: tuple[str, ...]
    made: tuple[str, ...]

    def fingerprints(self) -> dict[str, str]:
        """What identifies the rows of both sides, before any is read."""
        if self.data is None:
            return {"data": f"made:{','.join(self.made)}", "eval": f"made:{','.join(self.made)}"}
        train = load.fingerprint(self.data, None)
        return {
            "data": train,
            "eval": load.fingerprint(self.evaluation, None) if self.evaluation else f"held out of {train}",
        }


@dataclass
class Read:
    """The examples of both sides, and what there is to say of them."""

    train: list[Example]
    evaluation: dict[str, list[Example]]
    notes: list[str] = field(default_factory=list)


def settle(
    data: str | None, evaluation: str | None, text: str | None, value: str | None, task: str | None, sets: Sequence[str]
) -> Sources:
    """Put the flags together; sets are the experiment's. Raises HeadtoolError where they contradict each other."""
    if data is None:
        for flag, given in (("--eval", evaluation), ("--text-field", text), ("--value-field", value)):
            if given is not None:
                raise HeadtoolError(f"{flag} without --data", hint="give rows with --data FILE")
        names = tuple(dict.fromkeys(name.strip() for name in task.split(",") if name.strip())) if task else tuple(sets)
        if not names:
            raise HeadtoolError("--task is empty", hint=f"the made data sets are {', '.join(synthetic.SETS)}")
        for name in names:
            synthetic.named(name)
        return Sources(None, None, "numbers", (), names)
    if task is not None:
        raise HeadtoolError("--task names made rows, --data others", hint="give one of them")
    shape = "text" if value is None else "numbers"
    named = {"text": text, "value": value}
    fields = tuple(f"{name}={path}" for name, path in named.items() if path is not None and path != name)
    for each in (data, evaluation):
        if each is not None:
            load.check(each, shape, fields)
    return Sources(data, evaluation, shape, fields, ())


def read(sources: Sources, *, limit: int | None, subset: int | None, subset_seed: int, seed: int, made: int) -> Read:
    """Read both sides. limit is the first training rows, subset a seeded sample of the evaluation rows; of made sets, made
    is the number of training examples of each learnable one, and of the five templates that the others share.

    Raises HeadtoolError as load.choose does.
    """
    if sources.data is None:
        train = [example for name in _trained(sources.made) for example in synthetic.rows(name, made, training=True)]
        return Read(
            train[:limit], {name: synthetic.rows(name, EVALUATED, training=False)[:subset] for name in sources.made}
        )
    chosen = _choose(sources, sources.data, limit=limit, subset=None, seed=0)
    if sources.evaluation is not None:
        other = _choose(sources, sources.evaluation, limit=None, subset=subset, seed=subset_seed)
        return Read(_examples(chosen), {_name(sources.evaluation): _examples(other)}, [*chosen.notes, *other.notes])
    if chosen.readable < 2:
        raise HeadtoolError(f"{chosen.name}: one row cannot be trained on and held out", hint="give --eval FILE")
    order = np.random.default_rng(seed).permutation(chosen.readable)
    count = max(1, round(HELD_OUT * chosen.readable))
    held, kept = order[:count][:subset], order[count:]
    note = f"no --eval: {count} of {chosen.readable} rows of {chosen.name} are held out to evaluate on"
    sides = [_examples(dataclasses.replace(chosen, kept=np.sort(side))) for side in (kept, held)]
    return Read(sides[0], {"held_out": sides[1]}, [*chosen.notes, note])


def _examples(chosen: Chosen) -> list[Example]:
    """The rows; the label of a row of plain text is a class, not a number that the text leads to."""
    found = list(chosen.examples())
    return found if "value" in chosen.shape.FIELDS[0] else [dataclasses.replace(each, label=None) for each in found]


def _trained(names: Sequence[str]) -> list[str]:
    """The sets to train on: the unlearnable ones have the training rows of basic in common, where it is among them."""
    others = [name for name in names if name in LEARNABLE]
    unlearnable = [name for name in names if name in UNLEARNABLE]
    return [*(["basic"] if "basic" in unlearnable else unlearnable), *others]


def _choose(sources: Sources, data: str, *, limit: int | None, subset: int | None, seed: int) -> Chosen:
    return load.choose(
        data=data,
        task=sources.shape,
        encoder=False,
        fields=sources.fields,
        limit=limit,
        subset=subset,
        subset_seed=seed,
    )


def _name(data: str) -> str:
    return Path(data).stem or data
