"""What TAB offers for flags and arguments."""

from __future__ import annotations

import os
from pathlib import Path

from headtool import folder


def of_list(choices: tuple[str, ...], incomplete: str) -> list[str]:
    """Complete the last item of a comma-separated list."""
    head, comma, last = incomplete.rpartition(",")
    taken = head.split(",")
    return [f"{head}{comma}{name}" for name in choices if name.startswith(last) and name not in taken]


def complete_scores(incomplete: str) -> list[str]:
    return of_list(folder.offered("headtool.scores"), incomplete)


def complete_tasks(incomplete: str) -> list[str]:
    return [name for name in folder.names("headtool.tasks") if name.startswith(incomplete)]


def complete_families(incomplete: str) -> list[str]:
    return [name for name in folder.names("headtool.models.architectures") if name.startswith(incomplete)]


def complete_models(incomplete: str) -> list[str]:
    """The built-in models, then folders that hold a config.json and the folders on the way to them."""
    from headtool.models.locate import BUILT_IN

    return [name for name in BUILT_IN if name.startswith(incomplete)] + _folders(incomplete, "config.json")


def complete_runs(incomplete: str) -> list[str]:
    """Run directories, and the folders on the way to them."""
    return _folders(incomplete, "manifest.json")


def _folders(incomplete: str, holds: str) -> list[str]:
    """The folders that go on from what is typed; one that does not hold the file is on the way to others."""
    typed = Path(incomplete)
    above, start = (typed, "") if incomplete.endswith(("/", os.sep)) else (typed.parent, typed.name)
    try:
        found = sorted(p for p in above.iterdir() if p.is_dir() and p.name.startswith(start))
    except OSError:
        found = []
    visible = [p for p in found if start.startswith(".") or not p.name.startswith(".")]
    return [str(p) if (p / holds).is_file() else f"{p}{os.sep}" for p in visible]
