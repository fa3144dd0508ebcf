"""--config FILE: TOML or YAML whose values become the defaults of the command; names are those of the flags."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import typer

from headtool.errors import HeadtoolError


def read(ctx: typer.Context, value: Path | None) -> Path | None:
    """Make the file's values the defaults of the command; names are those of the flags."""
    if value is None or ctx.resilient_parsing:
        return value
    try:
        text = value.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise HeadtoolError(f"--config {value}: there is no such file", hint="give a TOML or YAML file") from error
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise HeadtoolError(f"--config {value}: cannot be read ({why})", hint="give a TOML or YAML file") from error
    try:
        if value.suffix == ".toml":
            import tomllib

            given = tomllib.loads(text)
        else:
            import yaml

            given = yaml.load(text, Loader=_once_each(yaml.SafeLoader)) or {}
    except Exception as error:  # two libraries, many classes, one meaning
        reason = " ".join(str(error).split())
        raise HeadtoolError(f"--config {value}: neither TOML nor YAML that can be read", hint=reason[:200]) from error
    if not isinstance(given, dict):
        raise HeadtoolError(f"--config {value}: holds no names and values", hint="for example a line 'scores: out,ent'")
    known = {parameter.name: parameter for parameter in ctx.command.params if parameter.name != "config"}
    defaults: dict[str, Any] = {}
    for key, setting in given.items():
        name = str(key).replace("-", "_").removeprefix("__")
        if name not in known:
            close = difflib.get_close_matches(name, sorted(k for k in known if k), n=1)
            hint = f"did you mean '{close[0]}'?" if close else "the names are those of the flags"
            raise HeadtoolError(f"--config {value}: there is no setting named '{key}'", hint=hint)
        if isinstance(setting, bool) and not getattr(known[name], "is_flag", False):  # True would count as 1
            hint = f"{key} takes a value, not true or false"
            raise HeadtoolError(f"--config {value}: {key}: {str(setting).lower()} is no value", hint=hint)
        if setting is not None:  # null is the default
            defaults[name] = _as_given(setting, _repeats(known[name]))
    ctx.default_map = {**(ctx.default_map or {}), **defaults}
    return value


def _repeats(parameter: Any) -> bool:
    """Is it given again and again?"""
    return bool(getattr(parameter, "multiple", False) or parameter.nargs == -1)


def _once_each(loader: Any) -> Any:
    """A YAML loader that refuses a name that is given twice: the last one would win without a word."""

    class Loader(loader):
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            names = [key.value for key, _ in node.value if isinstance(key.value, str)]
            if twice := [name for name in names if names.count(name) > 1]:
                raise ValueError(f"{twice[0]} is given twice")
            return super().construct_mapping(node, deep)

    return Loader


def _as_given(setting: Any, repeats: bool) -> Any:
    """A list stands for the comma-separated list that the flag takes, or for a flag given again and again."""
    if repeats:
        return [str(item) for item in setting] if isinstance(setting, list) else [str(setting)]
    return ",".join(str(item) for item in setting) if isinstance(setting, list) else setting
