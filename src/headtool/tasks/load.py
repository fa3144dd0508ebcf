"""From --data and --task to encoded examples: which rows, in what shape, which of them, as tokens."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from headtool import folder
from headtool.errors import FAILED, HeadtoolError, unknown
from headtool.tasks import demo, rows, text
from headtool.tasks.example import Example, Markers, RowError

if TYPE_CHECKING:
    from headtool.models.batches import Encoding

TASKS = "headtool.tasks"
SHAPES = ("multiple_choice", "commonsense_170k", "pairs", "text")  # in the order in which a row is tried
BAD_SHARE = 0.01  # of unreadable rows, above which the data is refused
DEMO_ROWS = 256
DEMO_TRAINING_ROWS = 2048
BESIDE = 8  # fields that an error names
CHUNK = 512  # examples that are tokenized at a time


class _Rows(Protocol):
    def __call__(self) -> Iterator[rows.Row]: ...


@dataclass
class Chosen:
    """The rows that a run is about: their shape, how many there are, which were sampled, what was wrong with the rest."""

    name: str
    shape: ModuleType
    read: _Rows
    fields: Mapping[str, str]
    markers: Markers
    readable: int
    kept: np.ndarray  # numbers of the readable rows that were sampled, ascending
    notes: list[str] = field(default_factory=list)

    def examples(self) -> Iterator[Example]:
        """The sampled rows as examples, in order; one at a time."""
        return (example for _, example in self.placed())

    def placed(self) -> Iterator[tuple[str, Example]]:
        """The same, each with the place of its row."""
        wanted = iter(self.kept.tolist())
        next_wanted = next(wanted, None)
        number = 0
        for where, row in self.read():
            if next_wanted is None:
                return
            try:
                example = _example(row, self.shape, self.fields, self.markers)
            except RowError:
                continue
            if example is None:
                continue
            if number == next_wanted:
                yield where, example
                next_wanted = next(wanted, None)
            number += 1


def _example(
    row: Mapping[str, Any] | RowError, shape: ModuleType, fields: Mapping[str, str], markers: Markers
) -> Example | None:
    """A row as an example, or None for a blank one. Raises RowError for one that cannot be read."""
    if isinstance(row, RowError):
        raise row
    row = mapped(row, fields)
    if not any(all(field in row for field in each) for each in shape.FIELDS):
        missing = next(field for field in shape.FIELDS[0] if field not in row)
        raise RowError(f"it has no field '{missing}'")
    example = shape.example(row, markers)
    try:
        f"{example and example.text}{example and example.pair}".encode()
    except UnicodeEncodeError as error:  # half of a surrogate pair, or bytes that are not UTF-8
        raise RowError("its text is not valid Unicode") from error
    return example


def fingerprint(data: str | None, task: str | None) -> str:
    """What identifies the rows, before any is read."""
    if data is not None:
        return rows.find(data).fingerprint()
    return f"built-in:{task or 'demo'}"


def check(data: str | None, task: str | None, fields: Sequence[str]) -> None:
    """Raise HeadtoolError for data, task or fields that cannot be meant, before anything is opened."""
    _mapping(fields)
    _source(data, task, encoder=False)


def choose(
    *,
    data: str | None,
    task: str | None,
    encoder: bool,
    fields: Sequence[str] = (),
    markers: Markers = Markers(),  # noqa: B008 - frozen
    limit: int | None = None,
    subset: int | None = 1024,
    subset_seed: int = 999,
    training: bool = False,
) -> Chosen:
    """Read the rows once, to see what they are and how many, and sample some.

    training: of a built-in task the rows to train on, not those to evaluate on.

    Raises HeadtoolError for data that is not there, is of no known shape, holds no row, or too many unreadable ones.
    """
    mapping = _mapping(fields)
    name, read, shape = _source(data, task, encoder, training)
    limited: _Rows = lambda: itertools.islice(read(), limit)  # noqa: E731
    readable, blank, bad = 0, 0, []
    for where, row in limited():
        try:
            if shape is None and not isinstance(row, RowError):
                shape = _recognise(mapped(row, mapping), where)
            made = _example(row, shape or text, mapping, markers)
        except RowError as error:
            bad.append(f"{where}: {error}")
            continue
        readable, blank = readable + (made is not None), blank + (made is None)
    total = readable + len(bad)
    if len(bad) > BAD_SHARE * total:
        raise HeadtoolError(
            f"{name}: {len(bad)} of {total} rows cannot be read; the first: {bad[0]}",
            hint=rows.LOOKS,
        )
    if not readable or shape is None:
        raise HeadtoolError(f"{name}: there is no row in it", hint=rows.LOOKS)
    for named in mapping:
        may = {*itertools.chain(*shape.FIELDS), *getattr(shape, "MAY", mapping)}  # a plug-in's shape need not say
        if named not in may:
            raise unknown("field", named, sorted(may))
    notes = [f"{len(bad)} of {total} rows cannot be read and are left out: {'; '.join(bad[:3])}"] if bad else []
    if blank:
        notes.append(f"blank rows are left out: {blank}")
    kept = np.arange(readable)
    if subset is not None and subset < readable:
        kept = np.sort(np.random.default_rng(subset_seed).choice(readable, subset, replace=False))
    elif subset is not None and data is not None:
        notes.append(f"all rows are used: {readable}, fewer than --subset {subset}")
    return Chosen(name, shape, limited, mapping, markers, readable, kept, notes)


def encode(chosen: Iterable[Example], tokenizer: Any, max_length: int) -> Iterator[Encoding]:
    """Tokenize examples with the tokenizer's own special tokens; the span in tokens is those that overlap it.

    A tokenizer that puts nothing between two texts (most decoders') gets a pair as one text, with a line break between.
    Raises HeadtoolError where max_length leaves no room for a token of text.
    """
    from headtool.models.batches import Encoding  # torch: not needed to see whether a run is done already

    added = {pair: tokenizer.num_special_tokens_to_add(pair=pair) for pair in (False, True)}
    stream = iter(chosen)
    while chunk := list(itertools.islice(stream, CHUNK)):
        if chunk[0].pair is not None and added[True] <= added[False]:
            chunk = [_joined(example) for example in chunk]
        paired = chunk[0].pair is not None
        if max_length <= added[paired]:
            hint = f"at least {added[paired] + 1}"
            raise HeadtoolError(
                f"--max-length {max_length} leaves no room beside the tokenizer's special tokens", hint=hint
            )
        tokenizer.truncation_side = "left" if chunk[0].cut == "left" else "right"  # one shape of rows, one way to cut
        batch = tokenizer(
            [example.text for example in chunk],
            [example.pair or "" for example in chunk] if paired else None,
            truncation="longest_first",
            max_length=max_length,
            return_offsets_mapping=True,
        )
        for example, encoding in zip(chunk, batch.encodings, strict=True):
            second = next((i for i, kind in enumerate(encoding.type_ids) if kind == 1), None)
            yield Encoding(encoding.ids, _tokens_of(example, encoding), second, bool(encoding.overflowing))


def _joined(example: Example) -> Example:
    """A pair as one text, queried at its end."""
    joined = f"{example.text}\n{example.pair}"
    span = (len(example.text) + 1, len(joined)) if example.span == "pair" else example.span
    return Example(joined, span=span, label=example.label, cut="left")


def _tokens_of(example: Example, encoding: Any) -> tuple[int, int] | None:
    if example.span is None:
        return None
    side = 1 if example.span == "pair" else 0
    start, stop = (0, len(example.pair or "")) if example.span == "pair" else example.span
    inside = [
        i
        for i, (part, (a, b)) in enumerate(zip(encoding.sequence_ids, encoding.offsets, strict=True))
        if part == side and a < stop and b > start
    ]
    return (inside[0], inside[-1] + 1) if inside else None


def mapped(row: Mapping[str, Any], fields: Mapping[str, str]) -> Mapping[str, Any]:
    """A row with the fields that --field names taken from where they stand (dotted paths)."""
    if not fields:
        return row
    found = dict(row)
    for name, path in fields.items():
        value: Any = row
        above = ""
        for step in path.split("."):
            if not isinstance(value, Mapping) or step not in value:
                beside = [f"{above}{each}" for each in value][:BESIDE] if isinstance(value, Mapping) else []
                raise RowError(f"it has no field '{path}'{'; it has ' if beside else ''}{', '.join(beside)}")
            above += f"{step}."
            value = value[step]
        found[name] = value
    return found


def _mapping(fields: Sequence[str]) -> dict[str, str]:
    for each in fields:
        if not all(each.partition("=")[::2]):
            raise HeadtoolError(
                f"--field {each}: not of the form NAME=PATH", hint="for example --field question=query.text"
            )
    return {name: path for name, _, path in (each.partition("=") for each in fields)}


def _source(
    data: str | None, task: str | None, encoder: bool, training: bool = False
) -> tuple[str, _Rows, ModuleType | None]:
    module = folder.load(TASKS, task, "task") if task else None
    if module is not None and hasattr(module, "example"):  # the name of a shape: how to read the rows of --data
        if data is None:
            raise HeadtoolError(f"the task '{task}' is a shape of rows, and needs them", hint="give a file with --data")
        return data, rows.find(data).rows, module
    if data is not None:
        if module is not None:
            raise HeadtoolError(f"--task {task} brings its own rows, --data others", hint="give one of them")
        return data, rows.find(data).rows, None
    if module is None or module is demo:
        rows_of = DEMO_TRAINING_ROWS if training else DEMO_ROWS
        built_in: _Rows = lambda: (  # noqa: E731
            ("demo", row) for row in itertools.islice(demo.rows(encoder, test=not training), rows_of)
        )
        return "demo", built_in, _shape("pairs" if encoder else "multiple_choice")
    return str(task), rows.Source(module.source(task, training), None).rows, None


def _shape(name: str) -> ModuleType:
    return folder.load(TASKS, name, "task")


def _recognise(row: Mapping[str, Any], where: str) -> ModuleType:
    shapes = [_shape(name) for name in SHAPES]
    for shape in shapes:
        if any(all(field in row for field in fields) for fields in shape.FIELDS):
            return shape
    known = "; ".join(f"{{{', '.join(fields)}}}" for shape in shapes for fields in shape.FIELDS)
    raise HeadtoolError(
        f"{where}: its fields are of no known shape: {', '.join(map(str, row))}",
        hint=f"name them with --field NAME=PATH; the shapes are {known}",
    )


def no_span(name: str, cut: bool) -> HeadtoolError:
    """The error where a task span was looked for and found in no row; cut: were all rows cut short?"""
    return HeadtoolError(
        f"{name}: the task span was found in none of the rows",
        hint="a larger --max-length" if cut else "name what stands around it: --question-marker, --choices-marker",
        code=FAILED,
    )
