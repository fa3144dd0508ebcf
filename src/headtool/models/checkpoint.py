"""Weight files looked at without reading the weights: which there are, and whether they are whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from headtool.errors import HeadtoolError
from headtool.models.contained import DISTRUST, leaves

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
HEADER_LIMIT = 100 << 20  # the format's own limit


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder: those that its index names, or the single one.

    Raises HeadtoolError where there are none, where only pickles are, where the index names a file that is
    missing or that lies outside the folder.
    """
    index, single = folder / INDEX, folder / SINGLE
    named = _named(index) if index.is_file() else []
    if single.is_file():  # where there are both, transformers opens this one
        return [single]
    missing = [name for name in named if not (folder / name).is_file()]
    if missing:
        raise HeadtoolError(
            f"{folder}: shards are missing: {', '.join(missing[:3])} ({len(missing)} of {len(named)})",
            hint="download the rest",
        )
    if named:
        return [folder / name for name in named]
    pickles = sorted(p.name for p in folder.iterdir() if p.suffix in (".bin", ".pt", ".pth", ".ckpt"))
    if pickles:
        raise HeadtoolError(
            f"{folder}: the weights are pickles ({pickles[0]}), which can run any code when opened",
            hint="convert them: load them once where you trust them and save_pretrained(...) to a new folder",
        )
    raise HeadtoolError(f"{folder}: there are no weights", hint=f"a model folder holds {SINGLE} or {INDEX}")


def _named(index: Path) -> list[str]:
    """The files that an index names, in order. Raises HeadtoolError for a name that is no plain file name."""
    try:
        named = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        outside = [name for name in named if leaves(name)]
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise HeadtoolError(f"{index}: not a safetensors index", hint="download it again") from error
    if outside:
        raise HeadtoolError(f"{index}: it names a file outside its folder: {outside[0]}", hint=DISTRUST)
    return named


def header(file: Path) -> dict[str, Any]:
    """The header of a safetensors file: name -> {dtype, shape, data_offsets}.

    The file's size is compared with what the header promises, so that a cut file is named before it is read.
    Raises HeadtoolError for anything that is not a whole safetensors file.
    """
    size = file.stat().st_size
    with file.open("rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        if size < 8 or length > min(HEADER_LIMIT, size - 8):
            raise HeadtoolError(f"{file}: truncated, or no safetensors file ({size} bytes)", hint="download it again")
        try:
            entries = json.loads(handle.read(length))
            tensors = {name: entry for name, entry in entries.items() if name != "__metadata__"}
            end = max((_end(entry) for entry in tensors.values()), default=0)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
            raise HeadtoolError(f"{file}: its header cannot be read", hint="download it again") from error
    if size != 8 + length + end:
        cut = "truncated" if size < 8 + length + end else "too long"
        raise HeadtoolError(
            f"{file}: {cut}: {size} bytes where its header promises {8 + length + end}", hint="download it again"
        )
    return tensors


def _end(entry: Any) -> int:
    """Where a tensor's bytes end. Raises one of the errors of a header for an entry that is none."""
    start, end = entry["data_offsets"]
    numbers = [start, end, *entry["shape"]]
    if (
        any(type(number) is not int or number < 0 for number in numbers)
        or end < start
        or type(entry["dtype"]) is not str
    ):
        raise ValueError(entry)
    return end
