"""From MODEL on the command line to a folder whose files have been looked at, without importing torch."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from headtool.errors import HeadtoolError, translate
from headtool.models import checkpoint, contained

BUILT_IN = {"demo": "decoder", "demo-encoder": "encoder"}
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?(@[\w./-]+)?")
HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
MANIFEST = "manifest.json"  # what headtool download leaves beside a model's files; none of the model's own
HASHED_WHOLE = 1 << 30  # bytes of a weight file that are hashed whole; of a larger one, evenly spaced blocks
BLOCK = 1 << 20
BLOCKS = 256


@dataclass(frozen=True)
class Located:
    """A model that is on this machine: its folder, its names, its configuration as written."""

    folder: Path
    label: str
    model_id: str
    revision: str | None
    config: Mapping[str, Any]

    @property
    def named(self) -> str:
        """As an error names it: by its folder, or where that is inside the package by its name."""
        return self.label if self.label in BUILT_IN else str(self.folder)

    @property
    def model_type(self) -> str:
        return str(self.config["model_type"])

    def fingerprint(self) -> dict[str, str]:
        """What identifies the model: its id and revision for the reader, a hash of its files for the machine.

        The hash covers the configuration, the tokenizer and the weights. Weight files above 1 GiB enter with their
        size, header and 256 evenly spaced blocks of 1 MiB.
        """
        digest = hashlib.sha256()
        kinds = (".json", ".txt", ".model", ".jinja")
        small = sorted(file for file in self.folder.iterdir() if file.suffix in kinds and file.name != MANIFEST)
        for file in [*small, *checkpoint.weight_files(self.folder)]:
            size = file.stat().st_size
            digest.update(f"{file.name} {size}\n".encode())
            starts = range(0, size, BLOCK) if size <= HASHED_WHOLE else range(0, size, size // BLOCKS)
            with file.open("rb") as handle:
                for start in starts:
                    handle.seek(start)
                    digest.update(handle.read(BLOCK))
        named = {"model": self.model_id, "weights_sha256": digest.hexdigest()}
        return named | ({"revision": self.revision} if self.revision else {})


def locate(model: str) -> Located:
    """Find a model: built in, in a folder, or on the hub (downloaded into its cache where it is not there yet).

    Raises HeadtoolError where there is none, or where the folder holds no readable configuration.
    """
    if not model.strip():
        raise HeadtoolError("MODEL is empty", hint="give a folder, a hub id, or 'demo'")
    if model in BUILT_IN:
        folder = Path(str(resources.files("headtool") / "demo" / BUILT_IN[model]))
        return Located(folder, model, model, None, _config(folder))
    path = expanded(model)
    if path.is_dir():
        return Located(path, label_of(path), str(path), None, _config(path))
    refuse_dangling(path, model)
    looks_like_path = model.startswith((".", "~", os.sep)) or "\\" in model or model.partition("@")[0].count("/") > 1
    if looks_like_path or path.exists() or not HUB_ID.fullmatch(model):
        what = "is no folder" if path.exists() else "there is no such model folder"
        raise HeadtoolError(
            f"{model}: {what}", hint="give a folder with config.json and safetensors, a hub id, or 'demo'"
        )
    return _from_hub(model)


def label_of(folder: Path) -> str:
    """A short name of a model's folder: with the one above it, where its own says nothing."""
    here = Path(os.path.abspath(folder))
    if here.parent.name == "snapshots":  # of the hub's cache: a commit below models--OWNER--NAME
        return here.parents[1].name.rpartition("--")[2]
    generic = here.name == "model" or here.name.startswith(("ckpt_", "checkpoint-"))
    return f"{here.parent.name}/{here.name}" if generic else here.name


def expanded(path: str) -> Path:
    """A path with ~ filled in, where there is such a user. Raises HeadtoolError for what no system takes as a path."""
    if "\0" in path:
        raise HeadtoolError(f"{path!r}: no path holds a zero byte", hint="give a file, a folder or a hub id")
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def refuse_dangling(path: Path, given: str) -> None:
    """Raise HeadtoolError for a link to what is not there (any more): no hub is asked for its name."""
    if path.is_symlink() and not path.exists():
        raise HeadtoolError(f"{given}: a link to {path.readlink()}, which is not there", hint="mend or remove the link")


def _from_hub(model: str) -> Located:
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import disable_progress_bars

    repo, _, revision = model.partition("@")
    disable_progress_bars()
    near = difflib.get_close_matches(model, BUILT_IN, n=1)
    with refusals(f"'{model}' is no folder here, and ", f"did you mean '{near[0]}'? Else " if near else ""):
        folder = Path(snapshot_download(repo, revision=revision or None, allow_patterns=HUB_FILES))
    return Located(folder, repo.rpartition("/")[2], repo, folder.name, _config(folder))


@contextlib.contextmanager
def refusals(asked: str, meant: str = "") -> Iterator[None]:
    """What the hub refuses inside, in one line that begins with what was asked; meant begins the hint."""
    try:
        yield
    except HeadtoolError:
        raise
    except Exception as error:  # the hub raises many classes; the table of errors knows them
        known = translate(error)
        if known is None:
            raise
        raise HeadtoolError(f"{asked}{known}", hint=f"{meant}{known.hint}", code=known.code) from error


def _config(folder: Path) -> Mapping[str, Any]:
    file = folder / "config.json"
    if not file.is_file():
        hint = checkpoint.models_in(folder) or "a model folder holds config.json and *.safetensors"
        raise HeadtoolError(f"{folder}: there is no config.json", hint=hint)
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise HeadtoolError(f"{file}: not JSON ({error})", hint="download it again") from error
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise HeadtoolError(f"{file}: it names no model_type", hint="it is not the config.json of a transformers model")
    classes, labels = config.get("architectures") or [], config.get("id2label") or {}
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise HeadtoolError(f"{file}: 'architectures' is no list of names", hint="download it again")
    if not isinstance(labels, dict) or not all(re.fullmatch("[0-9]{1,9}", key) for key in labels):
        raise HeadtoolError(f"{file}: 'id2label' does not name classes by their numbers", hint="download it again")
    contained.check(folder, config)
    return config
