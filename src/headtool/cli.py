"""The shell: the table of contents, the app, and main(), the ONE error boundary."""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib
import io
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headtool import __version__
from headtool.errors import FAILED, IMPOSSIBLE, INTERRUPTED, TERMINATED, UNHEARD, HeadtoolError, Terminated, translate
from headtool.redact import redacted

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint
    from types import FrameType

COMMANDS = (
    "download", "inspect-weights", "score", "finetune", "inject", "causal-train", "causal-predict", "report", "doctor",
)  # fmt: skip
NEAR = 0.6  # likeness, from 0 to 1, from which a name may be meant by another
GOES_ON = ("download", "inspect-weights", "score", "finetune", "inject", "causal-train")  # when called again


def module_of(command: str) -> str:
    """The module of a command."""
    return f"headtool.commands.{command.replace('-', '_')}"


def _show_version(value: bool) -> None:
    if value:
        print(f"headtool {__version__}")
        raise typer.Exit


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


def _plugins() -> dict[str, EntryPoint]:
    """Commands of other packages, by name; a name of our own is ours."""
    from importlib import metadata  # reads mail headers, and is slow to import for that

    return {e.name: e for e in metadata.entry_points(group="headtool.commands") if e.name not in COMMANDS}


def _absent(entry: EntryPoint) -> Callable[..., None]:
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


def _application() -> typer.Typer:
    """The app, with as many commands as the command line (or that being completed) needs: one that it begins with needs no
    other, and the flags of all of them take longer to set up than many a command line to run.
    """
    app = typer.Typer(
        name="headtool",
        help="Study the attention heads of transformer models.",
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    typed = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS")
    words = typed.split()[1:] if typed else sys.argv[1:]
    whole = len(words) > 1 or not typed  # the last word of a line being completed may go on
    if words[:1] == ["--version"]:
        return app
    ours: Sequence[str] = words[:1] if whole and words and words[0] in COMMANDS else COMMANDS
    for name in ours:
        app.command(name=name)(_silent(importlib.import_module(module_of(name)).command))
    if ours is COMMANDS:
        named = next((word for word in words if not word.startswith("-")), None)
        for entry in _plugins().values():
            _plug_in(app, entry, load=entry.name == named)
    return app


def _plug_in(app: typer.Typer, entry: EntryPoint, load: bool) -> None:
    """The command of a plug-in, where the command line names it; else, or where it cannot be loaded, what stands for it."""
    if load:
        with contextlib.suppress(Exception):  # what stands for it says what is wrong, should it be called
            app.command(name=entry.name)(_silent(entry.load()))
            return
    anything = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
    app.command(name=entry.name, help=f"From the plug-in {entry.value}.", context_settings=anything)(_absent(entry))


def main() -> None:
    """Run the command line. Exit codes: 0 done, 1 it failed, 2 asked for something impossible, 130 Ctrl-C,
    141 nobody reads stdout any more, 143 SIGTERM.
    """
    _settle_streams()
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # what its C++ warns of, it says once a process and past us
    _on(signal.SIGTERM, _stop)
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # a script's & has it ignored
        _on(signal.SIGINT, _stop)
    try:
        code = _run()
    except (Terminated, KeyboardInterrupt) as stopped:
        code = TERMINATED if isinstance(stopped, Terminated) else INTERRUPTED
        _on(signal.SIGTERM, signal.SIG_IGN)
        print(_stopped(code), file=sys.stderr)
    _on(signal.SIGTERM, signal.SIG_DFL)
    _on(signal.SIGINT, before)
    _close(code)


def _run() -> int:
    """The exit code of the command line; what there is to say of an error has been said."""
    try:
        code = _completion() if sys.argv[1:2] in (["--show-completion"], ["--install-completion"]) else _call()
        sys.stdout.flush()
        if code == INTERRUPTED:  # Typer makes a code of Ctrl-C
            raise KeyboardInterrupt
        return int(code)
    except typer.Abort:
        raise KeyboardInterrupt from None
    except typer.TyperException as error:  # a wrong flag, a missing argument
        return _usage(error)
    except Exception as error:
        _on(signal.SIGTERM, signal.SIG_IGN)  # torchrun sends it to those that are left; what is said next says more
        known = translate(error)
        if known is None:
            traceback.print_exc()
            print("headtool: error: this is a bug in headtool; please report it with the lines above", file=sys.stderr)
            return FAILED
        if str(known):
            _say(str(known), known.hint)
        return known.code


def _call() -> Any:
    return _application()(standalone_mode=False) or 0


def _completion() -> Any:
    """Typer's script for the shell that this is, with what it lacks, printed or put in its place."""
    from headtool.completion import PLACES, mend, mended

    said, wrong = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(wrong):
            code = _call()
    except SystemExit as left:  # Typer leaves by itself
        code = left.code or 0
    if "not supported" in said.getvalue() + wrong.getvalue():
        hint = f"call it from one of {', '.join(PLACES)}"
        raise HeadtoolError(f"{sys.argv[1]}: there is no completion for this shell", hint=hint)
    if sys.argv[1] == "--install-completion":
        mend()
    script = said.getvalue()
    print(mended("zsh" if "#compdef" in script else "bash" if "COMPREPLY" in script else "", script), end="")
    print(wrong.getvalue(), end="", file=sys.stderr)
    return code


def _on(number: signal.Signals, do: Any) -> None:
    with contextlib.suppress(ValueError):  # not in the main thread, where nobody would hear it
        signal.signal(number, do)


def _stop(number: int, frame: FrameType | None) -> None:
    """SIGTERM, as batch systems and torchrun send it, leaves like Ctrl-C does: by an exception.

    Within an import it leaves at once: compiled modules that call Python while they are set up abort the process (torch)
    or go on without what they asked for, when an exception comes out. No part of a run is being written there.
    """
    code = TERMINATED if number == signal.SIGTERM else INTERRUPTED
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            with contextlib.suppress(OSError, ValueError):
                tidy = (
                    "\r\x1b[2K\x1b[?25h" if sys.stderr.isatty() else ""
                )  # a line that says what is waited for, the cursor
                os.write(sys.stderr.fileno(), f"{tidy}{_stopped(code)}\n".encode())  # print may be at work further out
            os._exit(code)
        frame = frame.f_back
    raise Terminated if code == TERMINATED else KeyboardInterrupt


def _stopped(code: int) -> str:
    how = "interrupted" if code == INTERRUPTED else "terminated"
    command = next(iter(sys.argv[1:]), "")
    if command not in GOES_ON or {"--help", "-h", "--dry-run"} & set(sys.argv):
        return f"headtool: {how}"
    trains = command in ("finetune", "causal-train")
    where = "its last checkpoint, where it has one" if trains else "what it has finished"
    same = "the same command without --force" if "--force" in sys.argv else "the same command"
    return f"headtool: {how}; {same} goes on from {where}"


def _settle_streams() -> None:
    """A stream that was closed before the start (>&-) would be None here, and print would take the other."""
    for name, stream in (("stdout", sys.stdout), ("stderr", sys.stderr)):
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for as long as we live


PYDANTIC = {  # words of the library that reads Typer's values
    "Value error, ": "", "Input should be greater than or equal to ": "not a number from ",
    "Input should be less than or equal to ": "above ",
    "Input should be a valid number, unable to parse string as a number": "no number",
    "Input should be a valid integer, unable to parse string as an integer": "no whole number",
}  # fmt: skip


def _usage(error: typer.TyperException) -> int:
    message = error.format_message().strip()
    for words, better in PYDANTIC.items():
        message = message.replace(words, better)
    if not message:  # no_args_is_help: the help has been asked for by giving nothing
        print("headtool: error: give a command\n  hint: 'headtool --help' shows what there is", file=sys.stderr)
        return IMPOSSIBLE
    # Typer's words for near misses: "... Did you mean 'a'?" and "... (Possible options: --a, --b)"
    first, *near = re.split(r" Did you mean | \(Possible options: ", message, maxsplit=1)
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "headtool"
    nearest = _nearest(first, near[0].rstrip(")?")) if near else ""
    hint = f"did you mean {nearest}?" if nearest else f"'{path} --help' shows what there is"
    _say(first[0].lower() + first[1:].rstrip("."), hint)
    return int(error.exit_code)


def _nearest(message: str, names: str) -> str:
    """Names that Typer found near to the last word of its message: the nearest first, and not those far behind it, nor any
    that only look alike by their dashes.
    """
    wrong = message.split()[-1]
    likeness = {
        name: difflib.SequenceMatcher(None, wrong.strip("'-"), name.strip("'-")).ratio() for name in names.split(", ")
    }
    best = max(NEAR, *likeness.values())
    return " or ".join(sorted((n for n in likeness if likeness[n] > max(NEAR, best - 0.1)), key=lambda n: -likeness[n]))


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
        code = code or UNHEARD
    sys.exit(code)
