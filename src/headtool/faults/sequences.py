"""The sequences under test: text joined and cut to one length, or rows as they are, each with what its loss expects."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from headtool.errors import HeadtoolError
from headtool.models.batches import IGNORED, Batch, Encoding, Examples
from headtool.tasks import labels, load, text
from headtool.tasks.targets import TOLD, Targets, loss_of, masked

if TYPE_CHECKING:
    from headtool.models.adapter import Adapter


@dataclass
class Sequences:
    """Sequences by number: the first calibrate, the others are under test. rows is where each begins in the data."""

    examples: Examples
    rows: list[int]
    calibrating: int
    loss: str
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def calibration(self) -> range:
        return range(self.calibrating)

    @property
    def tested(self) -> range:
        return range(self.calibrating, len(self.examples))

    @property
    def lengths(self) -> dict[int, int]:
        """Tokens of each sequence under test."""
        return {i: int(self.examples.lengths[i]) for i in self.tested}

    def digests(self) -> list[str]:
        """What identifies the sequences that calibrate."""
        return [digest(self.examples.ids(i)) for i in self.calibration]

    def batch(self, adapter: Adapter, number: int) -> Batch:
        """One sequence, unpadded."""
        return self.examples.batch(np.array([number])).to(adapter.device)


def read(
    adapter: Adapter,
    chosen: load.Chosen,
    *,
    max_length: int,
    calibrating: int,
    tested: int,
    seed: int,
    seen: frozenset[str] = frozenset(),
) -> Sequences:
    """The first sequences of the rows: calibrating ones, then tested ones (fewer where there are fewer).

    seen: digests of sequences that are passed over, since the limits in use were set by them.

    Raises HeadtoolError where not one is left to test, or the rows give no loss.
    """
    rows: list[int] = []
    loss = loss_of(adapter.kind, next((e.answer is not None for e in chosen.examples()), False))
    wanted = calibrating + tested
    if chosen.shape is text and loss in ("tokens", "masked"):
        made: Iterator[Encoding] = _joined(adapter, chosen, max_length, loss, seed, rows)
    else:
        classes = None
        if loss == "label":
            names = [str(name) for _, name in sorted(adapter.model.config.id2label.items())]
            classes = labels.numbers(labels.read(chosen), names)
        targets = Targets(chosen.examples(), adapter.tokenizer, max_length, loss, seed=seed, classes=classes)
        made, rows = iter(targets), targets.used
    places: list[int] = []
    passed = 0

    def unseen() -> Iterator[Encoding]:
        nonlocal passed
        for place, encoding in enumerate(made):
            if digest(encoding.ids) in seen:
                passed += 1
                continue
            places.append(place)
            yield encoding

    examples = Examples(itertools.islice(unseen(), wanted), pad=adapter.pad, types=adapter.has_types)
    if len(examples) <= calibrating:
        hint = "more rows, or a smaller --calibrate, or a --calibration file"
        what = f"{chosen.name}: its texts make {len(examples)} sequence{'s' if len(examples) != 1 else ''}"
        raise HeadtoolError(f"{what}, and {calibrating} are to calibrate before the first is tested", hint=hint)
    if examples.largest >= adapter.vocabulary:
        hint = "the tokenizer is another model's"
        raise HeadtoolError(
            f"the tokenizer gives token {examples.largest}, the model knows {adapter.vocabulary}", hint=hint
        )
    found = Sequences(examples, [int(chosen.kept[rows[place]]) for place in places], calibrating, loss)
    if passed:
        found.notes.append(f"{passed} sequences are passed over: the limits of --calibration were set by them")
    found.notes.append(f"the loss is {TOLD[loss]}")
    if len(examples) < wanted:
        left = f"{calibrating} calibrate, {len(examples) - calibrating} are tested"
        told = f"the rows make {len(examples)} sequences, {wanted} were asked for: {left}"
        if len(examples) - calibrating < calibrating:
            found.warnings.append(f"{told}; more rows, or a smaller --calibrate, leave more to test")
        else:
            found.notes.append(told)
    return found


def digest(ids: Iterable[int]) -> str:
    """What identifies a sequence: 16 hexadecimal digits of the SHA-256 of its ids."""
    return hashlib.sha256(np.asarray(list(ids), np.int64).tobytes()).hexdigest()[:16]


def _joined(
    adapter: Adapter, chosen: load.Chosen, max_length: int, loss: str, seed: int, rows: list[int]
) -> Iterator[Encoding]:
    """Texts one after the other, a line break between, cut to sequences of max_length with the special tokens around
    each; what is left at the end is dropped, unless it is all there is. The row each begins in is appended to rows.
    """
    tokenizer = adapter.tokenizer
    before, after = _around(tokenizer)
    room = max_length - len(before) - len(after)
    if room < 2:
        raise HeadtoolError(f"--max-length {max_length} leaves no room for text", hint="for example --max-length 128")
    ids: list[int] = []
    starts: list[int] = []  # the row that each token is of
    special = set(tokenizer.all_special_ids)
    made = 0

    def sequence(some: list[int], row: int) -> Encoding | None:
        nonlocal made
        whole = [*before, *some, *after]
        made += 1
        if loss == "masked":
            encoding = masked(Encoding(whole), tokenizer.mask_token_id, special, seed, made - 1)
        else:
            encoding = Encoding(whole, targets=[*whole[1:], IGNORED])
        if encoding is not None:
            rows.append(row)
        return encoding

    for place, example in enumerate(chosen.examples()):
        new = tokenizer(example.text + "\n", add_special_tokens=False, verbose=False)["input_ids"]
        ids += new
        starts += [place] * len(new)
        while len(ids) >= room:
            encoding = sequence(ids[:room], starts[0])
            del ids[:room], starts[:room]
            if encoding is not None:
                yield encoding
    if not made and len(ids) > 1:
        encoding = sequence(ids, starts[0])
        if encoding is not None:
            yield encoding


def _around(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The special tokens that the tokenizer puts before and after a text."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    for start in range(len(whole) - len(bare) + 1):
        if whole[start : start + len(bare)] == bare:
            return whole[:start], whole[start + len(bare) :]
    return [], []
