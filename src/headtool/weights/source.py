"""A checkpoint opened for reading: which tensors it has, of what type and shape, and their bytes when they are asked for."""

from __future__ import annotations

import hashlib
import json
import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from headtool.errors import FAILED, HeadtoolError
from headtool.models import checkpoint
from headtool.models.locate import BUILT_IN, expanded, label_of, locate
from headtool.weights.formats import FORMATS

NO_CONFIG = "there is no config.json: what parameters are is told by their names, and heads are not known"
HASHED_WHOLE = 64 << 20  # bytes of a file that are hashed whole; a larger one is known by size, time and header


@dataclass(frozen=True)
class Tensor:
    """A stored tensor: where its bytes are in which file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: str
    start: int
    size: int  # bytes

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


class Reader(Protocol):
    """Where bytes come from."""

    def read(self, file: str, start: int, out: memoryview) -> None:
        """Fill out with a file's bytes from start on. Raises HeadtoolError naming the file where they are not there."""

    def companion(self, name: str) -> Path | None:
        """A file beside the weights, fetched if need be; None where there is none."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's names, its configuration (empty where there is none), its tensors, and the way to their bytes."""

    label: str
    model_id: str
    revision: str | None
    path: str
    config: Mapping[str, Any]
    tensors: tuple[Tensor, ...]
    reader: Reader
    fingerprint: str
    folder: Path | None = None  # None where it is read from the hub by ranges
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        return sum(tensor.size for tensor in self.tensors)

    def read(self, tensor: Tensor, start: int, out: memoryview) -> None:
        """Fill out with a tensor's bytes from start on."""
        self.reader.read(tensor.file, tensor.start + start, out)

    def companion(self, name: str) -> str | None:
        """The text of a file beside the weights, such as tokenizer.json; None where there is none."""
        file = self.reader.companion(name)
        return file.read_text(encoding="utf-8") if file is not None and file.is_file() else None


@dataclass
class Files:
    """Files of a folder, each opened once a thread. Plain reads into one's own memory cost what mapping costs, leave no pages of
    the file in the process, and end in an error rather than a signal where a file is cut while it is read.
    """

    folder: Path
    _open: threading.local = field(default_factory=threading.local)
    _all: list[BinaryIO] = field(default_factory=list)

    def read(self, file: str, start: int, out: memoryview) -> None:
        handle = self._handle(file)
        handle.seek(start)
        done = 0
        while done < len(out):
            got = handle.readinto(out[done:])  # type: ignore[attr-defined]
            if not got:
                where = self.folder / file
                raise HeadtoolError(f"{where}: it ends at byte {start + done}", hint="download it again", code=FAILED)
            done += got

    def companion(self, name: str) -> Path | None:
        return self.folder / name

    def _handle(self, file: str) -> BinaryIO:
        known: dict[str, BinaryIO] = self._open.__dict__
        if file not in known:
            known[file] = (self.folder / file).open("rb", buffering=0)
            self._all.append(known[file])
        return known[file]

    def __del__(self) -> None:
        for handle in self._all:
            handle.close()


def open_checkpoint(given: str, *, allow_pickle: bool = False) -> Checkpoint:
    """The checkpoint that a path, a built-in name or a hub id names.

    Of a hub id that is not in the cache only headers are read here; tensors come by byte ranges where the server allows
    that, else the whole model is fetched. Raises HeadtoolError for what is missing, cut, inconsistent or a pickle.
    """
    path = expanded(given)
    if given in BUILT_IN:
        built_in = _local(locate(given).folder, given, given, None)
        return replace(built_in, path=given)  # where the package lies says nothing
    if path.is_file():
        if path.name.endswith(".safetensors.index.json"):
            return _local(path.parent, path.parent.name, str(path), None)
        if path.suffix == ".safetensors":
            return _local(path.parent, path.stem, str(path), None, only=path.name)
        if checkpoint.pickle_files([path.name]):
            return _pickles(path.parent, [path.name], str(path), allow_pickle)
        raise HeadtoolError(
            f"{given}: neither a model folder nor a weight file", hint="give a folder, a .safetensors file, or a hub id"
        )
    if path.is_dir():
        names = [p.name for p in path.iterdir()]
        pickles = [] if {checkpoint.INDEX, checkpoint.SINGLE} & set(names) else checkpoint.pickle_files(names)
        if pickles:
            return _pickles(path, pickles, str(path), allow_pickle)
        return _local(path, label_of(path), str(path), None)
    from headtool.weights.remote import from_hub

    found = from_hub(given)
    if isinstance(found, Checkpoint):
        return found
    return _local(found.folder, found.label, found.model_id, found.revision)


def stored(file: str, entries: Mapping[str, Any], data: int, path: Path | None = None) -> list[Tensor]:
    """The tensors of a parsed header; data is where their bytes begin. Raises HeadtoolError where bytes and shape differ."""
    found = []
    for name, entry in entries.items():
        begin, end = entry["data_offsets"]
        tensor = Tensor(name, entry["dtype"], tuple(entry["shape"]), file, data + begin, end - begin)
        known = FORMATS.get(tensor.dtype)
        if known is not None and tensor.elements * known.bits.itemsize != tensor.size:
            raise HeadtoolError(
                f"{path or file}: {name} is {tensor.dtype} {list(tensor.shape)}, which {tensor.size} bytes do not hold",
                hint="download it again",
            )
        found.append(tensor)
    return found


def follow(
    index: str, wanted: Mapping[str, str], by_file: Mapping[str, list[Tensor]]
) -> tuple[list[Tensor], list[str]]:
    """The tensors that an index names, and a warning for what the shards hold besides.

    Raises HeadtoolError where a shard lacks a tensor that the index puts there.
    """
    held = {(tensor.name, file) for file, tensors in by_file.items() for tensor in tensors}
    lost = sorted(name for name, file in wanted.items() if (name, file) not in held)
    if lost:
        raise HeadtoolError(
            f"{index}: it puts {lost[0]} in {wanted[lost[0]]}, which does not hold it ({len(lost)} such tensors)",
            hint="index and shards are of different checkpoints: download them again",
        )
    kept = [tensor for file, tensors in by_file.items() for tensor in tensors if wanted.get(tensor.name) == file]
    stray = sorted(name for name, file in held if wanted.get(name) != file)
    told = (
        [f"{index} does not name {stray[0]}, which a shard holds: left out ({len(stray)} such tensors)"]
        if stray
        else []
    )
    return kept, told


def _local(folder: Path, label: str, model_id: str, revision: str | None, only: str | None = None) -> Checkpoint:
    index = folder / checkpoint.INDEX
    files = [folder / only] if only else checkpoint.weight_files(folder)
    by_file = {}
    for file in files:
        entries = checkpoint.header(file)
        with file.open("rb") as handle:
            data = 8 + int.from_bytes(handle.read(8), "little")
        by_file[file.name] = stored(file.name, entries, data, file)
    warnings: list[str] = []
    tensors = [tensor for each in by_file.values() for tensor in each]
    if index.is_file() and [file.name for file in files] != [only or checkpoint.SINGLE]:
        wanted = checkpoint.weight_map(str(index), index.read_text(encoding="utf-8"))
        tensors, warnings = follow(str(index), wanted, by_file)
        others = sorted({f.name for f in folder.glob("*.safetensors")} - set(by_file))
        warnings += [f"{folder / name} is not in the index and is left out" for name in others]
    config, notes = read_config(folder / "config.json")
    return Checkpoint(
        label, model_id, revision, str(folder / only) if only else str(folder), config, tuple(tensors), Files(folder),
        _fingerprint(files, config), folder, tuple(notes), tuple(warnings),
    )  # fmt: skip


def read_config(file: Path) -> tuple[dict[str, Any], list[str]]:
    """A configuration as written, empty where there is none; what is worth a note. Raises HeadtoolError for what is no JSON."""
    if not file.is_file():
        return {}, [NO_CONFIG]
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError("not an object")
    except (ValueError, RecursionError) as error:
        raise HeadtoolError(f"{file}: not JSON ({error})", hint="download it again") from error
    return config, []


def _pickles(folder: Path, names: list[str], model_id: str, allowed: bool) -> Checkpoint:
    if not allowed:
        raise HeadtoolError(
            f"{folder / names[0]}: a pickle, which can run any code when opened",
            hint="convert it to safetensors where you trust it, or --allow-pickle reads it with weights_only=True",
        )
    from headtool.weights.pickles import Pickled

    reader = Pickled(folder, names)
    config, notes = read_config(folder / "config.json")
    files = [folder / name for name in names]
    return Checkpoint(
        folder.resolve().name, model_id, None, str(folder), config, tuple(reader.tensors), reader,
        _fingerprint(files, config), folder, tuple(notes),
    )  # fmt: skip


def _fingerprint(files: list[Path], config: Mapping[str, Any]) -> str:
    """A hash of the configuration, the vocabulary and the weights: content of files up to 64 MiB, of larger ones size, time and
    first MiB.

    Hashing what is read once would cost as much as the statistics themselves.
    """
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    beside = (files[0].parent / name for name in ("tokenizer.json", "vocab.txt")) if files else ()
    for file in (*files, *(file for file in beside if file.is_file())):
        facts = file.stat()
        small = facts.st_size <= HASHED_WHOLE
        digest.update(f"{file.name} {facts.st_size} {0 if small else facts.st_mtime_ns}\n".encode())
        with file.open("rb") as handle:
            for _ in range(HASHED_WHOLE >> 20 if small else 1):
                digest.update(handle.read(1 << 20))
    return digest.hexdigest()
