"""Where words go: the result to stdout, everything else to stderr, each in a form that suits its reader."""

from __future__ import annotations

import contextlib
import datetime
import io
import json as jsonlib
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TextIO

from headtool.redact import redacted

NAME = 10  # columns of a name
WIDE = 1000  # columns: nothing wraps
called_from_python: ContextVar[bool] = ContextVar("called_from_python", default=False)
PLAIN_EVERY = 10.0  # seconds between two progress lines when stderr is no terminal


@dataclass
class Console:
    """The voice of one command. quiet leaves warnings and errors; json puts one JSON object on stdout."""

    quiet: bool = False
    verbose: bool = False
    json: bool = False
    silent: bool = False  # ranks above 0 say nothing but errors
    log: Path | None = None  # run.log, once there is a run directory
    warnings: list[str] = field(default_factory=list)
    _early: list[str] = field(default_factory=list)  # lines of run.log from before it was there

    @property
    def talks(self) -> bool:
        return not (self.quiet or self.json or self.silent)

    @property
    def width(self) -> int:
        """Columns on stderr: those of the terminal, or 100."""
        return shutil.get_terminal_size((100, 24)).columns if sys.stderr.isatty() else 100

    def note(self, text: str) -> None:
        """Something worth knowing."""
        text = redacted(text)
        self._record(text)
        if self.talks:
            self._print(f"headtool: {text}")

    def detail(self, text: str) -> None:
        """Something worth knowing under -v."""
        text = redacted(text)
        self._record(text)
        if self.verbose and self.talks:
            self._print(f"headtool: {text}")

    def warn(self, text: str) -> None:
        """Something that changes how the result must be read; it is kept in the manifest as well."""
        text = redacted(text)
        self.warnings.append(text)
        self._record(f"warning: {text}")
        if not self.silent:
            self._print(f"headtool: warning: {text}")

    def _print(self, line: str) -> None:
        print(_fill(line, self.width) if sys.stderr.isatty() else line, file=sys.stderr)

    def result(self, line: str, fields: dict[str, Any]) -> None:
        """The result of a command, on stdout: one line, or with --json one object. To Python it is returned instead."""
        if self.silent or (called_from_python.get() and not self.json):
            return
        print(jsonlib.dumps(fields, allow_nan=False) if self.json else line, flush=True)

    def plan(self, lines: Sequence[tuple[str, str]], fields: dict[str, Any]) -> None:
        """What a command would do, on stdout: name and value, with a tab between them for a pipe, or one JSON object."""
        wide = max(len(name) for name, _ in lines) + 2
        aligned = not self.json and sys.stdout.isatty()
        self.result(
            "\n".join(f"{name:{wide}}{value}" if aligned else f"{name}\t{value}" for name, value in lines), fields
        )

    def table(self, titles: Sequence[str], rows: Sequence[Sequence[str]], fields: dict[str, Any]) -> None:
        """The result of a command that shows a table, on stdout: for a terminal, as TSV for a pipe, or one JSON object.

        On a terminal a last column of hints stands below the line that it is about.
        """
        if self.silent:
            return
        if self.json or not sys.stdout.isatty():
            lines = ["\t".join(" ".join(str(cell).split()) for cell in row) for row in (titles, *rows)]
            self.result("\n".join(lines), fields)
            return
        from rich.console import Console as Rich
        from rich.table import Table
        from rich.text import Text

        hints = titles[-1] == "hint"
        shown = Table(box=None, header_style="bold")
        for i, title in enumerate(titles[:-1] if hints else titles):
            shown.add_column(title, no_wrap=i == 0, overflow="fold")
        for row in rows:
            cells = [Text(cell) for cell in row]
            if hints and (hint := cells.pop()):
                cells[-1].append("\n").append("hint: ", style="bold").append(hint)
            shown.add_row(*cells)
        Rich(highlight=False).print(shown)

    def say(self, text: str) -> None:
        """Plain text on stderr, for the reader; on a terminal lines go on below their names."""
        if self.talks:
            lines = (
                (_fill(line, self.width) for line in text.splitlines()) if sys.stderr.isatty() else text.splitlines()
            )
            print("\n".join(lines), file=sys.stderr)

    def show(self, *renderables: Any) -> None:
        """Rich tables and texts on stderr: for the reader, not for a program."""
        if not self.talks:
            return
        from rich.console import Console as Rich

        Rich(file=sys.stderr, width=self.width, highlight=False).print(*renderables, crop=False)

    @contextlib.contextmanager
    def progress(
        self, what: str, total: int, done: int = 0, unit: Literal["", "bytes"] = ""
    ) -> Iterator[Callable[[int], None]]:
        """A function to call with the units just done: a bar on a terminal, a line now and then elsewhere."""
        if not self.talks or total == 0:
            yield lambda units: None
        elif sys.stderr.isatty():
            from rich.console import Console as Rich
            from rich.progress import (
                BarColumn,
                DownloadColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeElapsedColumn,
                TimeRemainingColumn,
            )

            count = DownloadColumn() if unit == "bytes" else MofNCompleteColumn()
            columns = (TextColumn(what), BarColumn(), count, TimeElapsedColumn(), TimeRemainingColumn())
            with Progress(*columns, console=Rich(file=sys.stderr), transient=True) as bar:
                task = bar.add_task(what, total=total, completed=done)
                yield lambda units: bar.advance(task, units)
        else:
            yield _plain_progress(what, total, done, unit, sys.stderr)

    @contextlib.contextmanager
    def importing(self) -> Iterator[None]:
        """On a terminal, that torch and transformers are waited for, for as long as they take."""
        if not self.talks or not sys.stderr.isatty():
            yield
            return
        from rich.console import Console as Rich

        with Rich(file=sys.stderr).status("importing torch and transformers"):
            yield

    def _record(self, text: str) -> None:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self._early.append(f"{now} {text}\n")
        if self.log is not None:
            with self.log.open("a", encoding="utf-8") as file:
                file.writelines(self._early)
            self._early.clear()


@dataclass(frozen=True)
class Aligned:
    """Lines of a name, up to column 10, and what there is to say of it, which goes on below itself where a terminal ends."""

    lines: Sequence[str]

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        from rich.text import Text

        text = "\n".join(_fill(line, options.max_width) for line in self.lines)
        yield Text(text, no_wrap=True, overflow="ignore")  # a path that is too long for a line stays one word


@dataclass(frozen=True)
class Fitted:
    """A table of as many columns as a terminal has room for, none of them cut, and below it the names of the others.

    The first `left` columns are aligned to the left, numbers to the right.
    """

    titles: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1
    gap: int = 2  # between two columns

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        from rich.table import Table
        from rich.text import Text

        widths = [self.gap + max(map(len, column)) for column in zip(self.titles, *self.rows, strict=True)]
        fit = max(1, sum(1 for i in range(len(widths)) if sum(widths[: i + 1]) <= options.max_width))
        shown = Table(box=None, header_style="bold", padding=(0, self.gap - 1, 0, 1))
        for i, title in enumerate(self.titles[:fit]):
            shown.add_column(title, justify="left" if i < self.left else "right", no_wrap=True)
        for cells in self.rows:
            shown.add_row(*(Text(cell) for cell in cells[:fit]))
        yield shown
        if fit < len(self.titles):
            told = f" no room  for {', '.join(self.titles[fit:])}: in a wider terminal, in summary.txt, in the tables"
            yield from Aligned([told]).__rich_console__(console, options)


def _fill(line: str, width: int) -> str:
    return (
        line
        if len(line) <= width
        else textwrap.fill(line, width, subsequent_indent=" " * NAME, break_long_words=False, break_on_hyphens=False)
    )


def plain(*renderables: Any) -> str:
    """Rich tables and texts as plain text, as wide as they are."""
    from rich.console import Console as Rich

    out = io.StringIO()
    Rich(
        file=out, width=WIDE, height=25, color_system=None, highlight=False, force_terminal=False, force_jupyter=False
    ).print(*renderables)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def _plain_progress(what: str, total: int, done: int, unit: str, out: TextIO) -> Callable[[int], None]:
    start = said = time.monotonic()
    first = done

    def advance(units: int) -> None:
        nonlocal done, said
        done += units
        now = time.monotonic()
        if now - said >= PLAIN_EVERY:
            said = now
            left = (now - start) / max(done - first, 1) * (total - done)
            so_far = f"{done / 1e6:,.0f}/{total / 1e6:,.0f} MB" if unit == "bytes" else f"{done}/{total}"
            print(f"headtool: {what} {so_far}, about {left:.0f} s left", file=out, flush=True)

    return advance
