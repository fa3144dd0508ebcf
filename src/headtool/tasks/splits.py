"""Which rows a classifier is trained on, and which it is evaluated on: --task, --train and --eval put together."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from headtool import folder
from headtool.errors import HeadtoolError
from headtool.tasks import load
from headtool.tasks.load import Chosen

HELD_OUT = 0.1  # of the training rows, where there are no others to evaluate on
SHAPES = ("pairs", "text")  # shapes of rows that have a class


@dataclass(frozen=True)
class Splits:
    """Where the two sides come from: a file or hub data set, or the rows of a built-in task.

    shape is how to read the rows of files, or None to see it from their fields. A side that is None is the task's;
    evaluation rows that are neither are held out of the training rows.
    """

    task: str | None
    train: str | None
    evaluation: str | None
    shape: str | None
    fields: tuple[str, ...]
    classes: tuple[str, ...] | None  # as the task calls them, in the order of their numbers

    @property
    def holds_out(self) -> bool:
        return self.train is not None and self.evaluation is None

    def fingerprints(self) -> dict[str, str]:
        """What identifies the rows of both sides, before any is read."""
        built_in = load.fingerprint(None, self.task)
        train = load.fingerprint(self.train, None) if self.train else f"{built_in}:train"
        held_out = f"held out of {train}"
        evaluation = load.fingerprint(self.evaluation, None) if self.evaluation else built_in
        return {"train": train, "eval": held_out if self.holds_out else evaluation}


def with_classes() -> list[str]:
    """The tasks and shapes that settle() takes."""
    return [name for name in folder.names(load.TASKS) if name in SHAPES or _brings_classes(name)]


def _brings_classes(task: str) -> bool:
    return task != "stsb" and not hasattr(folder.load(load.TASKS, task, "task"), "example")


def settle(
    task: str | None,
    train: str | None,
    evaluation: str | None,
    *,
    field: Sequence[str] = (),
    text: str | None = None,
    pair: str | None = None,
    label: str | None = None,
) -> Splits:
    """Put the flags together. text, pair and label name fields of the rows, as --text-field and its like do.

    Raises HeadtoolError where they contradict each other, or where there is nothing to train on.
    """
    module = folder.load(load.TASKS, task, "task") if task else None
    is_shape = module is not None and hasattr(module, "example")
    if is_shape and task not in SHAPES:
        raise HeadtoolError(
            f"the rows of the task '{task}' have no class", hint=f"a classifier takes {' or '.join(SHAPES)}"
        )
    if task == "stsb":
        raise HeadtoolError("stsb is a regression: its labels are no classes", hint="finetune fits classifiers only")
    if train is None and (module is None or is_shape):
        what = "--eval without --train" if evaluation is not None else "there is nothing to train on"
        raise HeadtoolError(
            what, hint="give rows with --train FILE, or a task that brings its own with --task demo, mnli ..."
        )
    for flag, data in (("--train", train), ("--eval", evaluation)):
        if data is not None and not data.strip():
            raise HeadtoolError(f"{flag} is empty", hint="give a data file, or a hub data set as ID[:CONFIG][:SPLIT]")
    if pair is not None and text is None:
        raise HeadtoolError("--text-field2 without --text-field", hint="name both texts of the pair")
    if text is not None and is_shape and (task == "pairs") != (pair is not None):
        hint = "a pair has --text-field and --text-field2, a text has --text-field alone"
        raise HeadtoolError(f"--task {task} is not what the named fields make", hint=hint)
    named = {"text" if pair is None else "premise": text, "hypothesis": pair, "label": label}
    if train is None and evaluation is None and (field or any(named.values())):
        raise HeadtoolError(f"the fields of the task '{task}' are known", hint="name fields of --train and --eval only")
    fields = (*field, *(f"{name}={path}" for name, path in named.items() if path is not None))
    shape = task if is_shape else None if text is None else "text" if pair is None else "pairs"
    classes = _classes(module, task)
    splits = Splits(None if is_shape else task, train, evaluation, shape, fields, classes)
    for data in (train, evaluation):
        if data is not None:
            load.check(data, shape, fields)
    return splits


def _classes(module: ModuleType | None, task: str | None) -> tuple[str, ...] | None:
    found = getattr(module, "CLASSES", {}).get(task)
    return None if found is None else tuple(found)


def choose(
    splits: Splits, *, limit: int | None, subset: int | None, subset_seed: int, seed: int
) -> tuple[Chosen, Chosen]:
    """Read both sides once: the training rows and the evaluation rows.

    limit is the first rows of the training side; subset a seeded sample of the evaluation side, the same one that
    `headtool score` takes of the same file. Held-out rows are drawn with seed.

    Raises HeadtoolError as load.choose does, and where too few rows are left to hold some out.
    """
    train = _side(splits, splits.train, training=True, limit=limit)
    if not splits.holds_out:
        return train, _side(splits, splits.evaluation, training=False, subset=subset, subset_seed=subset_seed)
    if train.readable < 2:
        raise HeadtoolError(f"{train.name}: one row cannot be trained on and held out", hint="give --eval FILE")
    order = np.random.default_rng(seed).permutation(train.readable)
    held = order[: max(1, round(HELD_OUT * train.readable))]
    kept = np.sort(order[len(held) :])
    if subset is not None:
        held = held[:subset]
    train.notes.append(f"no --eval: {len(held)} of {train.readable} rows of {train.name} are held out to evaluate on")
    return dataclasses.replace(train, kept=kept), dataclasses.replace(train, kept=np.sort(held), notes=[])


def _side(
    splits: Splits,
    data: str | None,
    *,
    training: bool,
    limit: int | None = None,
    subset: int | None = None,
    subset_seed: int = 0,
) -> Chosen:
    own = data is not None
    chosen = load.choose(
        data=data, task=splits.shape if own else splits.task, encoder=True, fields=splits.fields if own else (),
        limit=limit, subset=subset, subset_seed=subset_seed, training=training,
    )  # fmt: skip
    if chosen.shape.NAMES[0] not in SHAPES:
        raise HeadtoolError(
            f"{chosen.name}: rows of the shape {chosen.shape.NAMES[0]} have no class",
            hint="name the text and the label: --text-field, --text-field2, --label-field",
        )
    return chosen
