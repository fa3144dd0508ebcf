"""Encoded examples with their class numbers, as a model's classifier takes them."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from headtool.models.adapter import Adapter
from headtool.models.batches import Examples


@dataclass(frozen=True)
class Split:
    """One side of the data. An item is a reference to an example: token ids stay on disk until a batch is made."""

    examples: Examples
    labels: np.ndarray  # (example,) int64
    takes_types: bool  # does the model tell a second text by its token types?

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, example: int) -> tuple[Split, int]:
        return self, int(example)

    def inputs(self, index: np.ndarray) -> dict[str, torch.Tensor]:
        """A batch of the named examples, padded on the right: what the classifier's forward takes, labels included."""
        batch = self.examples.batch(index)
        given = {"input_ids": batch.ids, "attention_mask": batch.mask, "labels": torch.from_numpy(self.labels[index])}
        if batch.types is not None and self.takes_types:
            given["token_type_ids"] = batch.types
        return given


def collate(items: Sequence[tuple[Split, int]]) -> dict[str, torch.Tensor]:
    """A batch of items of one split, in their order."""
    return items[0][0].inputs(np.array([example for _, example in items]))


def takes_types(adapter: Adapter) -> bool:
    """Are token types something that the classifier's forward takes?"""
    return adapter.has_types and "token_type_ids" in inspect.signature(adapter.model.forward).parameters


def autocast(device: torch.device, dtype: torch.dtype) -> Any:
    """Compute in a 16-bit dtype over weights that stay as they are; nothing for the others."""
    return torch.autocast(device.type, dtype, enabled=dtype in (torch.bfloat16, torch.float16))
