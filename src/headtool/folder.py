"""A folder is its own registry: each module in it declares NAMES, the names it answers to on the command line.

Names are read from the source text, so that listing them (for --help, TAB or an error) imports nothing.
Names that are not found at home are looked for among installed plug-ins (entry points).
"""

from __future__ import annotations

import ast
import functools
import importlib
import warnings
from importlib import resources
from types import ModuleType
from typing import TYPE_CHECKING

from headtool.errors import unknown

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


@functools.cache
def modules(package: str) -> dict[str, str]:
    """The names that a folder's modules declare, each with the full name of its module, in order of file name."""
    found: dict[str, str] = {}
    for file in sorted(resources.files(package).iterdir(), key=lambda f: f.name):
        if not file.name.endswith(".py"):
            continue
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and [getattr(t, "id", None) for t in node.targets] == ["NAMES"]:
                for name in ast.literal_eval(node.value):
                    found[name] = f"{package}.{file.name.removesuffix('.py')}"
    return found


def names(package: str) -> tuple[str, ...]:
    """The names at home, in order of file name."""
    return tuple(modules(package))


def group(package: str) -> str:
    """The entry-point group of a folder's plug-ins: headtool.scores, headtool.detectors ..."""
    return f"headtool.{package.rpartition('.')[2]}"


def offered(package: str) -> tuple[str, ...]:
    """The names at home and those of plug-ins, for TAB."""
    return (*names(package), *sorted(plugins(package)))


def plugins(package: str) -> dict[str, EntryPoint]:
    """The entry points of a folder's plug-ins, by the name that each answers to."""
    from importlib import metadata  # slow to import, and names at home do without

    return {entry.name: entry for entry in metadata.entry_points(group=group(package))}


def load(package: str, name: str, kind: str) -> ModuleType:
    """Import the module that answers to a name, at home or from a plug-in.

    kind is the word for one of them ("score"); plug-ins register under the entry-point group "headtool.{folder}".
    Raises HeadtoolError for an unknown name. A plug-in that cannot be imported warns and counts as absent.
    """
    at_home = modules(package)
    if name in at_home:
        return importlib.import_module(at_home[name])
    others = plugins(package)
    if name in others:
        try:
            return others[name].load()
        except Exception as error:
            warnings.warn(f"the plug-in {others[name].value} cannot be loaded: {error}", stacklevel=2)
    raise unknown(kind, name, [*at_home, *sorted(others)])
