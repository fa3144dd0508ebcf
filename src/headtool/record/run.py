"""A run directory: its name, its manifest, its parts, and who may write to it.

A run is named by what determines its result, so the same call finds the same directory: done means print and
leave, half done means go on from the parts. A part file's presence is the only resume state.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from headtool import __version__
from headtool.console import Console
from headtool.errors import FAILED, IMPOSSIBLE, HeadtoolError, translate
from headtool.ranks import Share
from headtool.record import locks, manifest, seal
from headtool.record import tables as schema
from headtool.record.clock import Clock, device_memory, peak_memory
from headtool.record.files import read_sealed, sha256, whole, write_sealed, write_text
from headtool.redact import redacted

if TYPE_CHECKING:
    import polars as pl

# What a run leaves behind; --force removes these names and nothing else.
OWN = (
    "manifest.json", "config.yaml", "run.log", "tables", "figures", "parts", "ckpt_init", "ckpt_final", "model", "summary.md",
    "logs",
)  # fmt: skip
SAID = ("manifest.json", "config.yaml", "run.log")  # of these, what says whose a directory is and how it went
MARK = ".headtool"  # a file that says which run a directory holds, should its manifest be lost
LEFT = (
    *OWN, "topk_global.json", "topk_per_layer.json", "eval_subset.json", "metrics.json", "run_config.json", "embedding.md"
)  # fmt: skip


class Run:
    """One run of one command, as a context manager: status "running" -> "done" or "failed"."""

    def __init__(self, path: Path, identity: str, begun: dict[str, Any], console: Console, share: Share) -> None:
        self.path = path
        self.identity = identity
        self.manifest = begun
        self.console = console
        self.share = share
        self.clock = Clock()
        self.done = False
        self._lock: Any = None
        self._made: list[Path] = []  # what was not there before this run: its folder, then those above it

    @classmethod
    def start(
        cls,
        command: str,
        arguments: Mapping[str, Any],
        inputs: Mapping[str, Any],
        *,
        label: str,
        out: Path | None,
        force: bool,
        console: Console,
        share: Share,
        dry: bool = False,
    ) -> Run:
        """Find or make the directory of a run. inputs are the fingerprints of model and data, label a short name.

        Raises HeadtoolError where the directory cannot be used: it holds another run (exit 2), another process is
        at work in it (exit 1), or it cannot be written. A dry run touches nothing.
        """
        if force and share.count > 1:
            raise HeadtoolError(
                "--force with several processes: one would remove what another has begun",
                hint="remove the directory first, or choose another --out",
            )
        begun = manifest.begin(command, arguments, inputs)
        identity = begun["identity"]
        slug = re.sub(r"[^A-Za-z0-9._-]+", "-", label).strip("-.") or "model"
        path = out or Path("runs") / f"{command}-{slug}-{identity[:8]}"
        run = cls(path, identity, begun, console, share)
        old = run._read_manifest()
        if not force:
            run._refuse_another(old)
        if old is not None and old.get("status") == "done" and old.get("identity") == identity and not force:
            run._take_over(old)
        if run.done and not dry and share.index == 0:
            _remove(path / "parts")  # left by a process that was killed as it finished
        if dry or run.done:
            return run
        run._open(force)
        return run

    def _refuse_another(self, held: Mapping[str, Any] | None) -> None:
        """Keep out of another run's directory, but for one that ended before it had made anything. Several processes may not
        take such a place: one of them may have begun while another looks.
        """
        if held is None or held.get("identity") == self.identity:
            return
        made = (self.path / name for name in OWN if name not in SAID)
        made_nothing = not any(each.is_file() for top in made for each in (top, *top.rglob("*")))
        if self.share.count == 1 and held.get("status") != "done" and made_nothing:
            return
        status = {"running": "not finished"}.get(str(held.get("status")), held.get("status"))
        differ = manifest.apart(held, self.manifest)
        raise HeadtoolError(
            f"{self.path} holds another run ({held.get('command')}, {status})",
            hint=f"{differ}choose another --out, or --force to start over",
        )

    def _take_over(self, finished: dict[str, Any]) -> None:
        """Be done, where a finished run's manifest and files are as it left them."""
        changed = seal.broken(self.path, finished)
        if changed is None:
            self.manifest, self.done = finished, True
        else:
            self._warn_once(f"{changed} is missing or was changed since the run: it is made again")

    def _warn_once(self, text: str) -> None:
        """The directory is looked at twice, before and after it is locked."""
        if text not in self.console.warnings:
            self.console.warn(text)

    # -- opening and closing ---------------------------------------------------------------------------------------

    def _open(self, force: bool) -> None:
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
        now = self._read_manifest()
        if not force:
            try:
                self._refuse_another(now)  # it may have gone on, and ended, while this process waited for the lock
            except HeadtoolError:
                self._lock.release()
                self._lock = None
                raise
        if not force and now is not None and now.get("identity") == self.identity and now.get("status") == "done":
            self._take_over(now)  # another process has finished it meanwhile
            if self.done:
                return
        if force:
            for name in OWN:
                _remove(self.path / name)
        for folder in ("tables", "figures", "parts"):
            (self.path / folder).mkdir(exist_ok=True)
        for stray in [*self.path.glob(".*.tmp"), *self.path.glob("*/.*.tmp"), *self.path.glob("parts/*/.*.tmp")]:
            if self.share.count == 1:  # left by a killed process; with several, it may be a living neighbour's
                stray.unlink(missing_ok=True)
        self.manifest["versions"] = manifest.versions()
        self.manifest["git"] = manifest.commit()
        if not self.console.silent:
            # The mark first: where anything of a run is, it says whose, to the next call and to the other processes of this one.
            write_sealed(self.path / MARK, {name: self.manifest[name] for name in ("command", "identity", "status")})
            self.console.log = self.path / "run.log"
            self._write_config()
            self._write_manifest()

    def _refuse_foreign(self) -> None:
        """Keep out of a folder that is somebody's own: --out may be a slip of the pen, or an empty variable."""
        names = {entry.name for entry in self.path.iterdir() if not entry.name.startswith((".lock-", "."))}
        filled = [
            name
            for name in ("tables", "figures", "ckpt_init", "ckpt_final", "model")
            if any((self.path / name).glob("[!.]*"))
        ]
        if (self._read_manifest() or {}).get("identity"):  # looked for last: another process may have begun just now
            return
        begun = "run.log" in names  # a run whose manifest was lost
        if names - set(LEFT) or (not begun and (filled or "config.yaml" in names)):
            raise HeadtoolError(f"{self.path} is not empty and holds no run", hint="choose another --out")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock is None:
            return
        if error is not None and isinstance(error, Exception) and not self.done:
            known = translate(error)
            self.manifest |= {"status": "failed", "error": str(known or repr(error))}
            with contextlib.suppress(OSError):  # the disk may be full: the error that counts is on its way
                self._write_manifest()
        self._lock.release()
        impossible = error is not None and (told := translate(error)) is not None and told.code == IMPOSSIBLE
        if impossible and self._made and self.share.count == 1:
            _remove(self.path)  # what was asked for cannot be: there is nothing to keep, and nothing to go on from
            for above in self._made[1:]:
                with contextlib.suppress(OSError):  # another run has moved in
                    above.rmdir()

    # -- parts -----------------------------------------------------------------------------------------------------

    def parts(self, plan: Mapping[str, Any]) -> Path:
        """The folder of this run's parts under a plan (batches, device, dtype): parts of another plan are not mixed in."""
        folder = self._parts_folder(plan)
        folder.mkdir(parents=True, exist_ok=True)
        if self.share.count == 1:
            for other in (self.path / "parts").iterdir():
                if other != folder:
                    if any(other.rglob("*.part")):
                        self.console.note(
                            "parts of an earlier attempt under another plan (device, dtype or batches) are dropped"
                        )
                    _remove(other)
        return folder

    def parts_there(self, plan: Mapping[str, Any]) -> int:
        """How many parts an earlier attempt under the same plan has left."""
        return len(list(self._parts_folder(plan).glob("*.part")))

    def every_part(self, folder: Path, names: Sequence[str], *, wait: bool, together: bool = False) -> bool:
        """Are all parts there? With wait, stay until they are: other processes are at work on the rest.

        A part is made by the process that owns its place in names, or where they work together needs them all. Raises
        HeadtoolError where one that is waited for is gone.
        """

        def lacking() -> set[int]:
            missing = {i % self.share.count for i, name in enumerate(names) if not (folder / name).is_file()}
            return set(range(self.share.count)) if missing and together else missing

        if wait:
            locks.wait(self.path, self.share, lacking)
        return not lacking()

    def _parts_folder(self, plan: Mapping[str, Any]) -> Path:
        digest = hashlib.sha256(json.dumps(dict(plan), sort_keys=True).encode()).hexdigest()
        return self.path / "parts" / f"{self.identity[:12]}-{digest[:12]}"

    @contextlib.contextmanager
    def merging(self) -> Iterator[bool]:
        """One process at a time merges; True inside means that another has done it already."""
        if self.share.count == 1:
            yield False
            return
        from filelock import FileLock

        with FileLock(self.path / ".lock-merge"):
            now = self._read_manifest() or {}
            if now.get("status") == "done" and now.get("identity") == self.identity:
                self.manifest, self.done = now, True
            yield self.done

    # -- results ---------------------------------------------------------------------------------------------------

    def write(self, name: str, frame: pl.DataFrame, *, lines: bool = False, document: bool = False) -> None:
        """Write a table as Parquet (provenance in its metadata) and CSV, and if asked as JSON Lines or JSON too."""
        provenance = {
            "headtool.table": name,
            "headtool.version": __version__,
            "headtool.schema": str(schema.TABLES[name].version),
            "headtool.identity": self.identity,
            "headtool.inputs": redacted(json.dumps(self.manifest["inputs"])),
        }
        base = self.path / "tables" / schema.TABLES[name].file
        with whole(base.with_suffix(".parquet")) as file:
            frame.write_parquet(file, metadata=provenance)
        with whole(base.with_suffix(".csv")) as file:
            frame.write_csv(file)
        if lines:
            with whole(base.with_suffix(".jsonl")) as file:
                frame.write_ndjson(file)
        if document:
            with whole(base.with_suffix(".json")) as file:
                file.write(frame.write_json().encode())
        listed = self.manifest.setdefault("tables", {})
        listed[base.name] = {"rows": frame.height, "sha256": sha256(base.with_suffix(".parquet"))}

    def write_json(self, name: str, content: Any) -> None:
        """Write a JSON file (never NaN, no secrets) into the run directory."""
        write_text(self.path / name, redacted(json.dumps(content, indent=1, allow_nan=False)) + "\n")

    def finish(self) -> None:
        """Close the run: times and memory go into the manifest, the parts go away once no other process reads them."""
        self.manifest |= self.clock.as_dict()
        self.manifest["memory"] = {"peak_rss": peak_memory(), "peak_device": device_memory()}
        self.manifest["warnings"] = self.console.warnings
        self.manifest["finished"] = manifest.now()
        self.manifest["status"] = "done"
        self.manifest.pop("error", None)
        with contextlib.suppress(OSError):  # not empty
            (self.path / "figures").rmdir()
        seal.close(self.path, self.manifest)
        self._write_manifest()
        self.done = True
        if self.share.launched:
            until = time.monotonic() + locks.GONE
            while locks.others(self.path, self.share) and time.monotonic() < until:
                time.sleep(locks.POLL)
        _remove(self.path / "parts")

    def announce(self) -> Path:
        """Say where the run is: its directory on stdout, or with --json its manifest in brief."""
        brief: dict[str, Any] = {"run": str(self.path)}
        brief |= {
            name: self.manifest[name] for name in ("command", "status", "tables", "metrics") if name in self.manifest
        }
        self.console.result(str(self.path), brief)
        return self.path

    # -- manifest --------------------------------------------------------------------------------------------------

    def _read_manifest(self) -> dict[str, Any] | None:
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

    def _write_manifest(self) -> None:
        self.write_json("manifest.json", self.manifest)

    def _write_config(self) -> None:
        import yaml

        known = {name: value for name, value in self.manifest["arguments"].items() if name != "config"}
        text = yaml.safe_dump(known, sort_keys=False, allow_unicode=True, width=2**20)  # a value on one line
        write_text(self.path / "config.yaml", redacted(text))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
