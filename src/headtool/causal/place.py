"""Where a causal model lies on disk: what can be told of a path without opening anything."""

from __future__ import annotations

import json
from pathlib import Path

from headtool.errors import FAILED, HeadtoolError

FACTS = "causal.json"  # the settings, beside the files of the decoder


def model_folder(path: Path) -> Path:
    """The model folder that a run directory or a model directory stands for. Raises HeadtoolError where it is neither."""
    hint = "give a run of headtool causal-train, or its folder 'model'"
    if not path.is_dir():
        raise HeadtoolError(f"{path}: there is no such directory", hint=hint)
    folder = path / "model" if (path / "model" / FACTS).is_file() else path
    if (folder / FACTS).is_file():
        return folder
    manifest = path / "manifest.json"
    if manifest.is_file():
        try:
            told = json.loads(manifest.read_text(encoding="utf-8"))
        except (ValueError, RecursionError):
            told = None
        if not isinstance(told, dict):
            raise HeadtoolError(f"{manifest}: no manifest of a run", hint=hint)
        if told.get("command") == "causal-train":
            raise HeadtoolError(
                f"{path}: this run is not done ({told.get('status')})", hint="run it again: it goes on", code=FAILED
            )
        raise HeadtoolError(f"{path} is a run of headtool {told.get('command', '?')}, not of causal-train", hint=hint)
    what = "a model without a causal part" if (path / "config.json").is_file() else "no causal model"
    raise HeadtoolError(f"{path} holds {what}", hint=hint)
