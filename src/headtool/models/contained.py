"""Is a model folder all there is to a model? What would send transformers elsewhere, or run foreign code, is refused.

headtool runs no code of a checkpoint: there is no flag for it, since every family it reads is part of transformers,
and a family of a checkpoint's own code has no layout. Weights are safetensors, never pickles.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from headtool.errors import HeadtoolError

OUTSIDE = re.compile(r"[/\\:\0]")  # what no file's name has, on any system
ADAPTERS = "adapter_config.json"
TOKENIZER = "tokenizer_config.json"
DISTRUST = "do not trust this checkpoint"


def leaves(name: str) -> bool:
    """Would this name of a file lead out of its folder?"""
    return bool(OUTSIDE.search(name)) or name in (".", "..")


def check(folder: Path, config: dict[str, Any]) -> None:
    """Raise HeadtoolError for a folder whose files say that code or weights are to come from somewhere else."""
    if (folder / ADAPTERS).is_file():
        hint = "merge them into their model and save that: headtool reads whole models"
        raise HeadtoolError(f"{folder}: it holds adapters of another model ({ADAPTERS})", hint=hint)
    if config.get("transformers_weights") is not None:
        raise HeadtoolError(f"{folder}: its config.json names a weight file (transformers_weights)", hint=DISTRUST)
    for key in ("attn_implementation", "_attn_implementation"):  # a hub id here is code to be fetched and run
        if "/" in str(config.get(key) or ""):
            raise HeadtoolError(f"{folder}: its config.json asks for code: {key} {config[key]}", hint=DISTRUST)
    try:
        versions = json.loads((folder / TOKENIZER).read_text(encoding="utf-8")).get("fast_tokenizer_files") or []
        outside = [name for name in versions if leaves(name)]
    except FileNotFoundError:
        return
    except (ValueError, RecursionError, AttributeError, TypeError) as error:
        raise HeadtoolError(f"{folder / TOKENIZER}: not a tokenizer's settings", hint="download it again") from error
    if outside:
        raise HeadtoolError(f"{folder / TOKENIZER}: it names a file outside its folder: {outside[0]}", hint=DISTRUST)
