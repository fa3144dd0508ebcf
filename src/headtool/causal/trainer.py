"""The Trainer of a causal model: its losses logged one by one, its shared weights saved once."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model, save_model

from headtool.causal.model import CausalModel
from headtool.causal.rows import Rows, collate
from headtool.training import loop
from headtool.training.loop import Recipe

WEIGHTS = "model.safetensors"
LOGGED = ("loss_cls", "loss_reg", "loc_u", "scale_u", "sum_p", "accuracy_ovr", "accuracy_softmax")  # beside the loss
SAMPLE = 64  # positions of a logged step whose scores are looked at


def make(
    model: CausalModel, train: Rows, recipe: Recipe, folder: Path, advance: Callable[[int], None], report_to: list[str],
    logs: Path,
) -> CausalTrainer:  # fmt: skip
    """A Trainer over the rows; its checkpoints go to the folder, what --report-to asks for to logs."""
    if report_to:
        os.environ["TENSORBOARD_LOGGING_DIR"] = str(logs)
        os.environ.setdefault("WANDB_DIR", str(logs.parent))
    return loop.assemble(
        CausalTrainer, recipe, folder, advance,
        arguments={"report_to": report_to, "run_name": logs.name},
        model=model, data_collator=collate, train_dataset=train,
    )  # fmt: skip


class CausalTrainer(loop.CarefulTrainer):
    """The sums of what is logged are kept on the device, and read when a row is written."""

    def __init__(self, *args: Any, **given: Any) -> None:
        super().__init__(*args, **given)
        self.sums: dict[str, torch.Tensor] = {}
        self.counts: dict[str, int] = {}
        self.every = int(self.args.logging_steps)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        own: CausalModel = self.accelerator.unwrap_model(model, keep_torch_compile=False)
        own.sample = SAMPLE if (self.state.global_step + 1) % self.every == 0 else 0
        if own.settings.negatives and model.training:
            inputs["drawn"] = torch.randint(len(own.bias), (own.settings.negatives,), device=own.bias.device)
        told = model(**inputs)
        for name in LOGGED:
            if name in told:
                value = told[name].detach().float()
                self.sums[name] = self.sums.get(name, 0) + value
                self.counts[name] = self.counts.get(name, 0) + 1
        return (told["loss"], told) if return_outputs else told["loss"]

    def log(self, logs: dict[str, float], *args: Any, **given: Any) -> None:
        if "loss" in logs:
            means = {name: float(total) / self.counts[name] for name, total in self.sums.items()}
            logs |= means
            self.sums, self.counts = {}, {}
        super().log(logs, *args, **given)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        if self.args.should_save:
            folder = Path(output_dir or str(self.args.output_dir))
            folder.mkdir(parents=True, exist_ok=True)
            own = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
            save_model(own, str(folder / WEIGHTS))  # a tied head once

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        own: Any = model or self.model
        load_model(own, str(Path(resume_from_checkpoint) / WEIGHTS))
