"""What headtool refuses, in a table: one module a command, each with its CASES. docs/errors.md is made from it."""

from __future__ import annotations

import importlib
from pathlib import Path

from bad_input.case import Case


def cases() -> dict[str, tuple[Case, ...]]:
    """The cases of every module of this folder that has some, by the module's name: a new file joins by being here."""
    found = {}
    for file in sorted(Path(__file__).parent.glob("*.py")):
        module = importlib.import_module(f"bad_input.{file.stem}") if file.stem != "__init__" else None
        if hasattr(module, "CASES"):
            found[file.stem] = module.CASES
    return found
