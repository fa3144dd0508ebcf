"""Weight files looked at without reading the weights: which there are, and whether they are whole."""

from __future__ import annotations

import json
from collections.abc import Iterable
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
    named = sorted(set(weight_map(str(index), index.read_bytes()).values())) if index.is_file() else []
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
    raise no_weights(str(folder), (file.name for file in folder.iterdir()), models_in(folder))


def models_in(folder: Path) -> str:
    """A hint where a folder is no model but holds some, as the directory of a training run does; else nothing."""
    inside = [each.parent for each in sorted(folder.glob("*/config.json"))]
    found = [str(each) for each in inside if (each / SINGLE).is_file() or (each / INDEX).is_file()]
    return f"there are models in it: {', '.join(found[:3])}" if found else ""


def no_weights(where: str, names: Iterable[str], hint: str = "") -> HeadtoolError:
    """What is to be said of a model without safetensors, whose files have these names; the hint where there is a better."""
    if pickles := pickle_files(names):
        return HeadtoolError(
            f"{where}: the weights are pickles ({pickles[0]}), which can run any code when opened",
            hint="convert them: load them once where you trust them and save_pretrained(...) to a new folder",
        )
    return HeadtoolError(f"{where}: there are no weights", hint=hint or f"a model folder holds {SINGLE} or {INDEX}")


def pickle_files(names: Iterable[str]) -> list[str]:
    """Those of the names that are PyTorch pickles, in order."""
    return sorted(name for name in names if Path(name).suffix in (".bin", ".pt", ".pth", ".ckpt"))


def weight_map(index: str, text: str | bytes) -> dict[str, str]:
    """What an index says: tensor -> file. Raises HeadtoolError for what is no index, and for files outside its folder."""
    try:
        named: dict[str, str] = json.loads(text)["weight_map"]
        outside = [name for name in named.values() if leaves(name)]
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise HeadtoolError(f"{index}: not a safetensors index", hint="download it again") from error
    if outside:
        raise HeadtoolError(f"{index}: it names a file outside its folder: {min(outside)}", hint=DISTRUST)
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
        return parse(str(file), handle.read(length), size)


def parse(file: str, text: bytes, size: int) -> dict[str, Any]:
    """The tensors that a header's text names, in the order of their bytes; size is that of the whole file.

    Raises HeadtoolError for text that is no header, and where the tensors do not fill the file exactly.
    """
    try:
        entries = json.loads(text)
        tensors = {name: entry for name, entry in entries.items() if name != "__metadata__"}
        end = max((_end(entry) for entry in tensors.values()), default=0)
        tensors = dict(sorted(tensors.items(), key=lambda item: item[1]["data_offsets"]))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise HeadtoolError(f"{file}: its header cannot be read", hint="download it again") from error
    promised = 8 + len(text) + end
    if size != promised:
        cut = "truncated" if size < promised else "too long"
        raise HeadtoolError(
            f"{file}: {cut}: {size} bytes where its header promises {promised}", hint="download it again"
        )
    at = 0
    for name, entry in tensors.items():
        if entry["data_offsets"][0] != at:
            raise HeadtoolError(f"{file}: {name} overlaps another tensor, or leaves a gap", hint="download it again")
        at = entry["data_offsets"][1]
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
