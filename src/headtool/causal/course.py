"""One configuration after another: trained, evaluated, put down as a part; a run that was stopped goes on from the parts.

A finished configuration is one file among the parts, NAME.json; one that was being trained has the Trainer's checkpoints
in a folder of its name.
"""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headtool.causal import evaluate, folder, trainer
from headtool.causal.evaluate import Ends, Seen
from headtool.causal.experiments import MEDIAN
from headtool.causal.metrics import LEVELS, Metrics
from headtool.causal.model import CausalModel
from headtool.causal.rows import Rows
from headtool.causal.settings import Settings
from headtool.causal.tokens import NumberTokenizer
from headtool.errors import FAILED, HeadtoolError
from headtool.record import locks
from headtool.record.files import write_text
from headtool.record.run import Run
from headtool.training import loop
from headtool.training.loop import Recipe

CALIBRATED = 1000  # training rows whose errors give the plain model its intervals


@dataclass(frozen=True)
class Data:
    """The rows to train on, and those to evaluate on by name of their data set."""

    train: Rows
    evaluation: Mapping[str, Rows]
    tokens: NumberTokenizer


Part = dict[str, Any]  # results {dataset: metrics}, predictions {dataset: columns}, training {column: values}


def run_all(
    run: Run, configurations: Mapping[str, Settings], fresh: Callable[[Settings], CausalModel], data: Data, recipe: Recipe,
    parts: Path, report_to: list[str], facts: Mapping[str, Any],
) -> dict[str, Part]:  # fmt: skip
    """What came out of every configuration, and of the median, in order.

    fresh makes a model as it is before training; the first configuration is saved as the run's model, with facts.
    """
    found: dict[str, Part] = {}
    done = sum((parts / f"{name}.json").is_file() for name in configurations)
    if done:
        run.console.note(f"going on: {done} of {len(configurations)} configurations are there")
    first = next(iter(configurations))
    for name, settings in configurations.items():
        part = parts / f"{name}.json"
        if not part.is_file():
            run.console.detail(f"configuration {name}")
            _one(run, name, settings, fresh, data, recipe, parts, report_to, facts if name == first else None)
        found[name] = json.loads(part.read_text(encoding="utf-8"))
    found[MEDIAN] = median(data)
    return found


def _one(
    run: Run, name: str, settings: Settings, fresh: Callable[[Settings], CausalModel], data: Data, recipe: Recipe,
    parts: Path, report_to: list[str], facts: Mapping[str, Any] | None,
) -> None:  # fmt: skip
    part, place = parts / f"{name}.json", parts / name
    place.mkdir(exist_ok=True)
    checkpoint = loop.last_checkpoint(place, tidy=run.share.index == 0)
    _, total = recipe.steps(len(data.train))
    done = int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0
    if checkpoint:
        run.console.note(f"{name} goes on: {done:,} of {total:,} steps are there")
    with run.clock.phase("open"):
        loop.sow(recipe)
        model = fresh(settings)
    with run.console.progress(f"training {name}", total, done) as advance, run.clock.phase("train"):
        made = trainer.make(model, data.train, recipe, place, advance, report_to, run.path / "logs" / name)
        loop.run(made, recipe, checkpoint, run.console.warn)
    run.clock.count(
        examples=(total - done) * recipe.batch_size,
        tokens=round((total - done) * recipe.batch_size / len(data.train) * data.train.tokens),
    )
    if run.share.index > 0:
        locks.wait(run.path, run.share, lambda: () if part.is_file() else (0,))
        return
    model.sample = 0
    with run.clock.phase("evaluate"):
        residuals = _residuals(model, data.train) if settings.plain else None
        results: dict[str, Metrics] = {}
        predictions: dict[str, dict[str, list]] = {}
        for dataset, rows in data.evaluation.items():
            seen = evaluate.look(model, rows)
            if not math.isfinite(loss := seen.loss_cls + settings.reg_weight * seen.loss_reg):
                hint = "a smaller --lr, or --dtype fp32; --force starts over"
                raise HeadtoolError(f"{name}: the evaluation loss is {loss} on {dataset}", hint=hint, code=FAILED)
            results[dataset] = evaluate.measure(model, seen, residuals)
            predictions[dataset] = _predicted(seen, evaluate.ends(model, seen, residuals))
    with run.clock.phase("write"):
        if facts is not None:
            folder.save(model, data.tokens, run.path / "model", parts, {"configuration": name, **facts})
        told = {
            "settings": dataclasses.asdict(settings), "results": results, "predictions": predictions,
            "training": loop.curve(made, trainer.LOGGED),
        }  # fmt: skip
        write_text(part, json.dumps(told, allow_nan=False))
    shutil.rmtree(place, ignore_errors=True)


def _residuals(model: CausalModel, train: Rows) -> np.ndarray:
    """The absolute errors on (at most 1,000 of) the training rows, evenly chosen."""
    step = max(1, len(train) // CALIBRATED)
    seen = evaluate.look(model, train.some(np.arange(0, len(train), step)))
    return np.abs(seen.value - seen.median)


def median(data: Data) -> Part:
    """The predictor that reads nothing, as a part."""
    results: dict[str, Metrics] = {}
    predictions: dict[str, dict[str, list]] = {}
    for dataset, rows in data.evaluation.items():
        example, position, value = rows.numbers()
        point, ends = evaluate.always(data.train.targets, len(value))
        results[dataset] = evaluate.numbers(value, point, *ends)
        columns = {"example": example, "position": position, "value": value, "median": point}
        predictions[dataset] = {n: c.tolist() for n, c in columns.items()} | _ends(ends)
    return {"settings": None, "results": results, "predictions": predictions, "training": {}}


def _predicted(seen: Seen, ends: Ends) -> dict[str, list]:
    columns: dict[str, Sequence[Any] | np.ndarray] = {
        "example": seen.example, "position": seen.position, "value": seen.value, "median": seen.median,
        "p_number": seen.p_number, "answered": seen.answered,
    }  # fmt: skip
    if seen.scale is not None:
        columns["scale"] = seen.scale
    return {name: np.asarray(column).tolist() for name, column in columns.items()} | _ends(ends)


def _ends(ends: Ends) -> dict[str, list]:
    return {side: of[LEVELS[-1]].tolist() for side, of in zip(("low", "high"), ends, strict=True)}
