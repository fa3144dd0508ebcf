"""A run: its name, its manifest, its parts, its results.

A run is named by what determines its result, so the same call finds the same directory: done means print and
leave, half done means go on from the parts. A part file's presence is the only resume state.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from headtool import __version__
from headtool.console import Console, plain
from headtool.errors import IMPOSSIBLE, HeadtoolError, translate
from headtool.ranks import Share
from headtool.record import locks, manifest, seal
from headtool.record import tables as schema
from headtool.record.clock import Clock, device_memory, human_bytes, peak_memory
from headtool.record.files import sha256, whole, write_text
from headtool.record.place import Place, remove
from headtool.redact import redacted

if TYPE_CHECKING:
    import polars as pl


class Run:
    """One run of one command, as a context manager: status "running" -> "done" or "failed"."""

    def __init__(self, place: Place, begun: dict[str, Any], console: Console, share: Share) -> None:
        self.place = place
        self.path = place.path
        self.identity = begun["identity"]
        self.manifest = begun
        self.console = console
        self.share = share
        self.clock = Clock()
        self.done = False

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
        run = cls(Place(path, begun, console, share), begun, console, share)
        run._take_over(None if force else run.place.finished())
        if run.done and not dry and share.index == 0:
            remove(path / "parts")  # left by a process that was killed as it finished
        if dry or run.done:
            return run
        run._take_over(run.place.take(force))
        if not run.done:
            run._begin()
        return run

    def _take_over(self, finished: dict[str, Any] | None) -> None:
        """Be done, where the run has been finished before."""
        if finished is not None:
            self.manifest, self.done = finished, True

    def _begin(self) -> None:
        self.manifest["versions"] = manifest.versions()
        self.manifest["git"] = manifest.commit()
        if not self.console.silent:
            # The mark first: where anything of a run is, it says whose, to the next call and to the other processes of this one.
            self.place.mark()
            self.console.log = self.path / "run.log"
            self._write_config()
            self._write_manifest()
            self.console.detail(f"headtool {__version__} {self.manifest['command']} begins in {self.path}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.place.taken:
            return
        if error is not None and isinstance(error, Exception) and not self.done:
            known = translate(error)
            self.manifest |= {"status": "failed", "error": str(known or repr(error))}
            with contextlib.suppress(OSError):  # the disk may be full: the error that counts is on its way
                self._write_manifest()
        self.place.leave(
            impossible=error is not None and (told := translate(error)) is not None and told.code == IMPOSSIBLE
        )

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
                    remove(other)
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
            now = self.place.held() or {}
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
        remove(self.path / "parts")

    def memory(self) -> str:
        """The largest that a finished run was, for the closing words."""
        memory, size = self.manifest["memory"], self.manifest.get("model", {}).get("bytes")
        told = f"{human_bytes(memory['peak_rss'])} peak" + (f", {human_bytes(size)} of it the model" if size else "")
        return told + (f"   {human_bytes(memory['peak_device'])} peak on the device" if memory["peak_device"] else "")

    def left(self, *more: str) -> str:
        """What is left behind, for the closing words: tables, figures, and more."""
        tables = [f"tables/{name}.parquet" for name in self.manifest["tables"]]
        figures = sorted(f"figures/{file.name}" for file in (self.path / "figures").glob("*.png"))
        return "  ".join([*more, *tables, *figures])

    def conclude(self, *words: Any) -> Path:
        """Show the closing words (Rich), keep them and the warnings beside the tables, and say where the run is."""
        self.console.show(*words)
        with contextlib.suppress(OSError):  # the disk may be full now: the run is done all the same
            warned = "".join(f"headtool: warning: {text}\n" for text in self.console.warnings)
            write_text(self.path / seal.CLOSING, redacted(warned + plain(*words)))
        return self.announce()

    def again(self) -> Path:
        """Show the closing words of a finished run once more, and say where it is."""
        with contextlib.suppress(OSError, UnicodeDecodeError):
            self.console.say((self.path / seal.CLOSING).read_text(encoding="utf-8"))
        return self.announce()

    def announce(self) -> Path:
        """Say where the run is: its directory on stdout, or with --json its manifest in brief."""
        brief: dict[str, Any] = {"run": str(self.path)}
        brief |= {
            name: self.manifest[name]
            for name in ("command", "status", "tables", "metrics", "top")
            if name in self.manifest
        }
        self.console.result(str(self.path), brief)
        return self.path

    # -- manifest --------------------------------------------------------------------------------------------------

    def _write_manifest(self) -> None:
        self.write_json("manifest.json", self.manifest)

    def _write_config(self) -> None:
        import yaml

        known = {name: value for name, value in self.manifest["arguments"].items() if name not in manifest.OF_ONE_CALL}
        text = yaml.safe_dump(known, sort_keys=False, allow_unicode=True, width=2**20)  # a value on one line
        write_text(self.path / "config.yaml", redacted(text))
