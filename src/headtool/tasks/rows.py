"""Rows of a data file or a hub data set, one at a time, each with the place it came from."""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headtool.errors import FAILED, HeadtoolError, translate
from headtool.models.locate import expanded, refuse_dangling
from headtool.record.files import sha256
from headtool.tasks.example import RowError

SUFFIXES = (".json", ".jsonl", ".ndjson", ".parquet", ".csv", ".tsv", ".txt")
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?(:[\w.-]+){0,2}")
LOOKS = 'a row is like {"text": ...} or {"premise": ..., "hypothesis": ..., "label": ...}; docs/formats.md has all'
CHUNK = 4096  # rows of a Parquet file in memory at a time

Row = tuple[str, Mapping[str, Any] | RowError]


@dataclass(frozen=True)
class Source:
    """A file, or a data set of the hub (or a folder that the datasets library reads) as ID[:CONFIG][:SPLIT]."""

    name: str
    file: Path | None

    def fingerprint(self) -> str:
        """The hash of a file's content; of a data set the library's own fingerprint."""
        if self.file is not None:
            return f"{self.file.suffix.lower()} {sha256(self.file)}"  # the same bytes are other rows in another format
        return hashlib.sha256(self._data_set()._fingerprint.encode()).hexdigest()

    def rows(self) -> Iterator[Row]:
        """Each row, or what is wrong with it, with its place (file:line, or number)."""
        if self.file is None:
            return ((f"{self.name} row {i}", row) for i, row in enumerate(self._data_set()))
        suffix = self.file.suffix.lower()
        read = {".json": _json, ".parquet": _parquet, ".csv": _csv, ".tsv": _csv, ".txt": _txt}.get(suffix, _lines)
        return read(self.file)

    def _data_set(self) -> Any:
        import datasets

        datasets.disable_progress_bars()
        repository, *more = self.name.split(":")
        unreachable = _unreachable(repository)
        config, split = (*more, None, None)[:2] if len(more) == 2 else (None, *more, None)[:2]
        try:
            files = datasets.load_dataset_builder(repository, config).config.data_files or {}
            _check_inside(repository, [str(file) for files_of in files.values() for file in files_of])
            found = datasets.load_dataset(repository, config, split=split)
        except HeadtoolError:
            raise
        except Exception as error:  # the library raises many classes
            known = translate(error)
            if unreachable is not None:
                what = f"{self.name}: no file here, and {unreachable}"
                raise HeadtoolError(what, hint=unreachable.hint, code=unreachable.code) from error
            if known is not None:
                raise HeadtoolError(f"{self.name}: {known}", hint=known.hint, code=known.code) from error
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            hint = f"give a data file, or a folder of data files ({reason[:300]})"
            raise HeadtoolError(f"{self.name}: not a data set that can be read", hint=hint) from error
        if split is None:  # the split that a reader would evaluate on
            split = next((s for s in ("validation", "test", "train") if s in found), next(iter(found)))
            found = found[split]
        return found


def _unreachable(repository: str) -> HeadtoolError | None:
    """Why the hub cannot be asked for a data set; then the library looks into its cache alone and does not try for long."""
    import datasets
    from huggingface_hub import HfApi, constants

    if Path(repository).is_dir() or constants.is_offline_mode():
        return None
    try:
        HfApi().dataset_info(repository, timeout=10)
    except Exception as error:  # what the hub refuses, the library says as well
        known = translate(error)
        if known is not None and known.code == FAILED:
            datasets.config.HF_HUB_OFFLINE = True
            return known
    return None


def _check_inside(repository: str, files: list[str]) -> None:
    """Raise HeadtoolError for a data set whose own settings name files outside its folder, or outside the hub."""
    above = Path(repository).resolve() if Path(repository).is_dir() else None
    for file in files:
        inside = Path(file).resolve().is_relative_to(above) if above else file.startswith("hf://datasets/")
        if not inside:
            hint = "do not trust this data set"
            raise HeadtoolError(f"{repository}: it names a file outside its folder: {file}", hint=hint)


def find(data: str) -> Source:
    """The source that --data names. Raises HeadtoolError where there is none, or it is of no kind we read."""
    if not data.strip():
        raise HeadtoolError("--data is empty", hint="give a data file, or a hub data set as ID[:CONFIG][:SPLIT]")
    path = expanded(data)
    if path.is_file():
        if path.suffix.lower() not in SUFFIXES:
            raise HeadtoolError(f"{data}: files of this kind are not read", hint=f"the kinds are {', '.join(SUFFIXES)}")
        if path.stat().st_size == 0:
            raise HeadtoolError(f"{data}: the file is empty", hint=LOOKS)
        return Source(str(path), path)
    refuse_dangling(path, data)
    looks_like_path = path.suffix.lower() in SUFFIXES or data.startswith((".", "~", "/")) or data.count("/") > 1
    if path.is_dir():
        return Source(str(path), None)
    if looks_like_path or not HUB_ID.fullmatch(data):
        raise HeadtoolError(
            f"{data}: there is no such file", hint="give a data file, or a hub data set as ID[:CONFIG][:SPLIT]"
        )
    return Source(data, None)


def _lines(file: Path) -> Iterator[Row]:
    with file.open("rb") as handle:
        for number, line in enumerate(handle, 1):
            if line.strip():
                yield f"{file}:{number}", _parse(line)


def _parse(line: bytes) -> Mapping[str, Any] | RowError:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return RowError(f"not JSON ({error})")
    return row if isinstance(row, dict) else RowError("not an object")


def _json(file: Path) -> Iterator[Row]:
    """A .json file holds a list of objects, or one object a line."""
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        first = next(_lines(file), ("", RowError("")))
        if isinstance(first[1], RowError):  # no objects line by line either
            raise HeadtoolError(f"{file}: not JSON ({error})", hint=LOOKS) from error
        yield from _lines(file)
        return
    if isinstance(content, dict):  # {"data": [...]}, {"train": [...]}, or a single row
        lists = [
            value for value in content.values() if isinstance(value, list) and value and isinstance(value[0], dict)
        ]
        content = lists[0] if len(lists) == 1 else [content]
    if not isinstance(content, list):
        raise HeadtoolError(f"{file}: neither a list of objects nor one object a line", hint=LOOKS)
    for number, row in enumerate(content):
        yield f"{file} row {number}", row if isinstance(row, dict) else RowError("not an object")


def _parquet(file: Path) -> Iterator[Row]:
    import pyarrow  # polars panics, on stderr too, over some damaged files
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(file) as opened:
            for batch in opened.iter_batches(CHUNK):
                for row in batch.to_pylist():
                    yield f"{file} row {number}", row
                    number += 1
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise HeadtoolError(f"{file}: not a Parquet file that can be read", hint=reason) from error


def _csv(file: Path) -> Iterator[Row]:
    with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as handle:
        reader = csv.DictReader(handle, delimiter="\t" if file.suffix == ".tsv" else ",")
        rows = iter(reader)
        for number in itertools.count(2):
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                yield f"{file}:{number}", RowError(str(error))
                continue
            yield (
                f"{file}:{reader.line_num}",
                RowError("too many or too few columns") if None in row or None in row.values() else row,
            )


def _txt(file: Path) -> Iterator[Row]:
    with file.open(encoding="utf-8-sig", errors="surrogateescape") as handle:
        for number, line in enumerate(handle, 1):
            yield f"{file}:{number}", {"text": line.rstrip("\n")}
