"""The training loop: transformers' Trainer, told to be silent, to stop at a loss that is no number, and to go on."""

from __future__ import annotations

import contextlib
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from headtool.errors import FAILED, HeadtoolError
from headtool.models.devices import caveat, pick_device, pick_dtype, repeatably
from headtool.models.open import quiet_libraries
from headtool.record.files import fingerprints, read_sealed, write_sealed
from headtool.training import metrics
from headtool.training.split import Split, collate

ROWS = 500  # of the training table, about
PATIENCE = 300.0  # seconds between two checkpoints within an epoch
WHOLE = "whole"  # a file in each checkpoint, written last, with the fingerprints of the others
OURS = "eval_of_"  # how our metrics are called in the Trainer's log
SEEDS = 2**32  # what numpy's generator takes


@dataclass(frozen=True)
class Recipe:
    """How a model is trained: AdamW, a linear warm-up of the learning rate, then linear decay to 0."""

    epochs: float
    lr: float
    batch_size: int
    weight_decay: float
    warmup: float  # share of the steps
    seed: int
    save_steps: int  # 0: at the end of each epoch, and every five minutes
    device: torch.device
    dtype: torch.dtype
    ranks: int = 1

    def steps(self, examples: int) -> tuple[int, int]:
        """Optimiser steps in an epoch, and in all."""
        epoch = -(-examples // self.batch_size)
        return epoch, max(1, int(np.ceil(self.epochs * epoch)))


def settle(ask: Any, ranks: int) -> Recipe:
    """The recipe of a command's arguments. Raises HeadtoolError for a device and precision that do not go together."""
    where = pick_device(ask.device)
    if ranks == 1 and where.index:
        hint = f"CUDA_VISIBLE_DEVICES={where.index} with --device cuda"
        raise HeadtoolError(f"--device {ask.device}: training takes the first device it sees", hint=hint)
    if ask.dtype == "fp16" and where.type == "cpu":
        raise HeadtoolError("--dtype fp16: a CPU does not train in it", hint="--dtype bf16, or fp32")
    return Recipe(
        epochs=ask.epochs, lr=ask.lr, batch_size=ask.batch_size, weight_decay=ask.weight_decay, warmup=ask.warmup,
        seed=ask.seed, save_steps=ask.save_steps, device=where, dtype=pick_dtype(ask.dtype, where), ranks=ranks,
    )  # fmt: skip


def _of(found: Mapping[str, Any]) -> dict[str, Any]:
    """Our metrics among those that the Trainer gives; its own eval_loss is rounded by batches.

    By their names: so a checkpoint gives back what it was told, and a run that goes on leaves the same bytes.
    """
    return {name.removeprefix(OURS): value for name, value in sorted(found.items()) if name.startswith(OURS)}


def last_checkpoint(folder: Path, *, tidy: bool) -> Path | None:
    """The latest whole checkpoint in a folder. tidy removes half-written and damaged ones: of many processes one does."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    while found:
        with contextlib.suppress(FileNotFoundError):  # another process is tidying
            if read_sealed(found[-1] / WHOLE) == _content(found[-1]):
                return found[-1]
        broken = found.pop()
        if tidy:
            shutil.rmtree(broken)
    return None


def _content(checkpoint: Path) -> dict[str, str]:
    """The fingerprints of a checkpoint's files."""
    return {name: digest for name, digest in fingerprints(checkpoint).items() if name != WHOLE}


def make(
    model: Any,
    tokenizer: Any,
    train: Split,
    evaluate: Split,
    recipe: Recipe,
    folder: Path,
    advance: Callable[[int], None],
    *,
    start: bool,
) -> transformers.Trainer:
    """A Trainer over both sides of the data; its checkpoints go to the folder, advance hears of steps done.

    start: whether training begins at step 0, which is evaluated too. The Trainer does that itself: a model that was
    evaluated before it is trained counts as prepared, and its gradients are then not shared between processes.
    """
    return assemble(
        CarefulTrainer,
        recipe,
        folder,
        advance,
        arguments={"eval_strategy": "epoch", "eval_on_start": start, "label_names": ["labels"]},
        model=model,
        data_collator=collate,
        train_dataset=train,
        eval_dataset=evaluate,
        processing_class=tokenizer,
        compute_metrics=lambda seen: {
            OURS.removeprefix("eval_") + name: value
            for name, value in metrics.measure(np.asarray(seen.predictions), np.asarray(seen.label_ids)).items()
        },
        preprocess_logits_for_metrics=lambda logits, _: logits[0] if isinstance(logits, tuple) else logits,
    )


def assemble(
    kind: type[CarefulTrainer],
    recipe: Recipe,
    folder: Path,
    advance: Callable[[int], None],
    *,
    arguments: Mapping[str, Any],
    **given: Any,
) -> Any:
    """A Trainer of a kind that keeps to a recipe, logs about 500 times, and is silent.

    arguments and what else is given go to TrainingArguments and to the Trainer as they are.
    """
    epoch, total = recipe.steps(len(given["train_dataset"]))
    every = logged_every(total)
    settled = transformers.TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=recipe.epochs,
        learning_rate=recipe.lr,
        per_device_train_batch_size=recipe.batch_size // recipe.ranks,
        per_device_eval_batch_size=max(1, 2 * recipe.batch_size // recipe.ranks),
        weight_decay=recipe.weight_decay,
        warmup_steps=int(recipe.warmup * total),  # at the first of them the rate is 0: none where there are few
        lr_scheduler_type="linear",
        bf16=recipe.dtype == torch.bfloat16,
        fp16=recipe.dtype == torch.float16,
        use_cpu=recipe.device.type == "cpu",
        seed=recipe.seed % SEEDS,
        logging_steps=every,
        logging_nan_inf_filter=False,
        save_strategy="no",  # the callback below says when
        save_total_limit=2,  # a kill may leave the newer one half-written
        average_tokens_across_devices=False,  # it would multiply a classifier's loss by the number of processes
        dataloader_pin_memory=recipe.device.type == "cuda",
        remove_unused_columns=False,
        disable_tqdm=True,
        log_level="error",
        log_level_replica="error",
        **{"report_to": [], **arguments},
    )
    if recipe.ranks == 1:
        settled._n_gpu = min(settled.n_gpu, 1)  # several GPUs are several processes: torchrun
    trainer = kind(args=settled, callbacks=[_Steady(advance, recipe, epoch, total, every)], **given)
    trainer.remove_callback(transformers.PrinterCallback)  # it prints to stdout
    return trainer


def logged_every(total: int) -> int:
    """Steps between two rows of the training table."""
    return max(1, total // ROWS)


def sow(recipe: Recipe) -> None:
    """Seed every generator."""
    transformers.set_seed(recipe.seed % SEEDS)


def run(trainer: transformers.Trainer, recipe: Recipe, checkpoint: Path | None, warn: Callable[[str], None]) -> None:
    """Train, from the beginning or from a checkpoint. Raises HeadtoolError for a loss that is not finite."""
    begun = int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0

    def work() -> None:
        if trainer.state.global_step > begun:  # tried before, and no longer what it was
            told = f"step {trainer.state.global_step}: {caveat(recipe.device)}"
            raise HeadtoolError(told, hint="--device cpu", code=FAILED)
        sow(recipe)  # whatever was drawn before must not matter
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)

    with quiet_libraries():
        if recipe.ranks > 1:  # gradients that are half shared cannot be tried again
            work()
        else:
            repeatably(recipe.device, work)
    if told := caveat(recipe.device):
        warn(told)


def history(trainer: transformers.Trainer) -> tuple[dict[str, list], list[dict[str, Any]]]:
    """The columns of the training table, and the evaluations in order, that of the beginning first.

    Raises HeadtoolError for an evaluation whose loss is not finite.
    """
    training = curve(trainer)
    evaluations = [
        {**_of(entry), "step": entry["step"], "epoch": float(entry["epoch"])}
        for entry in trainer.state.log_history
        if "eval_loss" in entry
    ]
    for found in evaluations:
        if not math.isfinite(found["loss"]):
            raise _diverged("evaluation loss", found["loss"], found["step"])
    return training, evaluations


def curve(trainer: transformers.Trainer, more: Sequence[str] = ()) -> dict[str, list]:
    """The columns of the training table, with more of what was logged."""
    rows = [entry for entry in trainer.state.log_history if "loss" in entry and "learning_rate" in entry]
    training = {name: [row.get(name) for row in rows] for name in ("step", "epoch", "loss", "learning_rate", *more)}
    norms = [row.get("grad_norm") for row in rows]  # in fp16 a step whose gradient overflows is left out
    training["grad_norm"] = [norm if norm is not None and math.isfinite(norm) else None for norm in norms]
    return training


def _diverged(what: str, loss: float, step: int) -> HeadtoolError:
    hint = "a smaller --lr, in half precision --dtype fp32; --force starts over"
    return HeadtoolError(f"the {what} is {loss} at step {step}", hint=hint, code=FAILED)


class CarefulTrainer(transformers.Trainer):
    """A Trainer that stops at the first loss that is no finite number."""

    def training_step(self, *args: Any, **given: Any) -> torch.Tensor:
        loss = super().training_step(*args, **given)
        if not torch.isfinite(loss):
            raise _diverged("loss", loss.item(), self.state.global_step + 1)
        return loss


class _Steady(transformers.TrainerCallback):
    """Says when to log and to save, so that a run that goes on from a checkpoint leaves the same rows."""

    def __init__(self, advance: Callable[[int], None], recipe: Recipe, epoch: int, total: int, every: int) -> None:
        self.advance, self.recipe, self.epoch, self.total, self.every = advance, recipe, epoch, total, every
        self.saved_at, self.saved = 0, time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.saved_at, self.saved = state.global_step, time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.advance(1)
        step = state.global_step
        if step % self.every or step % self.epoch == 0 or step >= self.total:  # an epoch's end has its own turn
            return
        if self.recipe.save_steps:
            control.should_save = step - self.saved_at >= self.recipe.save_steps
        else:  # by the clock; where several processes must agree, at the end of each epoch alone
            control.should_save = self.recipe.ranks == 1 and time.monotonic() - self.saved > PATIENCE

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_log = True
        control.should_save = state.global_step < self.total

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.recipe.ranks > 1:  # each process writes the state of its own generators
            torch.distributed.barrier()
        if state.is_world_process_zero:
            checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            write_sealed(checkpoint / WHOLE, _content(checkpoint))
        self.saved_at, self.saved = state.global_step, time.monotonic()
