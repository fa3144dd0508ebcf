"""A folder is its own registry: each module in it declares NAMES, the names it answers to on the command line.

Names are read from the source text, so that listing them (for --help, TAB or an error) imports nothing.
Names that are not found at home are looked for among installed plug-ins (entry points).
"""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib
import warnings
from importlib import resources
from types import ModuleType
from typing import TYPE_CHECKING, Any

from headtool.errors import unknown

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


@functools.cache
def constants(package: str) -> dict[str, dict[str, Any]]:
    """What the modules of a folder say of themselves: the plain constants of each, by its full name, in order of file name."""
    found: dict[str, dict[str, Any]] = {}
    for file in sorted(resources.files(package).iterdir(), key=lambda f: f.name):
        if not file.name.endswith(".py"):
            continue
        said = found[f"{package}.{file.name.removesuffix('.py')}"] = {}
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
                with contextlib.suppress(ValueError):  # computed
                    said[node.targets[0].id] = ast.literal_eval(node.value)
    return found


@functools.cache
def modules(package: str) -> dict[str, str]:
    """The names that a folder's modules declare, each with the full name of its module, in order of file name."""
    return {name: module for module, said in constants(package).items() for name in said.get("NAMES", ())}


def said(package: str, name: str, constant: str, kind: str) -> Any:
    """A constant of the module that answers to a name; at home, where it stands there plainly, without importing it."""
    at_home = modules(package).get(name)
    if at_home is not None and constant in constants(package)[at_home]:
        return constants(package)[at_home][constant]
    return getattr(load(package, name, kind), constant)


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
