"""The shell: the table of contents, the app, and main(), the ONE error boundary."""

from __future__ import annotations

import functools
import importlib
import os
import re
import sys
import traceback
from collections.abc import Callable
from importlib import metadata
from typing import Annotated, Any

import typer

from headtool import __version__
from headtool.errors import IMPOSSIBLE, INTERRUPTED, translate

COMMANDS = ("score", "finetune", "causal-train", "causal-predict", "report")

app = typer.Typer(
    name="headtool",
    help="Study the attention heads of transformer models.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(value: bool) -> None:
    if value:
        print(f"headtool {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Study the attention heads of transformer models."""


def _silent(command: Callable[..., Any]) -> Callable[..., None]:
    """A command returns its run directory to Python; on the command line it has printed what there is to print."""

    @functools.wraps(command)
    def run(**given: Any) -> None:
        try:
            command(**given)
        except Exception as error:
            if given.get("debug") and translate(error) is not None:
                traceback.print_exc()  # of an unknown error main() prints it anyway
            raise

    return run


def _deferred(entry: metadata.EntryPoint) -> Callable[..., None]:
    """A plug-in command: its name is known at start, its module is imported when it is called."""

    def run(ctx: typer.Context) -> None:
        plugin = typer.Typer(pretty_exceptions_enable=False)
        plugin.command(name=entry.name)(entry.load())
        raise typer.Exit(plugin(ctx.args, prog_name=f"headtool {entry.name}", standalone_mode=False) or 0)

    return run


for _name in COMMANDS:
    app.command(name=_name)(_silent(importlib.import_module(f"headtool.commands.{_name.replace('-', '_')}").command))
for _entry in metadata.entry_points(group="headtool.commands"):
    _anything = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
    app.command(name=_entry.name, help=f"From the plug-in {_entry.value}.", context_settings=_anything)(
        _deferred(_entry)
    )


def main() -> None:
    """Run the command line. Exit codes: 0 done, 1 it failed, 2 asked for something impossible, 130 Ctrl-C."""
    try:
        code = app(standalone_mode=False) or 0
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except typer.Abort:
        code = INTERRUPTED
    except typer.TyperException as error:  # a wrong flag, a missing argument
        code = _usage(error)
    except Exception as error:
        known = translate(error)
        if known is None:
            traceback.print_exc()
            print("headtool: error: this is a bug in headtool; please report it with the lines above", file=sys.stderr)
            code = 1
        else:
            code = known.code
            if str(known):
                _say(str(known), known.hint)
    if code == INTERRUPTED:
        print("headtool: interrupted; the same command goes on where it stopped", file=sys.stderr)
    _close(code)


def _usage(error: typer.TyperException) -> int:
    message = error.format_message().strip()
    if not message:  # no_args_is_help: the help has been asked for by giving nothing
        print("headtool: error: give a command\n  hint: 'headtool --help' shows what there is", file=sys.stderr)
        return IMPOSSIBLE
    # Typer's words for near misses: "... Did you mean 'a'?" and "... (Possible options: --a, --b)"
    first, *near = re.split(r" Did you mean | \(Possible options: ", message, maxsplit=1)
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "headtool"
    hint = f"did you mean {near[0].rstrip(')?')}?" if near else f"'{path} --help' shows what there is"
    _say(first[0].lower() + first[1:].rstrip("."), hint)
    return int(error.exit_code)


def _say(message: str, hint: str) -> None:
    print(f"headtool: error: {' '.join(message.split())}", file=sys.stderr)
    if hint:
        print(f"  hint: {' '.join(hint.split())}", file=sys.stderr)


def _close(code: int) -> None:
    """Leave with the code; a reader that has gone away (| head) is no error worth a second message."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = code or 1
    sys.exit(code)
