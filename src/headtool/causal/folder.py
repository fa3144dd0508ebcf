"""A causal model on disk: a plain language model that anything opens, and its causal part in two files beside it.

config.json, model.safetensors and the tokenizer are those of the decoder: transformers' AutoModelForCausalLM, headtool
score and inspect-weights open the folder with no code of ours. causal.json holds the settings, causal.safetensors the weights.
"""

from __future__ import annotations

import dataclasses
import json
import math
import typing
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from headtool.causal import numbers
from headtool.causal.model import CausalModel
from headtool.causal.place import FACTS
from headtool.causal.settings import Settings
from headtool.causal.tokens import NumberTokenizer
from headtool.errors import HeadtoolError
from headtool.models import checkpoint, classifier
from headtool.models.language import open_language_model
from headtool.models.locate import Located

WEIGHTS = "causal.safetensors"
FORMAT = 1


def save(model: CausalModel, tokens: NumberTokenizer, folder: Path, scratch: Path, facts: dict[str, Any]) -> None:
    """Save a model: the folder is there whole or not at all. scratch is a folder on the same disk."""
    own = {
        name: t.detach().cpu().contiguous()
        for name, t in model.state_dict().items()
        if not name.startswith("backbone.")
    }
    said = {
        "format": FORMAT, "token": tokens.token, "num": tokens.num,
        "pattern": None if tokens.pattern is numbers.NUMBER else tokens.pattern.pattern,
        "settings": dataclasses.asdict(model.settings), "tied": model.tied, "shared": model.shared, **facts,
    }  # fmt: skip

    def beside(half: Path) -> None:
        save_file(own, half / WEIGHTS, metadata={"format": "pt"})
        (half / FACTS).write_text(json.dumps(said, indent=1, allow_nan=False) + "\n", encoding="utf-8")

    classifier.save(model.backbone, tokens.tokenizer, folder, scratch, beside)


def read_facts(folder: Path) -> dict[str, Any]:
    """causal.json. Raises HeadtoolError where it cannot be read."""
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        settings = Settings(**facts["settings"])
        if facts["format"] != FORMAT:
            raise ValueError(f"format {facts['format']}")
        kinds = typing.get_type_hints(Settings)
        for name, value in [*dataclasses.asdict(settings).items(), ("num", facts["num"]), ("token", facts["token"])]:
            if not _is(value, {"num": int, "token": str}.get(name) or kinds[name]):
                raise ValueError(f"{name} {value}")
        numbers.pattern(facts["pattern"])
    except (ValueError, KeyError, TypeError, RecursionError, HeadtoolError) as error:
        raise HeadtoolError(
            f"{folder / FACTS}: not the settings of a causal model ({error})", hint="train it again"
        ) from error
    return facts


def _is(value: Any, kind: Any) -> bool:
    """Is a value of a type: of one of several, one of some words, a whole number from 0, a finite number?"""
    if typing.get_origin(kind) is typing.Literal:
        return value in typing.get_args(kind)
    if typing.get_args(kind):
        return any(_is(value, each) for each in typing.get_args(kind))
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is kind and (kind is not int or value >= 0)


def open_causal(located: Located, *, device: str = "auto", threads: int = 0) -> tuple[CausalModel, NumberTokenizer]:
    """Open a saved model in float32 and eval mode. Raises HeadtoolError for files that are damaged or do not fit."""
    facts = read_facts(located.folder)
    adapter = open_language_model(located, device=device, threads=threads)
    if adapter.tokenizer.convert_tokens_to_ids(facts["token"]) != facts["num"]:
        what = f"{located.folder / FACTS}: its token {facts['token']} is not the tokenizer's {facts['num']}"
        raise HeadtoolError(what, hint="copy the folder whole")
    file = located.folder / WEIGHTS
    if not file.is_file():
        raise HeadtoolError(f"{located.folder}: {WEIGHTS} is missing", hint="copy the folder whole")
    checkpoint.header(file)
    model = CausalModel(adapter.model, Settings(**facts["settings"]), facts["num"])
    own = {name: t for name, t in model.state_dict().items() if not name.startswith("backbone.")}
    found = load_file(file)
    if {n: t.shape for n, t in own.items()} != {n: t.shape for n, t in found.items()}:
        raise HeadtoolError(f"{file}: its weights do not fit {FACTS}", hint="copy the folder whole")
    if not all(bool(torch.isfinite(tensor).all()) for tensor in found.values()):
        raise HeadtoolError(f"{file}: it holds numbers that are not finite", hint="train it again")
    model.load_state_dict(found, strict=False)
    model.to(adapter.runs_on).eval().requires_grad_(False)
    return model, NumberTokenizer(adapter.tokenizer, facts["token"], numbers.pattern(facts["pattern"]))
