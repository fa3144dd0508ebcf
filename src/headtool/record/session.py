"""What every command that leaves a run does with it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from headtool.console import Console
from headtool.ranks import Share
from headtool.record import manifest
from headtool.record.clock import human_bytes, peak_memory
from headtool.record.run import Run

DECISIVE = ("torch", "transformers", "numpy")  # libraries whose next version may compute otherwise


def carry_out(
    command: str,
    arguments: Mapping[str, Any],
    inputs: Mapping[str, Any],
    *,
    label: str,
    console: Console,
    share: Share,
    work: Callable[[Run], Path],
    slow: Sequence[str] = (),
) -> Path:
    """Do the work in the directory of its run (which is returned), or say where it is done already.

    Of the arguments, out, force and dry_run are those of every command. slow are modules that the work needs and that
    take seconds to import: that is a phase of its own. Raises HeadtoolError as Run.start and work do.
    """
    out, dry = arguments["out"], arguments["dry_run"]
    with Run.start(
        command, arguments, inputs, label=label, out=Path(out) if out is not None else None, force=arguments["force"],
        console=console, share=share, dry=dry,
    ) as run:  # fmt: skip
        if run.done and not dry:
            console.note(f"done already{_by_others(run)}; --force does it again")
            return run.again()
        if slow:
            with run.clock.phase("import"), console.importing():
                for name in slow:
                    importlib.import_module(name)
        return work(run)


def _by_others(run: Run) -> str:
    """The libraries' versions that made a finished run, where they are not those of now."""
    then, now = run.manifest.get("versions", {}), manifest.versions()
    other = [f"{name} {then[name]}" for name in DECISIVE if name in then and then[name] != now.get(name)]
    return f", by {', '.join(other)}" if other else ""


def show_plan(run: Run, fields: dict[str, Any], *, device: str = "cpu") -> Path:
    """What the run would do, on stdout; what ends in bytes is a size. memory_bytes is of the device; on a CPU what Python
    and the libraries take comes to it, about what this process has taken.
    """
    if device == "cpu" and "memory_bytes" in fields:
        fields = fields | {"memory_bytes": fields["memory_bytes"] + peak_memory()}
    fields = {"run": str(run.path), "done": run.done} | fields
    run.console.plan([(name, word(name, value)) for name, value in fields.items()], fields)
    return run.path


def word(name: str, value: Any) -> str:
    """A value of a plan as a reader has it; of what ends in bytes a size."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {each}" for key, each in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return human_bytes(value) if name.endswith("bytes") else str(value)
