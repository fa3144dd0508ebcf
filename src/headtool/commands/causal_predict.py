"""headtool causal-predict: what a causal language model says after a text, numbers with their intervals."""

from __future__ import annotations

import json as jsonlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from headtool import completion
from headtool import options as opt
from headtool.console import Console
from headtool.errors import HeadtoolError

if TYPE_CHECKING:
    import polars as pl

    from headtool.causal.settings import Asked

GROUP = "Inference"
Where = Annotated[
    Path,
    typer.Argument(
        metavar="RUN_OR_MODEL_DIR",
        help="A run of headtool causal-train, or its folder 'model'.",
        autocompletion=completion.complete_causal,
        show_default=False,
    ),
]
Texts = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[TEXT...]", help="Texts to go on from; without any, the lines of stdin.", show_default=False
    ),
]
ModeName = Annotated[
    Literal["standard", "causal", "compatible"],
    opt.flag("--mode", help="The most likely; one individual drawn and acted on; a softmax sampled.", group=GROUP),
]
Interval = Annotated[float, opt.flag("--interval", help="Level of the central interval of a number.", group=GROUP)]
Number = Annotated[
    bool,
    opt.flag("--number", help="Give the number after the text, whatever token is the most likely.", group=GROUP),
]
NewTokens = Annotated[int, opt.flag("--new-tokens", min=1, help="Tokens to go on for, at most.", group=GROUP)]
SharedName = Annotated[
    Literal["none", "individual", "noise"],
    opt.flag("--shared", help="Mode causal: draw this once for all positions of a text.", group=GROUP),
]
Temperature = Annotated[float, opt.flag("--temperature", help="Mode compatible: of the softmax.", group=GROUP)]
TopTokens = Annotated[int, opt.flag("--top-k", min=1, help="Mode compatible: tokens to sample from.", group=GROUP)]
TopP = Annotated[float, opt.flag("--top-p", help="Mode compatible: their share of the probability.", group=GROUP)]
Seed = Annotated[int, opt.flag("--seed", min=0, max=opt.SEEDS, help="Seed of the draws, for each text.", group=GROUP)]
JsonObjects = Annotated[bool, opt.flag("--json", help="Print a JSON object a text, one a line.", group=opt.GROUP_TALK)]


def command(
    run: Where,
    text: Texts = None,
    mode: ModeName = "standard",
    interval: Interval = 0.95,
    number: Number = False,
    new_tokens: NewTokens = 1,
    shared: SharedName = "none",
    temperature: Temperature = 1.0,
    top_k: TopTokens = 50,
    top_p: TopP = 0.9,
    seed: Seed = 42,
    device: opt.Device = "auto",
    threads: opt.Threads = 0,
    config: opt.Config = None,
    json: JsonObjects = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
    debug: opt.Debug = False,
) -> Any:
    """Say what a causal language model goes on with, and its numbers with their intervals.

    [bold]headtool causal-predict $(headtool causal-train demo --task copying --lr 3e-3 --gamma0 1 -q) --number "Say 7 again:"[/]
    [bold]echo "Say 7:" | headtool causal-predict $(headtool causal-train demo --task copying --lr 3e-3 --gamma0 1 -q) --json[/]

    Prints a table, tab-separated when piped: text, step, token, p, p_number, and of a number its value, low and high.
    With --json one object a line. From Python it returns the table, a Polars frame.
    """
    from headtool.causal.place import model_folder
    from headtool.causal.settings import Asked

    console = Console(quiet=quiet, verbose=verbose, json=json)
    ask = Asked(mode, interval, new_tokens, number, shared, temperature, top_k, top_p, seed)
    _check(ask)
    found = model_folder(Path(run))
    texts = text or _stdin()
    if not any(each.strip() for each in texts):
        raise HeadtoolError("there is no text", hint="give texts as arguments, or one a line on stdin")
    for each in texts:
        try:
            each.encode()
        except UnicodeEncodeError as error:
            raise HeadtoolError(f"{each[:60]!r}: the text is not valid Unicode", hint="convert it to UTF-8") from error
    with console.importing():
        from headtool.causal import folder
        from headtool.causal.rows import SEPARATOR
        from headtool.models.devices import pick_double
        from headtool.models.locate import locate

    model, tokens = folder.open_causal(locate(str(found)), device=str(pick_double(device)), threads=threads)
    if model.settings.plain:
        raise HeadtoolError(f"{found}: the plain baseline has no distribution", hint="give a model of causal-train")
    longest = getattr(model.backbone.config, "max_position_embeddings", None) or 10**9
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for each in texts:
        said, whole = _one(
            model, tokens, each + SEPARATOR if number and each[-1:] not in ("", " ") else each, ask, longest
        )
        console.detail(f"{each!r} + {whole!r}")
        for step, (word, told) in enumerate(said):
            row = (each, step, word, told.p, told.p_number, told.value, told.low, told.high)
            for name, value in zip(COLUMNS, row, strict=True):
                columns[name].append(value)
    frame = _tell(columns, console)
    if not number and frame["value"].null_count() == frame.height:
        console.note("no number came: --number asks for the one after each text, --new-tokens N for more tokens")
    return frame


COLUMNS = ("text", "step", "token", "p", "p_number", "value", "low", "high")


def _check(ask: Asked) -> None:
    bounds = (
        ("--interval", ask.interval, 0 < ask.interval < 1, "a level between 0 and 1"),
        ("--temperature", ask.temperature, 0 < ask.temperature < float("inf"), "a number above 0"),
        ("--top-p", ask.top_p, 0 < ask.top_p <= 1, "a share above 0, at most 1"),
    )
    opt.within(command, bounds)
    if ask.mode != "compatible":
        opt.idle(command, vars(ask), ("temperature", "top_k", "top_p"), "is of --mode compatible", "give both")
    if ask.number:
        opt.idle(
            command, vars(ask), ("new_tokens",), "without a token: --number gives one number", "leave one of them out"
        )
        if ask.mode == "compatible":
            raise HeadtoolError("--mode compatible samples tokens, --number takes none", hint="leave one of them out")
    if ask.shared != "none" and ask.mode != "causal":
        raise HeadtoolError(f"--shared {ask.shared} is of --mode causal", hint="give both")


def _stdin() -> list[str]:
    if sys.stdin is None or sys.stdin.isatty():
        raise HeadtoolError("there is no text", hint="give texts as arguments, or one a line on stdin")
    try:
        return [line.rstrip("\n") for line in sys.stdin if line.strip()]
    except UnicodeDecodeError as error:
        raise HeadtoolError("stdin is not valid UTF-8", hint="convert it first") from error


def _one(model: Any, tokens: Any, text: str, ask: Asked, longest: int) -> tuple[list[tuple[str, Any]], str]:
    from headtool.causal import inference, numbers
    from headtool.tasks.example import RowError

    try:
        steps, whole = inference.go_on(
            model, tokens, numbers.split(text, tokens.pattern), ask, longest=longest, end=tokens.tokenizer.eos_token_id
        )
    except RowError as error:
        raise HeadtoolError(f"{text[:60]!r}: {error}", hint="leave the token out of the text") from error
    words = [
        numbers.written(step.value) if step.value is not None else tokens.tokenizer.decode([step.token])
        for step in steps
    ]
    return list(zip(words, steps, strict=True)), whole


def _tell(columns: dict[str, list[Any]], console: Console) -> pl.DataFrame:
    """The table on stdout: Rich on a terminal, tab-separated when piped, JSON lines with --json."""
    import polars as pl

    kinds = dict(zip(COLUMNS, (pl.String, pl.Int64, pl.String, *[pl.Float64] * 5), strict=True))
    frame = pl.DataFrame(columns, schema=kinds)
    if console.json:
        for named in frame.iter_rows(named=True):
            console.result("", named)
    elif sys.stdout.isatty():
        from rich.console import Console as Rich
        from rich.table import Table

        shown = Table(box=None, header_style="bold")
        for name in COLUMNS:
            shown.add_column(name, justify="left" if name in ("text", "token") else "right", overflow="fold")
        for text, step, token, *numbers in frame.iter_rows():
            number = numbers[2]
            seen = (
                f"{number:.4g}" if number is not None else jsonlib.dumps(token, ensure_ascii=False)
            )  # it may be a space
            shown.add_row(text, str(step), seen, *("" if v is None else f"{v:.4g}" for v in numbers))
        Rich(highlight=False, markup=False).print(shown)
    else:
        console.result(frame.write_csv(separator="\t").rstrip("\n"), {})
    return frame
