"""Who is at work on a run directory: each process holds a lock file for as long as it lives, however it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from headtool.errors import FAILED, HeadtoolError
from headtool.ranks import Share

POLL = 0.2  # seconds between two looks for what another process makes
EVERY = 2.0  # seconds between two looks for the process that makes it
GONE = 60.0  # seconds: one that is not there for so long comes no more; some start late, torchrun may start one again
LOOK = 1.0  # seconds in which a lock is surely free again that was only looked at


def take(run: Path, share: Share) -> Any | None:
    """The lock of this process, held; None where another process is at work as the same share, or by another sharing."""
    from filelock import FileLock, Timeout

    lock = FileLock(_path(run, share.index, share.count))
    try:
        lock.acquire(timeout=LOOK, poll_interval=0.02)
    except Timeout:
        return None
    elsewhere = [path for path in run.glob(".lock-*-of-*") if not path.name.endswith(f"-of-{share.count}")]
    if any(_held(path) for path in elsewhere):
        lock.release()
        return None
    return lock


def others(run: Path, share: Share) -> list[int]:
    """The other processes of the run that are at work, by their index."""
    return [i for i in range(share.count) if i != share.index and _held(_path(run, i, share.count), patience=0)]


def wait(run: Path, share: Share, lacking: Callable[[], Collection[int]]) -> None:
    """Stay until nothing is lacking. lacking: the processes that something is still expected of, by their index.

    Raises HeadtoolError (exit 1) where one of them is gone: it was killed, and nobody else does its part.
    """
    looked = time.monotonic()
    seen = dict.fromkeys(range(share.count), looked)
    while expected := lacking():
        time.sleep(POLL)
        if time.monotonic() - looked < EVERY:
            continue
        looked = time.monotonic()
        for index in expected:
            if index == share.index or _held(_path(run, index, share.count), patience=0):
                seen[index] = looked
            elif looked - seen[index] > GONE:
                raise HeadtoolError(
                    f"process {index + 1} of {share.count} has ended before its part was done",
                    hint="the same command does what is missing",
                    code=FAILED,
                )


def _held(path: Path, patience: float = LOOK) -> bool:
    """Does a process hold this lock? One that was never taken has no file."""
    from filelock import FileLock, Timeout

    if not path.exists():
        return False
    try:
        with FileLock(path, timeout=patience):
            return False
    except Timeout:
        return True


def _path(run: Path, index: int, count: int) -> Path:
    return run / f".lock-{index + 1}-of-{count}"
