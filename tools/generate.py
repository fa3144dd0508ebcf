"""Write the files that are made from the code: python tools/generate.py [--check]

completions/, docs/cli.md, docs/tables.md, docs/families.md, docs/errors.md and the tables of the README. A test says they are current.
"""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
import typing
from pathlib import Path

from headtool import folder
from headtool.cli import COMMANDS, module_of
from headtool.completion import mended
from headtool.functions import doc
from headtool.models import layout
from headtool.record import tables

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests"))  # the cases of docs/errors.md
SHELLS = {"bash": "completions/headtool.bash", "zsh": "completions/_headtool", "fish": "completions/headtool.fish"}
MADE = "<!-- made by tools/generate.py -->\n"


def files() -> dict[str, str]:
    """Every generated file, by its path from the root."""
    made = {path: completion(shell) for shell, path in SHELLS.items()}
    made |= {"docs/cli.md": cli(), "docs/tables.md": table_page(), "docs/families.md": families_page()}
    made["docs/errors.md"] = errors_page()
    made["README.md"] = readme((ROOT / "README.md").read_text(encoding="utf-8"))
    return made


def completion(shell: str) -> str:
    """The script that the shell sources; it asks headtool itself for the words."""
    code = "import sys; sys.argv = ['headtool']; from headtool.cli import main; main()"
    env = os.environ | {"_HEADTOOL_COMPLETE": f"source_{shell}"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    return mended(shell, done.stdout)


def commands() -> dict[str, typing.Any]:
    return {name: folder.importlib.import_module(module_of(name)).command for name in COMMANDS}


def cli() -> str:
    """One section a command: what it says of itself, then its flags."""
    lines = [
        MADE,
        "# The command line\n",
        "Order of truth: flag > `HEADTOOL_*` variable > `--config FILE` > default.\n",
    ]
    lines += ["Exit codes: 0 done (also: already done), 1 it failed, 2 asked for something impossible, 130 Ctrl-C.\n"]
    lines += [
        "`headtool --version`, `headtool --install-completion`, `headtool --show-completion`; `-h` or `--help` after any command.\n"
    ]
    for name, command in commands().items():
        first, _, more = doc(command).partition("\n")
        lines += [f"## headtool {name}\n", first + "\n", "```", more.strip().split("\n\n")[0], "```\n"]
        lines += [*more.strip().split("\n\n")[1:], "", "| flag | default | meaning |", "|---|---|---|"]
        for parameter in inspect.signature(command, eval_str=True).parameters.values():
            kind, option = typing.get_args(parameter.annotation)[:2]
            option = next(a for a in typing.get_args(parameter.annotation)[1:] if hasattr(a, "help"))
            declared = [d for d in (option.default, *(option.param_decls or ())) if isinstance(d, str)]
            flags = ", ".join(declared) or parameter.name.upper()
            flags += f" {option.metavar}" if declared and option.metavar else ""
            default = "" if parameter.default in (inspect.Parameter.empty, None, False) else f"`{parameter.default}`"
            choices = typing.get_args(kind) if typing.get_origin(kind) is typing.Literal else ()
            meaning = (option.help or "") + (f" One of {', '.join(choices)}." if choices else "")
            lines.append(f"| `{_bars(flags)}` | {default} | {_bars(meaning)} |")
        lines.append("")
    return "\n".join(lines)


def table_page() -> str:
    lines = [MADE, "# Tables\n"]
    lines.append(
        "Parquet and CSV (`--jsonl` adds JSON Lines) under `tables/` of a run. Layers and heads count from 0; missing is null.\n"
    )
    for table in tables.TABLES.values():
        lines += [f"## {table.name}\n", f"{table.doc} Version {table.version}; key: {', '.join(table.key)}.\n"]
        lines += ["| column | type | unit | meaning |", "|---|---|---|---|"]
        lines += [f"| `{c.name}` | {c.kind} | {c.unit} | {_bars(c.doc)} |" for c in table.columns]
        lines.append("")
    lines += ["## Scores\n", "`{score}` stands for one of:\n", "| score | unit | meaning |", "|---|---|---|"]
    lines += [f"| `{name}` | {score.unit} | {_bars(score.doc)} |" for name, score in tables.SCORES.items()]
    return "\n".join(lines) + "\n"


def _bars(text: str) -> str:
    """Text in a cell of a table, whose bars are no borders of cells."""
    return text.replace("|", "\\|")


def family_rows() -> list[str]:
    """One row a file: the model types it answers to, and what its first line says."""
    by_module: dict[str, list[str]] = {}
    for name, module in folder.modules(layout.ARCHITECTURES).items():
        by_module.setdefault(module, []).append(name)
    rows = ["| model_type | what is special | its attention |", "|---|---|---|"]
    for module, names in by_module.items():
        loaded = folder.importlib.import_module(module)
        own = "" if loaded.LAYOUT.interface else "its own code"
        said = (loaded.__doc__ or "").strip().rstrip(".").partition(": ")[2]
        rows.append(f"| {', '.join(f'`{n}`' for n in names)} | {said} | {own or 'the common interface'} |")
    return rows


def families_page() -> str:
    refused = [f"| `{name}` | {why} |" for name, why in layout.REFUSED.items()]
    return "\n".join(
        [
            MADE,
            "# Model families\n",
            "What a family is called is its `config.model_type`. Causal LM, masked LM, sequence classification and headless",
            "models are read alike. Every model is checked on a few tokens when it is opened (docs/methods.md).\n",
            *family_rows(),
            "\n## Refused\n",
            "| model_type | why |",
            "|---|---|",
            *refused,
            "\nAnother type that is laid out like a known one can be read with `--family NAME`; the check at opening decides.\n",
        ]
    )


def errors_page() -> str:
    """One table a command: what was asked, what is said, the exit code."""
    from bad_input import cases

    found = cases()
    lines = [
        MADE,
        "# Errors\n",
        f"What headtool refuses: {sum(map(len, found.values()))} calls, each of which a test makes. The line is on stderr, after",
        "`headtool: error: `, with a hint below; `...` is another library's. Exit code 2: what was asked for cannot be, and nothing",
        "is left behind; 1: it failed, and the same call may go on where it stopped. Interrupted runs leave with 130 (Ctrl-C) or 143",
        "(SIGTERM), and with 141 where nobody reads stdout any more (`| head`). `--debug` shows the traceback.\n",
    ]
    for name, group in found.items():
        command = name.replace("_", "-")
        lines += [f"## {'Every command' if command == 'shell' else f'headtool {command}'}\n"]
        lines += ["| `headtool` ... | where | line | code |", "|---|---|---|---|"]
        lines += [
            f"| {_code(case.command)} | {_text(case.given)} | {_text(case.line)} | {case.code} |" for case in group
        ]
        lines.append("")
    return "\n".join(lines)


def _text(text: str) -> str:
    """A cell of a Markdown table."""
    return re.sub(r"([|<*_`\[\]])", r"\\\1", _short(text))


def _code(text: str) -> str:
    """The same, as code."""
    return "`" + _short(text).replace("|", r"\|") + "`"


def _short(text: str) -> str:
    """Without what is repeated for its length alone, and with its bytes that are no text spelt out."""
    text = text.encode("utf-8", "backslashreplace").decode()
    return re.sub(r"(.{1,8}?)\1{40,}", r"\1\1\1...", text)


def readme(text: str) -> str:
    """The README with its tables between the marks made anew."""
    command_rows = ["| command | what it does |", "|---|---|"]
    for name, command in commands().items():
        command_rows.append(f"| [`headtool {name}`](docs/{name}.md) | {doc(command).partition(chr(10))[0]} |")
    by_kind: dict[str, list[str]] = {"decoders": [], "encoders": []}
    for name in layout.families():
        by_kind["decoders" if layout.find(name).causal else "encoders"].append(f"`{name}`")
    family_rows = [
        "| | `model_type` |",
        "|---|---|",
        *(f"| {kind} | {', '.join(names)} |" for kind, names in by_kind.items()),
    ]
    for mark, rows in {"commands": command_rows, "families": family_rows}.items():
        begin, end = f"<!-- {mark} -->\n", f"<!-- /{mark} -->"
        head, _, rest = text.partition(begin)
        _, _, tail = rest.partition(end)
        text = head + begin + "\n".join(rows) + "\n" + end + tail
    return text


def main() -> None:
    for file, text in files().items():
        (ROOT / file).parent.mkdir(exist_ok=True)
        (ROOT / file).write_text(text, encoding="utf-8", newline="\n")
        print(file)


if __name__ == "__main__":
    main()
