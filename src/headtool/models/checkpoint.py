"""Weight files looked at without reading the weights: which there are, and whether they are whole."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from headtool.errors import HeadtoolError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
HEADER_LIMIT = 100 << 20  # the format's own limit


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder: those that its index names, or the single one.

    Raises HeadtoolError where there are none, where only pickles are, where the index names a file that is
    missing or that lies outside the folder.
    """
    index = folder / INDEX
    if index.is_file():
        named = sorted(set(weight_map(str(index), index.read_text(encoding="utf-8")).values()))
        missing = [name for name in named if not (folder / name).is_file()]
        if missing:
            raise HeadtoolError(
                f"{folder}: shards are missing: {', '.join(missing[:3])} ({len(missing)} of {len(named)})",
                hint="download the rest",
            )
        return [folder / name for name in named]
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    raise no_weights(str(folder), (file.name for file in folder.iterdir()))


def no_weights(where: str, names: Iterable[str]) -> HeadtoolError:
    """What is to be said of a model without safetensors, whose files have these names."""
    if pickles := pickle_files(names):
        return HeadtoolError(
            f"{where}: the weights are pickles ({pickles[0]}), which can run any code when opened",
            hint="convert them: load them once where you trust them and save_pretrained(...) to a new folder",
        )
    return HeadtoolError(f"{where}: there are no weights", hint=f"a model folder holds {SINGLE} or {INDEX}")


def pickle_files(names: Iterable[str]) -> list[str]:
    """Those of the names that are PyTorch pickles, in order."""
    return sorted(name for name in names if Path(name).suffix in (".bin", ".pt", ".pth", ".ckpt"))


def weight_map(index: str, text: str) -> dict[str, str]:
    """What an index says: tensor -> file. Raises HeadtoolError for what is no index, and for files outside its folder."""
    try:
        named = {str(tensor): str(file) for tensor, file in json.loads(text)["weight_map"].items()}
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise HeadtoolError(f"{index}: not a safetensors index", hint="download it again") from error
    for name in sorted(set(named.values())):
        if Path(name).name != name:
            raise HeadtoolError(
                f"{index}: it names a file outside its folder: {name}", hint="do not trust this checkpoint"
            )
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
        for entry in tensors.values():
            entry["dtype"] + ""
            if (
                any(number < 0 for number in (*entry["shape"], *entry["data_offsets"]))
                or len(entry["data_offsets"]) != 2
            ):
                raise ValueError
        tensors = dict(sorted(tensors.items(), key=lambda item: item[1]["data_offsets"]))
        end = max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise HeadtoolError(f"{file}: its header cannot be read", hint="download it again") from error
    promised = 8 + len(text) + end
    if size != promised:
        cut = "truncated" if size < promised else "too long"
        raise HeadtoolError(
            f"{file}: {cut}: {size} bytes where its header promises {promised}", hint="download it again"
        )
    at = 0
    for name, entry in tensors.items():
        if entry["data_offsets"][0] != at or entry["data_offsets"][1] < at:
            raise HeadtoolError(f"{file}: {name} overlaps another tensor, or leaves a gap", hint="download it again")
        at = entry["data_offsets"][1]
    return tensors
