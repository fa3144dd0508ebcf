"""Every flag that commands share, once, as an Annotated alias. A command's signature is its configuration.

Order of truth: flag > HEADTOOL_* variable > --config FILE > default.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from headtool import completion, configuration
from headtool.errors import HeadtoolError

SEEDS = 2**63 - 1  # the largest that every generator takes
MOST = 10**12  # of whatever is counted: more is a slip, and larger than what some libraries take
THREADS = 1024  # more of them end a process before it has begun
MANY = 1 << 20  # numbers that a range may hold
GROUP_DATA, GROUP_RUN, GROUP_TALK, GROUP_MODEL = "Data", "Run", "Output", "Model"


def flag(*names: str, help: str, group: str = "Options", **more: Any) -> Any:
    """An option with its HEADTOOL_* variable, named after the long flag."""
    long = next(name for name in names if name.startswith("--")).split("/")[0]
    variable = "HEADTOOL_" + long.removeprefix("--").replace("-", "_").upper()
    if "min" in more:
        more.setdefault("max", MOST)
        more.setdefault("metavar", "N")
    return typer.Option(*names, help=help, envvar=variable, show_envvar=False, rich_help_panel=group, **more)


# -- numbers ------------------------------------------------------------------------------------------------------------


def number_or(word: str, text: str, what: str) -> int | None:
    """A positive number, or None for the word."""
    if text == word:
        return None
    if not re.fullmatch(r"[0-9]{1,18}", text) or int(text) < 1:
        raise HeadtoolError(f"{what} {text}: neither '{word}' nor a number from 1", hint=f"for example {what} 32")
    return int(text)


def numbers(text: str, what: str) -> list[int]:
    """A list of whole numbers from 0, with ranges, such as 0,3,6-9: ascending, each once. Raises HeadtoolError."""
    if not text.strip():
        raise HeadtoolError(f"{what} is empty", hint=f"for example {what} 0,3,6-9")
    found: set[int] = set()
    for word in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,9})(?:-([0-9]{1,9}))?\s*", word)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not first <= last <= first + MANY:
            hint = f"numbers and ranges, for example {what} 0,3,6-9"
            raise HeadtoolError(f"{what} {text}: '{word}' is neither a number nor a range", hint=hint)
        found.update(range(first, last + 1))
    return sorted(found)


TOP = 20  # heads that count as the top, where nobody says how many


def top(given: int | None, heads: int) -> int:
    """How many heads count as the top: as given, or 20, of a model with fewer than 80 heads a quarter.

    Raises HeadtoolError for more than there are.
    """
    if given is not None and given > heads:
        hint = f"for example --top-k {top(None, heads)}"
        raise HeadtoolError(f"--top-k {given}: the model has {heads} heads", hint=hint)
    return given or min(TOP, max(1, heads // 4))


def memory(text: str) -> int | None:
    """A size in bytes from words like 800MB or 2GB (powers of 1000), or None for auto."""
    return None if text == "auto" else size(text, f"--memory {text}: neither 'auto' nor a size", "--memory 2GB")


def size(text: str, wrong: str, example: str) -> int:
    """A size in bytes. Raises HeadtoolError with these words where it is none."""
    match = re.fullmatch(r"([0-9]{1,18}(?:\.[0-9]{1,18})?) ?([kMGT]?)B?", text, re.IGNORECASE)
    if not match or float(match[1]) <= 0:
        raise HeadtoolError(wrong, hint=f"for example {example}")
    return int(float(match[1]) * 1000 ** " kMGT".lower().index(match[2].lower() or " "))


def spread(device_map: str, max_memory: str | None, device: str) -> dict[int | str, int] | None:
    """What each device may hold of a model that is spread, in bytes (empty: all it has); None where it is not spread.

    Raises HeadtoolError where --max-memory is no list of devices and sizes, or comes without --device-map auto.
    """
    if device_map == "none":
        if max_memory is not None:
            raise HeadtoolError("--max-memory without --device-map auto", hint="add --device-map auto")
        return None
    if device != "auto":
        raise HeadtoolError(f"--device {device} and --device-map auto contradict each other", hint="give one of them")
    found: dict[int | str, int] = {}
    for each in (max_memory or "").split(",") if max_memory is not None else []:
        name, _, held = each.strip().partition("=")
        wrong, example = f"--max-memory {each}: not of the form DEVICE=SIZE", "--max-memory 0=20GB,cpu=60GB"
        if not re.fullmatch(r"cpu|[0-9]{1,3}", name):
            raise HeadtoolError(wrong, hint=f"for example {example}")
        device_of: int | str = name if name == "cpu" else int(name)
        if device_of in found:
            raise HeadtoolError(f"--max-memory {max_memory}: {name} is given twice", hint=f"for example {example}")
        found[device_of] = size(held, wrong, example)
    return found


def default(command: Callable[..., Any], name: str) -> Any:
    """The default of a command's argument."""
    return inspect.signature(command).parameters[name].default


def idle(command: Callable[..., Any], given: Mapping[str, Any], names: Sequence[str], why: str, hint: str) -> None:
    """Raise HeadtoolError where one of the named arguments of a command is not its default: nothing would come of it."""
    for name in names:
        if given[name] not in (default(command, name), [], ()):
            raise HeadtoolError(f"--{name.replace('_', '-')} {why}", hint=hint)


def within(command: Callable[..., Any], bounds: Sequence[tuple[str, Any, bool, str]]) -> None:
    """Raise HeadtoolError for the first flag that is out of bounds: each has its value, whether it is good, and what it
    should be.
    """
    for flag, value, good, wanted in bounds:
        if not good:
            example = default(command, flag.removeprefix("--").replace("-", "_"))
            raise HeadtoolError(f"{flag} {value}: not {wanted}", hint=f"for example {flag} {example}")


def harmless(command: Callable[..., Any], given: Mapping[str, Any], names: Sequence[str], why: str) -> list[str]:
    """The same as notes, where what is idle says how much is done, and a preset may well hold it."""
    return [f"--{name.replace('_', '-')} {why}" for name in names if given[name] != default(command, name)]


def folders(*given: Any) -> list[str]:
    """What to say of data that is a folder, before it is looked through: that takes long where much is in it."""
    there = [str(each) for each in given if each is not None and os.path.isdir(str(each).partition(":")[0])]
    return [f"{each}: the datasets library looks through this folder, minutes where it is large" for each in there]


def place(given: Any) -> Path:
    """The path that --out names. Raises HeadtoolError for an empty one, which would be the current folder, and for what a
    configuration file may hold beside texts and numbers.
    """
    if isinstance(given, bool) or not isinstance(given, str | int | float):
        raise HeadtoolError("--out is no path", hint="name a folder, or leave --out away")
    if not str(given).strip():
        raise HeadtoolError("--out is empty", hint="name a folder, or leave --out away")
    return Path(str(given))


def named(**given: str | None) -> None:
    """Raise HeadtoolError for a flag whose value is empty, as that of an unset variable is."""
    for name, text in given.items():
        if text is not None and not text.strip():
            raise HeadtoolError(f"--{name.replace('_', '-')} is empty", hint="leave it away, or give it a value")


def globs(given: str | None) -> tuple[str, ...]:
    """The patterns of a comma-separated list."""
    return tuple(glob.strip() for glob in (given or "").split(",") if glob.strip())


# -- the flags ------------------------------------------------------------------------------------------------------

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A hub id (id@revision), a folder, 'demo' or 'demo-encoder'.",
        autocompletion=completion.complete_models,
        show_default=False,
    ),
]
Decoder = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A hub id (id@revision), a folder or 'demo': a decoder.",
        autocompletion=completion.complete_decoders,
        show_default=False,
    ),
]
Family = Annotated[
    str | None,
    flag(
        "--family",
        help="Read the model by this family's layout; the checks at opening still hold.",
        group=GROUP_MODEL,
        autocompletion=completion.complete_families,
    ),
]
Device = Annotated[str, flag("--device", help="auto, cpu, cuda, cuda:1, mps.", group=GROUP_MODEL)]
DeviceMap = Annotated[
    Literal["none", "auto"],
    flag(
        "--device-map",
        help="auto: spread the model's layers over the GPUs, then memory, then disk.",
        group=GROUP_MODEL,
    ),
]
MaxMemory = Annotated[
    str | None,
    flag(
        "--max-memory",
        metavar="DEVICE=SIZE,..",
        help="--device-map: what each may hold, such as 0=20GB,cpu=60GB; the rest goes to disk.",
        group=GROUP_MODEL,
    ),
]
Dtype = Annotated[
    Literal["auto", "fp32", "bf16", "fp16", "fp64"],
    flag("--dtype", help="auto: fp32 on a CPU; bf16, else fp16, else fp32 on a GPU.", group=GROUP_MODEL),
]
Threads = Annotated[
    int,
    flag(
        "--threads",
        min=0,
        max=THREADS,
        help="CPU threads; 0: the cores it may use, one for a tiny model.",
        group=GROUP_MODEL,
    ),
]

Data = Annotated[
    str | None,
    flag(
        "--data",
        metavar="DATA",
        help="A .json, .jsonl, .parquet, .csv or .txt file, or a hub data set ID[:CONFIG][:SPLIT].",
        group=GROUP_DATA,
    ),
]
Task = Annotated[
    str | None,
    flag(
        "--task",
        help="A built-in task, or how to read the rows of --data (default: by their fields).",
        group=GROUP_DATA,
        autocompletion=completion.complete_tasks,
    ),
]
Field = Annotated[
    list[str] | None,
    flag(
        "--field",
        metavar="NAME=PATH",
        help="Where a field stands in a row, dotted: --field question=query.text. Repeatable.",
        group=GROUP_DATA,
    ),
]
QuestionMarker = Annotated[
    str | None, flag("--question-marker", help="The text after which the question begins.", group=GROUP_DATA)
]
ChoicesMarker = Annotated[
    str | None, flag("--choices-marker", help="The text at which the question ends.", group=GROUP_DATA)
]
Limit = Annotated[int | None, flag("--limit", min=1, help="Read the first N rows only.", group=GROUP_DATA)]
Subset = Annotated[
    str, flag("--subset", metavar="N|all", help="A seeded sample of N of the rows read.", group=GROUP_DATA)
]
SubsetSeed = Annotated[int, flag("--subset-seed", min=0, max=SEEDS, help="Seed of that sample.", group=GROUP_DATA)]
BatchSize = Annotated[str, flag("--batch-size", metavar="N|auto", help="Sequences a batch.", group=GROUP_DATA)]
MaxLength = Annotated[int, flag("--max-length", min=2, help="Tokens a sequence, at most.", group=GROUP_DATA)]
Seed = Annotated[int, flag("--seed", min=0, max=SEEDS, help="Seed of everything random.", group=GROUP_DATA)]

TopK = Annotated[
    int | None,
    flag(
        "--top-k",
        min=1,
        help="Heads that count as the top; default 20, of a model with fewer than 80 a quarter.",
        group=GROUP_TALK,
    ),
]
Out = Annotated[
    Path | None,
    flag(
        "--out",
        metavar="DIR",
        help="The run directory; default runs/COMMAND-MODEL-HASH.",
        group=GROUP_RUN,
        parser=place,
    ),
]
Force = Annotated[bool, flag("--force", help="Start over, whatever the run directory holds.", group=GROUP_RUN)]
Shard = Annotated[
    str | None,
    flag(
        "--shard",
        metavar="I/N",
        help="Do the I-th of N shares of the work (I from 1); all shares take the same --out.",
        group=GROUP_RUN,
    ),
]
DryRun = Annotated[bool, flag("--dry-run", help="Print the plan and stop.", group=GROUP_RUN)]
Config = Annotated[
    Path | None,
    flag(
        "--config",
        metavar="FILE",
        help="TOML or YAML with the same names as the flags.",
        group=GROUP_RUN,
        is_eager=True,
        callback=configuration.read,
    ),
]

Json = Annotated[bool, flag("--json", help="Print the result as one JSON object.", group=GROUP_TALK)]
JsonLines = Annotated[bool, flag("--jsonl", help="Write the tables as JSON Lines too.", group=GROUP_TALK)]
Quiet = Annotated[bool, flag("--quiet", "-q", help="Only the result, warnings and errors.", group=GROUP_TALK)]
Verbose = Annotated[bool, flag("--verbose", "-v", help="More notes.", group=GROUP_TALK)]
Debug = Annotated[bool, flag("--debug", help="A traceback with every error.", group=GROUP_TALK)]
