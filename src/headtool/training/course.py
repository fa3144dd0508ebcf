"""The course of a fine-tuning: theta0 is prepared and saved, trained from there or from a checkpoint, saved again.

While it runs, the folder of parts holds start.json (what is known of theta0: its presence says that ckpt_init is
whole) and the Trainer's checkpoints. Both are all that a run which was stopped needs to go on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headtool.models import classifier
from headtool.models.adapter import Adapter
from headtool.models.classifier import Classifier
from headtool.models.locate import locate
from headtool.record import locks
from headtool.record.files import fingerprints, read_sealed, write_sealed
from headtool.record.run import Run
from headtool.training import loop, probe
from headtool.training import lora as low_rank
from headtool.training.loop import Recipe
from headtool.training.lora import Lora
from headtool.training.split import Split

START = "start.json"


@dataclass(frozen=True)
class Place:
    """Where a fine-tuning stands: its parts, what is known of theta0 (None before it is saved), its last checkpoint."""

    init: Path
    parts: Path
    begun: Mapping[str, Any] | None
    checkpoint: Path | None
    weights: Path  # the folder to open the model from, where it has begun


@dataclass(frozen=True)
class Finished:
    """What came out: the columns of the training table, the evaluations in order, how many parameters were trained."""

    training: Mapping[str, Sequence[Any]]
    evaluations: Sequence[Mapping[str, Any]]
    trained: int


def find(run: Path, parts: Path, lora: Lora | None, *, tidy: bool) -> Place:
    """Look for what an earlier attempt has left; tidy removes what is broken of it."""
    init, start = run / "ckpt_init", parts / START
    begun = read_sealed(start)
    if begun is not None and not _is(init, begun["files"]):
        begun = None
    if begun is None and tidy:  # other processes must not go on from what this one does again
        start.unlink(missing_ok=True)
        for checkpoint in parts.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)
    last = loop.last_checkpoint(parts, tidy=tidy) if begun is not None else None
    # A checkpoint of adapters holds them alone: the Trainer puts them on theta0.
    return Place(init, parts, begun, last, last if last is not None and lora is None else init)


def _is(folder: Path, files: Mapping[str, str]) -> bool:
    """Are these the fingerprints of a folder's files?"""
    with contextlib.suppress(FileNotFoundError):  # another process is making it again
        return folder.is_dir() and fingerprints(folder) == files
    return False


def prepare(run: Run, place: Place, opened: Classifier, train: Split, recipe: Recipe, warm_up: bool) -> Place:
    """Make theta0 and save it as ckpt_init, with a warm-up where one is asked for and something in it is new.

    Of several processes the first does it; the others wait, and take its weights.
    """
    console = run.console
    if place.begun is None and run.share.index > 0:
        look = functools.partial(find, run.path, place.parts, None, tidy=False)
        locks.wait(run.path, run.share, lambda: (0,) if look().begun is None else ())
        place = look()
        others = classifier.open_classifier(
            locate(str(place.init)), list(opened.adapter.model.config.id2label.values()), device=str(recipe.device)
        )
        opened.adapter.model.load_state_dict(others.adapter.model.state_dict())
    elif place.begun is None:
        fitted = None
        if warm_up and opened.fresh:
            with run.clock.phase("probe"), console.progress("features", len(train)) as advance:
                fitted = probe.fit(opened.adapter, opened.fresh, train, dtype=recipe.dtype, advance=advance)
            console.note(
                f"the classifier alone, on the training rows: loss {fitted.loss_before:.3f} -> {fitted.loss:.3f}, "
                f"accuracy {fitted.accuracy:.1%}, in {fitted.iterations} iterations"
            )
        elif warm_up:
            console.note("the model brings its classifier: --probe leaves it as it is")
        with run.clock.phase("write"):
            classifier.save(opened.adapter.model, opened.tokenizer, place.init, place.parts)
            known: dict[str, Any] = {
                "fresh": list(opened.fresh),
                "probe": dataclasses.asdict(fitted) if fitted else None,
            }
            known["files"] = fingerprints(place.init)
            write_sealed(place.parts / START, known)
        place = dataclasses.replace(place, begun=known)
    begun = dict(place.begun or {})
    if begun["fresh"] and begun["probe"] is None:
        console.warn(
            f"the classifier is new ({', '.join(begun['fresh'][:4])}): what is measured on ckpt_init is noise; "
            "--probe fits it first"
        )
    return place


def train(
    run: Run, place: Place, opened: Classifier, rows: Split, evaluate: Split, recipe: Recipe, lora: Lora | None
) -> Finished:
    """Train on rows, evaluating before and after each epoch, and save ckpt_final. Raises HeadtoolError as loop.run does."""
    model, begun = opened.adapter.model, dict(place.begun or {})
    if lora is not None:
        loop.sow(recipe)
        model = low_rank.wrap(opened.adapter, tuple(begun["fresh"]), lora)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    _, total = recipe.steps(len(rows))
    done = int(place.checkpoint.name.rpartition("-")[2]) if place.checkpoint else 0
    if place.checkpoint:
        run.console.note(f"going on: {done:,} of {total:,} steps are there")
    with run.console.progress("training", total, done) as advance:
        start = place.checkpoint is None
        trainer = loop.make(model, opened.tokenizer, rows, evaluate, recipe, place.parts, advance, start=start)
        with run.clock.phase("train"):
            loop.run(trainer, recipe, place.checkpoint, run.console.warn)
    steps = trainer.state.global_step - done
    share = steps * recipe.batch_size / len(rows)
    run.clock.count(examples=round(share * len(rows)), tokens=round(share * rows.examples.tokens))
    training, evaluations = loop.history(trainer)
    if run.share.index == 0:
        with run.clock.phase("write"):
            final = low_rank.merge(trainer.model) if lora is not None else trainer.model
            classifier.save(final, opened.tokenizer, run.path / "ckpt_final", place.parts)
    return Finished(training, evaluations, trained)


def trained(adapter: Adapter, lora: Lora | None) -> int:
    """How many parameters would be trained, read off the shapes."""
    if lora is None:
        return adapter.parameters
    base = adapter.model.base_model_prefix
    shapes = [adapter.model.get_parameter(f"{name}.weight").shape for name in low_rank.modules(adapter, lora)]
    head = sum(p.numel() for name, p in adapter.model.named_parameters() if not name.startswith(f"{base}."))
    return head + sum(lora.rank * sum(shape) for shape in shapes)
