"""A model's files from the hub: which there are, how much is missing, and the missing ones fetched."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from headtool.console import Console
from headtool.errors import FAILED, HeadtoolError
from headtool.models.locate import HUB_FILES, MANIFEST, refusals
from headtool.record.clock import human_bytes
from headtool.record.files import write_text

SPARE = 16 << 20  # bytes of a disk that a download leaves free


@dataclass(frozen=True)
class Wish:
    """What is asked for: a repository, a revision (None: main), globs, and the folder that the models go to (None: the cache)."""

    repo: str
    revision: str | None
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    token: str | None
    out: Path | None

    @property
    def folder(self) -> Path | None:
        """Where the files go; None for the hub's cache."""
        return self.out.joinpath(*self.repo.split("/")) if self.out is not None else None

    @property
    def asked(self) -> str:
        """How an error about it begins."""
        return f"{self.repo}@{self.revision}: " if self.revision else f"{self.repo}: "

    @property
    def arguments(self) -> dict[str, Any]:
        """As the hub library takes them."""
        return {
            "repo_id": self.repo, "revision": self.revision, "allow_patterns": list(self.include) or HUB_FILES,
            "ignore_patterns": list(self.exclude) or None, "token": self.token, "local_dir": self.folder,
        }  # fmt: skip


@dataclass(frozen=True)
class Fetched:
    """A model that is here now: its folder, its commit, its files with their bytes."""

    folder: Path
    commit: str
    files: dict[str, int]


def listed(wish: Wish) -> dict[str, tuple[int, bool]]:
    """The files that are asked for, by name: bytes, and whether they are missing here. Raises what the hub refuses."""
    there = wish.folder is None or wish.folder.exists()
    return {info.filename: (info.file_size or 0, info.will_download or not there) for info in _plan(wish)}


def fetch(wish: Wish, console: Console) -> Fetched:
    """Fetch what is missing, with a bar, and record the commit: in the folder's manifest.json, where --out names one.

    Raises HeadtoolError for what the hub refuses, for globs that fit nothing, and where the disk has no room.
    """
    from huggingface_hub import constants, snapshot_download

    logging.getLogger("huggingface_hub").setLevel(
        logging.ERROR
    )  # it retries by itself; what it gives up on is told here
    plan, there = None, wish.folder is None or wish.folder.exists()
    begun = time.time()
    if not constants.is_offline_mode():
        try:
            plan = _plan(wish)
        except HeadtoolError as error:
            if error.code != FAILED or wish.folder is not None:
                raise
            console.note(f"{error}; looking in the cache")
    missing = sum(info.file_size or 0 for info in plan or () if info.will_download or not there)
    _room(wish, missing)
    with refusals(wish.asked), console.progress(f"fetching {wish.repo}", missing, unit="bytes") as advance:
        folder = Path(snapshot_download(**wish.arguments, tqdm_class=_bars(advance)))
    commit = plan[0].commit_hash if plan else _recorded(folder)
    names = (
        [info.filename for info in plan]
        if plan
        else [str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()]
    )
    hidden = (".cache", MANIFEST)
    files = {n: (folder / n).stat().st_size for n in sorted(names) if not n.startswith(hidden)}
    if wish.folder is not None:
        for rest in folder.glob(".cache/huggingface/download/*.incomplete"):
            with contextlib.suppress(FileNotFoundError):  # another process has ended meanwhile
                if rest.stat().st_mtime < begun:  # of one that was killed: the library begins its file anew
                    rest.unlink()
        told = {"id": wish.repo, "commit": commit, "files": files}
        write_text(folder / MANIFEST, json.dumps(told, indent=1) + "\n")
    if not any(name.endswith(".safetensors") for name in files) and not wish.include:
        console.warn(f"{wish.repo} has no safetensors: no weights were fetched; --include names files of other kinds")
    return Fetched(folder, commit, files)


def _plan(wish: Wish) -> list[Any]:
    """The hub's word on each file that is asked for."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    begun = wish.folder is None or wish.folder.exists()  # the library would make the folder to look into it
    with refusals(wish.asked):
        plan: list[Any] = snapshot_download(
            **wish.arguments if begun else replace(wish, out=None).arguments, dry_run=True
        )
    if not plan:
        raise HeadtoolError(f"{wish.repo}: no file fits", hint="--include and --exclude take globs such as '*.json'")
    return plan


def _room(wish: Wish, missing: int) -> None:
    from huggingface_hub import constants

    wanted = wish.folder or Path(constants.HF_HUB_CACHE)
    place = next(p for p in (wanted, *wanted.absolute().parents) if p.exists())
    free = shutil.disk_usage(place).free
    if missing and missing + SPARE > free:
        raise HeadtoolError(
            f"no space: {human_bytes(missing)} are missing, and {place} has {human_bytes(free)} free",
            hint="free some, or choose another --out (or HF_HOME)",
            code=FAILED,
        )


def _recorded(folder: Path) -> str:
    """The commit of files that are here, where the hub cannot be asked: of the cache the folder's name."""
    try:
        return str(json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["commit"])
    except (OSError, ValueError, KeyError, TypeError):
        return folder.name


def _bars(advance: Callable[[int], None]) -> type:
    """A class that the hub library takes for its bars, and that tells advance of the bytes that are new.

    It keeps several bars of bytes (of what arrived, of what was written); the one that is ahead counts.
    """
    ahead = [0]

    class Bar:
        def __init__(self, *args: Any, **given: Any) -> None:
            self.total = given.get("total")
            self.counts = given.get("unit") == "B"
            self.n = 0

        def update(self, n: float | None = 1) -> None:
            self.n += int(n or 0)
            if self.counts and self.n > ahead[0]:
                advance(self.n - ahead[0])
                ahead[0] = self.n

        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *args: Any) -> None:
            """Nothing is held."""

        def __getattr__(self, name: str) -> Any:
            return lambda *args, **given: None  # set_description, refresh, close ...: there is nothing to draw

    return Bar
