"""A checkpoint on the hub read by byte ranges: headers first, then the tensors that are asked for; nothing is stored."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from headtool.errors import FAILED, HeadtoolError
from headtool.models import checkpoint
from headtool.models.locate import HUB_ID, Located, locate, refusals
from headtool.weights import source

TRIES = 6  # of a broken transfer, each going on where the last one stopped
WAIT = 0.25  # seconds before the second try, twice as long before each one after it
TIMEOUT = 30.0  # seconds without a byte


class NoRangesError(Exception):
    """The server sends whole files only."""


def from_hub(given: str) -> source.Checkpoint | Located:
    """The checkpoint of a hub id, read by ranges; Located where it is in the cache already, where the hub cannot be
    asked, or where the server sends whole files only, in which case it has been downloaded.

    Raises HeadtoolError for what is no hub id, and what the hub refuses.
    """
    from huggingface_hub import constants

    if not HUB_ID.fullmatch(given) or given.partition("@")[0].count("/") > 1 or constants.is_offline_mode():
        return locate(given)  # from the cache, or an error that says what is wrong
    with refusals(f"'{given}' is no folder here, and "):
        try:
            return _by_ranges(given)
        except NoRangesError:
            return locate(given)


@dataclass
class Ranges:
    """Files of one commit of a repository, by byte ranges through the hub library's own session."""

    repo: str
    commit: str
    headers: dict[str, str]
    names: frozenset[str] = frozenset()  # of the files that there are
    sizes: dict[str, int] = field(default_factory=dict)

    def read(self, file: str, start: int, out: memoryview) -> None:
        """Fill out with a file's bytes from start on; a broken transfer goes on where it stopped."""
        done = 0
        for attempt in range(TRIES):
            try:
                for chunk in self._stream(file, start + done, start + len(out) - 1):
                    taken = chunk[: len(out) - done]
                    out[done : done + len(taken)] = taken
                    done += len(taken)
            except Exception as error:
                if not _passing(error) or attempt == TRIES - 1:
                    raise
                time.sleep(WAIT * 2**attempt)
            if done == len(out):
                return
        raise HeadtoolError(
            f"{self.repo}: {file} breaks off at byte {start + done}", hint="run the same command again", code=FAILED
        )

    def companion(self, name: str) -> Path | None:
        from huggingface_hub import hf_hub_download

        return Path(hf_hub_download(self.repo, name, revision=self.commit)) if name in self.names else None

    def _stream(self, file: str, first: int, last: int) -> Iterator[bytes]:
        from huggingface_hub import get_session, hf_hub_url
        from huggingface_hub.utils import hf_raise_for_status

        if last < first:
            return
        url = hf_hub_url(self.repo, file, revision=self.commit)
        asked = self.headers | {"Range": f"bytes={first}-{last}", "Accept-Encoding": "identity"}
        with get_session().stream("GET", url, headers=asked, timeout=TIMEOUT) as response:
            hf_raise_for_status(response)
            if response.status_code != 206:
                raise NoRangesError
            total = response.headers.get("Content-Range", "").rpartition("/")[2]
            if total.isdigit():
                self.sizes[file] = int(total)
            yield from response.iter_bytes(1 << 20)


def _passing(error: BaseException) -> bool:
    """Is it worth another try: a connection that broke, a server that is busy?"""
    if "TransportError" in {c.__name__ for c in type(error).__mro__}:
        return True
    status = getattr(getattr(error, "response", None), "status_code", 0)
    return status == 429 or status >= 500


def _by_ranges(given: str) -> source.Checkpoint | Located:
    from huggingface_hub import HfApi
    from huggingface_hub.utils import build_hf_headers, disable_progress_bars

    disable_progress_bars()
    repo, _, revision = given.partition("@")
    info = HfApi().model_info(repo, revision=revision or None)
    names, commit = frozenset(sibling.rfilename for sibling in info.siblings or ()), str(info.sha)
    if (cached := _cached(repo, commit)) is not None:
        return cached
    ranges = Ranges(repo, commit, build_hf_headers(), names)
    wanted: dict[str, str] = {}
    if checkpoint.SINGLE not in names:
        index = ranges.companion(checkpoint.INDEX)
        if index is None:
            raise checkpoint.no_weights(given, names)
        wanted = checkpoint.weight_map(checkpoint.INDEX, index.read_text(encoding="utf-8"))
    files = sorted(set(wanted.values())) or [checkpoint.SINGLE]
    if missing := sorted(set(files) - names):
        raise HeadtoolError(f"{given}: shards are missing: {', '.join(missing[:3])}", hint="tell its owner")
    by_file = {file: _header(ranges, file) for file in files}
    tensors = [tensor for each in by_file.values() for tensor in each]
    warnings: list[str] = []
    if wanted:
        tensors, warnings = source.follow(checkpoint.INDEX, wanted, by_file)
    notes = [f"read from the hub by byte ranges, nothing is stored; headtool download {repo} keeps a copy"]
    file = ranges.companion("config.json")
    config, more = source.read_config(file) if file is not None else ({}, [source.NO_CONFIG])
    return source.Checkpoint(
        repo.rpartition("/")[2], repo, commit, repo, config, tuple(tensors), ranges, f"{repo}@{commit}", None,
        (*notes, *more), tuple(warnings),
    )  # fmt: skip


def _header(ranges: Ranges, file: str) -> list[source.Tensor]:
    """A file's tensors from its first bytes."""
    first = bytearray(8)
    ranges.read(file, 0, memoryview(first))
    size, length = ranges.sizes.get(file, 0), int.from_bytes(first, "little")
    if length > min(checkpoint.HEADER_LIMIT, size - 8):
        raise HeadtoolError(f"{file}: truncated, or no safetensors file ({size} bytes)", hint="tell its owner")
    text = bytearray(length)
    ranges.read(file, 8, memoryview(text))
    return source.stored(file, checkpoint.parse(file, bytes(text), size), 8 + length)


def _cached(repo: str, commit: str) -> Located | None:
    """The commit where the hub's cache holds all of its weights."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(repo, revision=commit, local_files_only=True))
        checkpoint.weight_files(folder)
    except Exception:  # whatever it is, it is not wholly here
        return None
    return locate(f"{repo}@{commit}") if (folder / "config.json").is_file() else None
