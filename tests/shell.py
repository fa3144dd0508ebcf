"""Run the command line in this process, or in one of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass
class Said:
    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The error line, of which there is one, followed by its hint."""
        lines = [line for line in self.err.splitlines() if line.startswith("headtool: error:")]
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err
        after = self.err.splitlines()[self.err.splitlines().index(lines[0]) + 1 :]
        assert after, self.err
        assert after[0].startswith("  hint: "), self.err
        return lines[0]


def call(capsys, *args) -> Said:
    """The command line in this process: main() with these arguments."""
    from headtool.cli import main

    before = sys.argv
    sys.argv = ["headtool", *map(str, args)]
    capsys.readouterr()
    try:
        with pytest.raises(SystemExit) as stopped:
            main()
    finally:
        sys.argv = before
    captured = capsys.readouterr()
    return Said(int(stopped.value.code or 0), captured.out, captured.err)


def spawn(*args, cwd: Path, **env: str) -> subprocess.CompletedProcess:
    """The command line in a process of its own."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("HEADTOOL_")}
    return subprocess.run(
        [sys.executable, "-m", "headtool", *map(str, args)],
        cwd=cwd,
        env=clean | env,
        capture_output=True,
        text=True,
        check=False,
    )
