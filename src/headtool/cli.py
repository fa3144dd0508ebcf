"""The shell: the table of contents, the app, and main(), the ONE error boundary."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable
from importlib import metadata
from typing import Annotated, Any

import typer

from headtool import __version__
from headtool.errors import FAILED, IMPOSSIBLE, INTERRUPTED, TERMINATED, HeadtoolError, Terminated, translate
from headtool.redact import redacted

COMMANDS = (
    "download", "inspect-weights", "score", "finetune", "inject", "causal-train", "causal-predict", "report", "doctor",
)  # fmt: skip


def module_of(command: str) -> str:
    """The module of a command."""
    return f"headtool.commands.{command.replace('-', '_')}"


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


def _plugins() -> dict[str, metadata.EntryPoint]:
    """Commands of other packages, by name; a name of our own is ours."""
    return {e.name: e for e in metadata.entry_points(group="headtool.commands") if e.name not in COMMANDS}


def _absent(entry: metadata.EntryPoint) -> Callable[..., None]:
    """What stands for a plug-in's command until a command line names it: a name for --help, and no import."""

    def run(ctx: typer.Context) -> None:
        try:
            entry.load()
        except Exception as error:
            if ctx.args and "--debug" in ctx.args:
                traceback.print_exc()
            reason = f"{type(error).__name__}: {error}"
            hint = "update or uninstall its package; headtool doctor lists what is installed"
            raise HeadtoolError(
                f"the plug-in {entry.value} cannot be loaded: {reason}", hint=hint, code=FAILED
            ) from None

    return run


def _plug_in() -> None:
    """Put the command of a plug-in in its place, where the command line (or that being completed) names it."""
    typed = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS")
    words = typed.split()[1:] if typed else sys.argv[1:]
    named = next((word for word in words if not word.startswith("-")), None)
    entry = _plugins().get(named or "")
    if entry is None:
        return
    with contextlib.suppress(Exception):  # what stands for it says what is wrong, should it be called
        command = entry.load()
        app.registered_commands = [known for known in app.registered_commands if known.name != entry.name]
        app.command(name=entry.name)(_silent(command))


for _name in COMMANDS:
    app.command(name=_name)(_silent(importlib.import_module(module_of(_name)).command))
for _entry in _plugins().values():
    _anything = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
    app.command(name=_entry.name, help=f"From the plug-in {_entry.value}.", context_settings=_anything)(_absent(_entry))


def main() -> None:
    """Run the command line. Exit codes: 0 done, 1 it failed, 2 asked for something impossible, 130 Ctrl-C, 143 SIGTERM."""
    _settle_streams()
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # what its C++ warns of, it says once a process and past us
    with contextlib.suppress(ValueError):  # not in the main thread, where nobody would hear it
        signal.signal(signal.SIGTERM, _terminate)
    _plug_in()
    try:
        code = app(standalone_mode=False) or 0
        sys.stdout.flush()
    except Terminated:
        code = TERMINATED
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
    if code in (INTERRUPTED, TERMINATED):
        how = "interrupted" if code == INTERRUPTED else "terminated"
        print(f"headtool: {how}; the same command goes on where it stopped", file=sys.stderr)
    _close(code)


def _terminate(*_: Any) -> None:
    """SIGTERM, as batch systems and torchrun send it: leave like Ctrl-C does."""
    raise Terminated


def _settle_streams() -> None:
    """A stream that was closed before the start (>&-) would be None here, and print would take the other."""
    for name, stream in (("stdout", sys.stdout), ("stderr", sys.stderr)):
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for as long as we live


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
    print(f"headtool: error: {redacted(' '.join(message.split()))}", file=sys.stderr)
    if hint:
        print(f"  hint: {redacted(' '.join(hint.split()))}", file=sys.stderr)


def _close(code: int) -> None:
    """Leave with the code; a reader that has gone away (| head) is no error worth a second message."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = code or 1
    sys.exit(code)
