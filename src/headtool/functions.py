"""A command as a function of Python: what is given is checked as the command line would have, before anything is done."""

from __future__ import annotations

import difflib
import functools
import inspect
import numbers
import os
import re
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from headtool.console import called_from_python
from headtool.errors import HeadtoolError

FLAGS = (
    "The arguments are the flags, which `headtool {} --help` explains; a list stands for one with commas. "
    "Raises headtool.HeadtoolError."
)


def function(command: Callable[..., Any], name: str) -> Callable[..., Any]:
    """The command under a name, with its doc as plain text. Raises HeadtoolError for a value that no flag would take."""

    @functools.wraps(command)
    def run(*args: Any, **given: Any) -> Any:
        hints = typing.get_type_hints(command, include_extras=True)
        try:
            bound = inspect.signature(command).bind(*args, **given)
        except TypeError as error:
            known = inspect.signature(command).parameters
            strange = next((word for word in given if word not in known), "")
            close = difflib.get_close_matches(strange, list(known), n=1)
            meant = f"; did you mean {close[0]!r}?" if close else ""
            raise TypeError(f"headtool.{name}(): {error}{meant}") from None
        if bound.arguments.get("config") is not None:
            raise HeadtoolError("config is of the command line", hint="give its names and values as arguments")
        for argument, value in bound.arguments.items():
            try:
                bound.arguments[argument] = _taken(hints[argument], value)
            except ValueError as wanted:
                hint = f"headtool {name.replace('_', '-')} --help shows the values"
                raise HeadtoolError(f"{argument}={value!r}: not {wanted}", hint=hint) from None
        token = called_from_python.set(True)
        try:
            return command(*bound.args, **bound.kwargs)
        finally:
            called_from_python.reset(token)

    run.__name__ = run.__qualname__ = name
    run.__doc__ = f"{doc(command)}\n\n{FLAGS.format(name.replace('_', '-'))}"
    return run


def doc(command: Callable[..., Any]) -> str:
    """What a command says of itself, without the marks of its help."""
    return re.sub(r"\[/?(?:bold)?\]", "", inspect.getdoc(command) or "")


def _taken(hint: Any, value: Any) -> Any:
    """A value as the flag of this annotation would give it. Raises ValueError with what it should have been."""
    kind, *told = typing.get_args(hint) if typing.get_origin(hint) is Annotated else (hint,)
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        if value is None:
            return None
        kind = next(option for option in typing.get_args(kind) if option is not type(None))
    origin = typing.get_origin(kind) or kind
    if origin is Literal:
        choices = typing.get_args(kind)
        if value not in choices:
            raise ValueError(f"one of {', '.join(choices)}")
    if origin not in KINDS:
        return value
    fitting, what, made = KINDS[origin]
    if not isinstance(value, fitting) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(what)
    for info in told:
        if info.parser is not None:
            return info.parser(_text(value))
        low, high = (info.min, info.max) if origin in (int, float) else (None, None)
        if (low is not None and value < low) or (high is not None and value > high):
            raise ValueError(f"{what} from {low:g} to {high:g}")
    if origin is list:
        return [_taken(typing.get_args(kind)[0], item) for item in made(value)]
    return made(value)


def _text(value: Any) -> str:
    """A number, a path, or a list of them, as it is typed in a shell."""
    return ",".join(str(item) for item in value) if isinstance(value, list | tuple | range) else str(value)


def _listed(value: Any) -> list[Any]:
    """What a flag that is given again and again stands for: a mapping is NAME=VALUE each time."""
    if isinstance(value, Mapping):
        return [f"{name}={_text(each)}" for name, each in value.items()]
    return [*value] if isinstance(value, list | tuple) else [value]


KINDS: dict[type, tuple[Any, str, Callable[[Any], Any]]] = {
    bool: (bool, "True or False", bool),
    int: (numbers.Integral, "a whole number", int),
    float: (numbers.Real, "a number", float),
    str: ((str, list, tuple, range, numbers.Real, os.PathLike), "a text", _text),
    Path: ((str, os.PathLike), "a path", Path),
    list: ((list, tuple, Mapping, str, os.PathLike), "a list", _listed),
}
