"""Where troubles happen: undisturbed runs to compare with, runs stopped half way, and the call that must finish them."""

from __future__ import annotations

import json
import random
import signal
import tempfile
import time
from pathlib import Path

from trouble.jobs import Job, results
from trouble.warm import Process, Warm


class Stage:
    """Undisturbed runs of jobs, each made when it is first asked for, in a folder by their names; others are started beside them."""

    def __init__(self, warm: Warm) -> None:
        self.warm = warm
        self._keep = tempfile.TemporaryDirectory()
        self.whole = Path(self._keep.name)
        self.seconds: dict[str, float] = {}
        self._found: dict[str, dict[str, str]] = {}

    def expected(self, job: Job) -> dict[str, str]:
        """The results of a job, undisturbed."""
        if job.name not in self._found:
            for other in job.needs():
                self.expected(other)
            self.warm.run("--version")  # it has imported all there is
            begun = time.monotonic()
            process = self.warm.run(*job.words(self.whole / job.name, self.whole))
            assert process.code == 0, process.err
            self.seconds[job.name] = time.monotonic() - begun
            self._found[job.name] = results(self.whole / job.name)
        return self._found[job.name]

    def start(self, job: Job, out: Path, **how) -> Process:
        assert self.expected(job)
        return self.warm.start(*job.words(out, self.whole), **how)

    def run(self, job: Job, out: Path, **how) -> Process:
        process = self.start(job, out, **how)
        process.wait()
        return process

    def half_done(self, job: Job, out: Path, parts: int = 2, pattern: str | None = None) -> list[Path]:
        """Kill the job as soon as so many of its parts are there; a run that was too quick is started over."""
        pattern = pattern or job.parts or ""
        for _ in range(20):
            process = self.start(job, out)
            while not process.over() and len(list(out.glob(pattern))) < parts:
                time.sleep(0.001)
            process.send(signal.SIGSTOP)  # between its steps, it does not slip away while the next line is on its way
            process.send(signal.SIGKILL)
            if process.wait() == -signal.SIGKILL and len(left := sorted(out.glob(pattern))) >= parts:
                return left
            self.run(job, out)
            for file in sorted(out.rglob("*"), reverse=True):
                file.rmdir() if file.is_dir() else file.unlink()
        raise AssertionError(f"{job.name} was never caught half way")

    def finish(self, job: Job, out: Path) -> Process:
        """The same call: it must succeed, with the results of an undisturbed run."""
        process = self.run(job, out)
        assert process.code == 0, process.err
        assert "Traceback" not in process.err
        self.check(job, out)
        return process

    def check(self, job: Job, out: Path) -> None:
        """Are the results those of an undisturbed run, and is nothing left over?"""
        found, expected = results(out), self.expected(job)
        assert found == expected, {name for name in {*found, *expected} if found.get(name) != expected.get(name)}
        assert json.loads((out / "manifest.json").read_text())["status"] == "done"
        assert not (out / "parts").exists()
        assert not list(out.rglob("*.tmp"))

    def kills(self, job: Job, out: Path, dice: random.Random, at_most: int = 6) -> int:
        """Kill -9 at random moments, again and again on one directory, until a run gets through; how many there were.

        What says that it is done at any moment must be done: the manifest is looked at after every kill.
        """
        longest = self.seconds[job.name] if self.expected(job) else 0.0
        kills, through = 0, False
        while kills < at_most and not through:
            process = self.start(job, out)
            end = time.monotonic() + dice.uniform(0, 1.1 * longest)
            while time.monotonic() < end and not process.over():
                time.sleep(0.001)
            process.send(signal.SIGKILL)
            code = process.wait()
            assert code in (0, -signal.SIGKILL), process.err
            manifest = out / "manifest.json"
            if manifest.is_file() and json.loads(manifest.read_text())["status"] == "done":
                assert results(out) == self.expected(job)
            kills, through = kills + (code != 0), code == 0
        self.finish(job, out)
        return kills

    def close(self) -> None:
        self._keep.cleanup()
