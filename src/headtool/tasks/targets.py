"""What the loss of an example expects: a class, an answer's tokens, every next token, or masked tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import numpy as np

from headtool.errors import HeadtoolError
from headtool.models.batches import IGNORED, Encoding
from headtool.tasks import load
from headtool.tasks.example import Example

Loss = Literal["label", "answer", "tokens", "masked"]
MASKED_SHARE = 0.15
TOLD: dict[str, str] = {
    "label": "the cross-entropy of each example's label",
    "answer": "the cross-entropy of the answer's tokens",
    "tokens": "the mean cross-entropy of every token after the first",
    "masked": f"the mean cross-entropy of a seeded {MASKED_SHARE:.0%} of the tokens, masked",
}


def loss_of(kind: str, answered: bool) -> Loss:
    """Which loss a model of a kind has on rows with or without answers. Raises HeadtoolError for one without a head."""
    if kind == "headless":
        raise HeadtoolError(
            "the model has no task head, so there is no loss", hint="rows whose labels are numbers give it a classifier"
        )
    if kind == "classifier":
        return "label"
    if kind == "masked":
        return "masked"
    return "answer" if answered else "tokens"


class Targets:
    """Encodings with their targets, one at a time, and the examples that have any.

    classes (example,) are the targets of the loss "label". used holds the places of those examples among the ones given,
    once all have been drawn.
    """

    def __init__(
        self,
        examples: Iterable[Example],
        tokenizer: Any,
        max_length: int,
        loss: Loss,
        *,
        seed: int,
        classes: np.ndarray | None = None,
    ) -> None:
        self.examples, self.tokenizer, self.max_length = examples, tokenizer, max_length
        self.loss, self.seed, self.classes = loss, seed, classes
        self.used: list[int] = []
        self.left_out = 0  # too short to predict a token of

    def __iter__(self) -> Iterator[Encoding]:
        """Raises HeadtoolError for an answer that is missing, and for a tokenizer without a mask token that needs one."""
        special = set(self.tokenizer.all_special_ids)
        if self.loss == "masked" and self.tokenizer.mask_token_id is None:
            raise HeadtoolError("the tokenizer has no mask token", hint="a masked model's loss needs one")
        for place, encoding in enumerate(load.encode(self._prepared(), self.tokenizer, self.max_length)):
            if self.classes is not None:
                made: Encoding | None = dataclasses.replace(encoding, targets=int(self.classes[place]))
            elif self.loss == "masked":
                made = masked(encoding, self.tokenizer.mask_token_id, special, self.seed, place)
            else:
                made = _next_tokens(encoding, only_span=self.loss == "answer")
            if made is None:
                self.left_out += 1
                continue
            self.used.append(place)
            yield made

    def _prepared(self) -> Iterator[Example]:
        for place, example in enumerate(self.examples):
            if self.loss == "answer":
                if example.answer is None:
                    raise HeadtoolError(
                        f"example {place} has no answer", hint="the loss of these rows is their answer's"
                    )
                lead, answer = example.answer
                start = len(example.text) + len(lead)
                whole = f"{example.text}{lead}{answer}"
                yield Example(whole, span=(start, len(whole)), label=example.label, cut="left")
            else:
                yield example


def _next_tokens(encoding: Encoding, *, only_span: bool) -> Encoding | None:
    """Each token as the target of the position before; what comes after the last target is left out: nobody reads it."""
    start, stop = (encoding.span or (0, 0)) if only_span else (1, len(encoding.ids))
    start = max(start, 1)
    if stop <= start:
        return None
    targets = [IGNORED] * (stop - 1)
    targets[start - 1 :] = list(encoding.ids[start:stop])
    return Encoding(encoding.ids[: stop - 1], None, None, encoding.cut, targets)


def masked(encoding: Encoding, mask: int, special: set[int], seed: int, place: int) -> Encoding | None:
    """A seeded share of the tokens replaced by the mask, which they are the targets of."""
    ids: Sequence[int] = encoding.ids
    plain = [i for i, token in enumerate(ids) if token not in special]
    if not plain:
        return None
    count = max(1, round(MASKED_SHARE * len(plain)))
    drawn = set(np.random.default_rng([seed, place]).choice(plain, count, replace=False).tolist())
    targets = [token if i in drawn else IGNORED for i, token in enumerate(ids)]
    hidden = [mask if i in drawn else token for i, token in enumerate(ids)]
    return dataclasses.replace(encoding, ids=hidden, targets=targets)
