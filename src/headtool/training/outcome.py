"""From a finished fine-tuning to what a reader gets: tables, metrics, the closing words."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from headtool.console import Aligned, Fitted
from headtool.models.adapter import Adapter
from headtool.models.locate import locate
from headtool.record import session, tables
from headtool.record.run import Run
from headtool.training import course
from headtool.training.course import Finished, Place
from headtool.training.loop import Recipe
from headtool.training.lora import Lora
from headtool.training.split import Split

CHECKPOINTS = ("ckpt_init", "ckpt_final")
EVALUATION = tuple(column.name for column in tables.TABLES["evaluation"].columns)


def write(run: Run, finished: Finished, place: Place, recipe: Recipe, lora: Lora | None, *, lines: bool) -> None:
    """Write the tables training and evaluation, metrics.json and run_config.json; name the checkpoints."""
    training, evaluations, begun = finished.training, finished.evaluations, place.begun or {}
    run.write("training", tables.build("training", training), lines=lines)
    columns = {name: [entry.get(name) for entry in evaluations] for name in EVALUATION}
    run.write("evaluation", tables.build("evaluation", columns), lines=lines)
    ended = {"steps": training["step"][-1], "epochs": training["epoch"][-1], "loss_last": training["loss"][-1]}
    content = {"init": evaluations[0], "final": evaluations[-1], "training": ended, "probe": begun["probe"]}
    run.write_json("metrics.json", content)
    run.manifest["metrics"] = {side: _brief(content[side]) for side in ("init", "final")}
    run.manifest["model"]["trained"] = finished.trained
    said = {
        **dataclasses.asdict(recipe), "device": str(recipe.device), "dtype": str(recipe.dtype).removeprefix("torch."),
        "optimizer": "AdamW", "schedule": "linear", "lora": dataclasses.asdict(lora) if lora else None,
        "fresh": begun["fresh"], "probe": begun["probe"], "model": run.manifest["model"], "data": run.manifest["data"],
    }  # fmt: skip
    run.write_json("run_config.json", said)
    run.manifest["checkpoints"] = {
        name: {"weights_sha256": locate(str(run.path / name)).fingerprint()["weights_sha256"]} for name in CHECKPOINTS
    }


def _brief(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {name: metrics[name] for name in ("loss", "accuracy", "n")}


def summary(run: Run, evaluations: Sequence[Mapping[str, Any]]) -> list[Any]:
    """The closing words: what was trained on what, how it went, where time and memory went, what is left behind."""
    from rich.text import Text

    facts, data, clock = run.manifest["model"], run.manifest["data"], run.clock
    head = (
        f" finetune  {facts['label']}  {facts['classes']} classes  {facts['trained']:,} of {facts['parameters']:,} parameters"
        f"  {facts['dtype']} {facts['device']}  {data['train']['examples']:,} examples"
    )
    phases = "   ".join(f"{name} {seconds:.1f} s" for name, seconds in clock.wall.items())
    lines = [
        f" data     trained on {data['train']['examples']:,} examples, evaluated on {data['eval']['examples']:,} others"
    ]
    lines.append(f" phases   {phases}")
    examples, tokens = (clock.rate(name, "train") for name in ("examples", "tokens"))
    if examples and tokens:
        lines.append(f" rate     {examples:,.1f} examples/s   {tokens:,.0f} tokens/s, evaluations included")
    lines.append(f" memory   {run.memory()}")
    lines.append(f" left     {run.left('ckpt_init', 'ckpt_final', 'metrics.json')}")
    return [Text(head, style="bold"), _course(evaluations), Aligned(lines)]


def _course(evaluations: Sequence[Mapping[str, Any]]) -> Any:
    told = []
    for each in evaluations:
        accuracy = f"{each['accuracy']:.1%}"
        if each["accuracy_se"] is not None:
            accuracy += f" ± {each['accuracy_se']:.1%}"
        told.append(
            [f"{each['epoch']:.3g}", f"{each['step']:,}", f"{each['loss']:.4f}", accuracy, f"{each['f1_macro']:.3f}",
             f"{each['n']:,}"]
        )  # fmt: skip
    return Fitted(("epoch", "step", "loss", "accuracy", "F1", "of"), told, left=0)


def show_plan(run: Run, adapter: Adapter, train: Split, evaluate: Split, recipe: Recipe, lora: Lora | None) -> Path:
    """What the run would do, on stdout."""
    _, steps = recipe.steps(len(train))
    trained = course.trained(adapter, lora)
    weights = adapter.parameters * adapter.dtype.itemsize
    widest = recipe.batch_size * int(train.examples.lengths.max())
    activations = widest * adapter.geometry.width * adapter.geometry.layers * 34 * adapter.dtype.itemsize // 2
    fields: dict[str, Any] = {
        "steps": steps, "train_examples": len(train), "eval_examples": len(evaluate),
        "tokens": round(train.examples.tokens * recipe.epochs), "classes": adapter.model.config.num_labels,
        "parameters": adapter.parameters, "trained": trained, "model_bytes": weights,
        "memory_bytes": weights + 3 * trained * adapter.dtype.itemsize + activations,
        "checkpoint_bytes": weights + 2 * trained * adapter.dtype.itemsize,
    }  # fmt: skip
    return session.show_plan(run, fields, device=adapter.runs_on.type)
