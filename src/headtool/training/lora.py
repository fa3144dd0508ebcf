"""Low-rank adapters on the attention projections: small matrices are trained beside frozen weights, then merged.

Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models". W becomes W + (alpha / rank) B A.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any

from headtool.errors import HeadtoolError, unknown
from headtool.models.adapter import Adapter
from headtool.models.classifier import head_modules
from headtool.models.open import quiet_libraries

TARGETS = {"q": "query", "k": "key", "v": "value", "o": "out"}  # on the command line, and in a Layout


@dataclass(frozen=True)
class Lora:
    """What adapters there are: their rank, scale and dropout, and the projections that have one."""

    rank: int
    alpha: int
    dropout: float
    targets: tuple[str, ...]


def settle(rank: int, alpha: int, dropout: float, targets: str) -> Lora:
    """Check what was asked for. Raises HeadtoolError for unknown targets, and where peft is not installed."""
    names = tuple(dict.fromkeys(name.strip() for name in targets.split(",") if name.strip()))
    if not names:
        raise HeadtoolError("--lora-targets is empty", hint=f"the targets are {', '.join(TARGETS)}")
    for name in names:
        if name not in TARGETS:
            raise unknown("LoRA target", name, TARGETS)
    if importlib.util.find_spec("peft") is None:
        raise HeadtoolError("--lora needs the package peft", hint="pip install 'headtool[lora]'")
    return Lora(rank, alpha, dropout, names)


def modules(adapter: Adapter, lora: Lora) -> tuple[str, ...]:
    """The full names of the attention projections that the targets mean, layer by layer.

    Where query, key and value are one fused module, that module stands for each of the three.
    """
    layout, base = adapter.layout, adapter.model.base_model_prefix
    paths = [getattr(layout, TARGETS[name]) or layout.qkv for name in lora.targets]
    return tuple(
        f"{base}.{layout.blocks}.{layer}.{path}"
        for layer in range(adapter.geometry.layers)
        for path in dict.fromkeys(paths)
    )


def wrap(adapter: Adapter, fresh: tuple[str, ...], lora: Lora) -> Any:
    """The classifier with adapters; they and the classifier's own parts are trained, all else is frozen."""
    import peft

    model = adapter.model
    drawn = {name.rpartition(".pooler.")[0] + ".pooler" for name in fresh if ".pooler." in name}
    config = peft.LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=list(modules(adapter, lora)),
        modules_to_save=[*head_modules(model), *sorted(drawn)], fan_in_fan_out=adapter.layout.transposed,
    )  # fmt: skip
    with quiet_libraries():
        return peft.get_peft_model(model, config)


def merge(model: Any) -> Any:
    """The classifier with its adapters added to the weights: a plain model again."""
    with quiet_libraries():
        return model.merge_and_unload()
