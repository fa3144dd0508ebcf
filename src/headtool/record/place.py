"""The directory of a run, and whose it is: who may begin, take over, go on, and what goes away with one that came to nothing."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headtool.console import Console
from headtool.errors import FAILED, HeadtoolError, translate
from headtool.ranks import Share
from headtool.record import locks, manifest, seal
from headtool.record.files import read_sealed, write_sealed

# What a run leaves behind; --force removes these names and nothing else.
OWN = (
    *seal.SAID, "tables", "figures", "parts", "ckpt_init", "ckpt_final", "model", "summary.md", "logs",
)  # fmt: skip
MARK = ".headtool"  # a file that says which run a directory holds, should its manifest be lost
LEFT = (
    *OWN, "topk_global.json", "topk_per_layer.json", "eval_subset.json", "metrics.json", "run_config.json", "embedding.md"
)  # fmt: skip


class Place:
    """A directory that a run wants, of which the manifest that it begins with is known."""

    def __init__(self, path: Path, begun: Mapping[str, Any], console: Console, share: Share) -> None:
        self.path = path
        self.begun = begun
        self.console = console
        self.share = share
        self._lock: Any = None
        self._made: list[Path] = []  # what was not there before this run: its folder, then those above it

    @property
    def taken(self) -> bool:
        """Is it this process's now?"""
        return self._lock is not None

    def held(self) -> dict[str, Any] | None:
        """What is known of the run that the directory holds: its manifest, or where that is lost the little of its mark."""
        try:
            return manifest.read(self.path / "manifest.json")
        except NotADirectoryError:
            return None
        except FileNotFoundError:
            return read_sealed(self.path / MARK)
        except (ValueError, IsADirectoryError):
            pass
        self._warn_once(f"{self.path / 'manifest.json'} cannot be read and is written anew")
        return read_sealed(self.path / MARK)

    def finished(self) -> dict[str, Any] | None:
        """The manifest of this very run, where it is done and its files are as it left them.

        Raises HeadtoolError (exit 2) where the directory holds another run.
        """
        held = self.held()
        if held is None:
            return None
        if held.get("identity") != self.begun["identity"]:
            self._refuse(held)
            return None
        if held.get("status") != "done":
            return None
        changed = seal.broken(self.path, held)
        if changed is None:
            return held
        self._warn_once(f"{changed} is missing or was changed since the run: it is made again")
        return None

    def take(self, force: bool) -> dict[str, Any] | None:
        """Make the directory, or enter it, lock it and clear it for work. Returns the manifest where another process has
        finished the run meanwhile.

        Raises HeadtoolError where it cannot be used: it holds what is no run's or another's (exit 2), another process is at
        work in it (exit 1), or it cannot be written.
        """
        if not self.path.is_dir() and (self.path.exists() or self.path.is_symlink()):
            what = "a file" if self.path.exists() else "a link to what is not there"
            raise HeadtoolError(f"{self.path} is {what}", hint="choose another --out")
        self._made = [each for each in (self.path, *self.path.parents) if not each.exists()]
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = str(translate(error) or error.strerror)
            raise HeadtoolError(f"{self.path} cannot be made: {reason}", hint="choose another --out") from error
        self._refuse_foreign()
        self._lock = locks.take(self.path, self.share)
        if self._lock is None:
            hint = "wait for it, or choose another --out"
            raise HeadtoolError(f"another process is at work on {self.path}", hint=hint, code=FAILED)
        if force:
            for name in OWN:
                remove(self.path / name)
        else:
            try:
                done = self.finished()  # it may have gone on, and ended, while this process waited for the lock
            except HeadtoolError:
                self._release()
                raise
            if done is not None:
                return done
        for folder in ("tables", "figures", "parts"):
            (self.path / folder).mkdir(exist_ok=True)
        for stray in [*self.path.glob(".*.tmp"), *self.path.glob("*/.*.tmp"), *self.path.glob("parts/*/.*.tmp")]:
            if self.share.count == 1:  # left by a killed process; with several, it may be a living neighbour's
                stray.unlink(missing_ok=True)
        return None

    def mark(self) -> None:
        """Say whose it is, where a manifest may be lost."""
        write_sealed(self.path / MARK, {name: self.begun[name] for name in ("command", "identity", "status")})

    def leave(self, *, impossible: bool) -> None:
        """Let go of it. What was asked for cannot be: then there is nothing to keep, and nothing to go on from."""
        self._release()
        if impossible and self._made and self.share.count == 1:
            remove(self.path)
            for above in self._made[1:]:
                with contextlib.suppress(OSError):  # another run has moved in
                    above.rmdir()

    def _release(self) -> None:
        self._lock.release()
        self._lock = None

    def _refuse(self, held: Mapping[str, Any]) -> None:
        """Keep out of another run's directory, but for one that ended before it had made anything. Several processes may not
        take such a place: one of them may have begun while another looks.
        """
        made = (self.path / name for name in OWN if name not in seal.SAID)
        made_nothing = not any(each.is_file() for top in made for each in (top, *top.rglob("*")))
        if self.share.count == 1 and held.get("status") != "done" and made_nothing:
            return
        status = {"running": "not finished"}.get(str(held.get("status")), held.get("status"))
        differ = manifest.apart(held, self.begun)
        raise HeadtoolError(
            f"{self.path} holds another run ({held.get('command')}, {status})",
            hint=f"{differ}choose another --out, or --force to start over",
        )

    def _refuse_foreign(self) -> None:
        """Keep out of a folder that is somebody's own: --out may be a slip of the pen, or an empty variable."""
        names = {entry.name for entry in self.path.iterdir() if not entry.name.startswith((".lock-", "."))}
        filled = [
            name
            for name in ("tables", "figures", "ckpt_init", "ckpt_final", "model")
            if any((self.path / name).glob("[!.]*"))
        ]
        if (self.held() or {}).get("identity"):  # looked for last: another process may have begun just now
            return
        begun = "run.log" in names  # a run whose manifest was lost
        if names - set(LEFT) or (not begun and (filled or names & {"config.yaml", seal.CLOSING})):
            raise HeadtoolError(f"{self.path} is not empty and holds no run", hint="choose another --out")

    def _warn_once(self, text: str) -> None:
        """The directory is looked at twice, before and after it is locked."""
        if text not in self.console.warnings:
            self.console.warn(text)


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
