"""Text as tokens in which each number is one token, <NUM>, with its value beside it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headtool.causal import numbers
from headtool.errors import HeadtoolError
from headtool.tasks.example import RowError

NUM = "<NUM>"
MARK = "▁"  # a space, in vocabularies of SentencePiece
RESERVED = re.compile(r"<\|?(?:reserved_special_token_|reserved_|unused_?)[0-9]+\|?>")  # rows a family keeps for others


@dataclass(frozen=True)
class NumberTokenizer:
    """A tokenizer with a token for numbers. An encoding is ids and values, of one length; the value is 0 elsewhere."""

    tokenizer: Any
    token: str
    pattern: re.Pattern[str] = numbers.NUMBER

    @property
    def num(self) -> int:
        """The id of the number token."""
        return int(self.tokenizer.convert_tokens_to_ids(self.token))

    def encode(self, text: str, *, special: bool = True) -> tuple[list[int], list[float]]:
        """Ids and values of a text, with the tokenizer's own special tokens or without.

        Raises RowError for a text that holds the number token itself.
        """
        return self.encode_pieces(numbers.split(text, self.pattern), special=special)

    def encode_pieces(self, pieces: Sequence[numbers.Piece], *, special: bool = True) -> tuple[list[int], list[float]]:
        """The same of text whose numbers have been found: str and float by turns."""
        if any(isinstance(piece, str) and self.token in piece for piece in pieces):
            raise RowError(f"its text holds the token {self.token}, which stands for a number")
        template = "".join(piece if isinstance(piece, str) else self.token for piece in pieces)
        ids = self.tokenizer(template, add_special_tokens=special, verbose=False).input_ids
        found = iter([piece for piece in pieces if isinstance(piece, float)])
        return ids, [next(found) if i == self.num else 0.0 for i in ids]

    def pieces(self, ids: Sequence[int], values: Sequence[float]) -> list[numbers.Piece]:
        """The text of tokens without special ones, and the numbers between.

        It is decoded in one go: many tokenizers drop the space that a text begins with, and a part is no beginning.
        """
        special = {i for i, token in self.tokenizer.added_tokens_decoder.items() if token.special} - {self.num}
        kept = [(i, value) for i, value in zip(ids, values, strict=True) if i not in special]
        text = self.tokenizer.decode([i for i, _ in kept], clean_up_tokenization_spaces=False)
        between = text.split(self.token)
        found: list[numbers.Piece] = [between[0]]
        for value, after in zip((value for i, value in kept if i == self.num), between[1:], strict=True):
            found += [float(value), after]
        return [piece for piece in found if piece != ""]

    def decode(self, ids: Sequence[int], values: Sequence[float]) -> str:
        """The text of tokens, numbers written so that they read as the same float64."""
        return numbers.join(self.pieces(ids, values))


def reserve(tokenizer: Any, pattern: re.Pattern[str] = numbers.NUMBER) -> tuple[NumberTokenizer, bool]:
    """The tokenizer with its number token, and whether the token was added: one that it has, one that its vocabulary
    keeps for such a use, or a new one.
    """
    _one_beginning(tokenizer)
    known = tokenizer.get_vocab()
    spare = sorted((token for token in known if RESERVED.fullmatch(token)), key=known.__getitem__)
    token = NUM if NUM in known or not spare else spare[0]
    if added := token not in known:
        tokenizer.add_tokens([token], special_tokens=True)
    if len(tokenizer(token, add_special_tokens=False).input_ids) != 1:
        tokenizer.add_tokens([token], special_tokens=True)  # it has a row, but was read in parts
    if len(tokenizer(f"a{token}b{token}", add_special_tokens=False).input_ids) < 2:
        raise HeadtoolError(f"the tokenizer does not keep the token {token}", hint="it takes a tokenizer.json")
    return NumberTokenizer(tokenizer, token, pattern), added


def _one_beginning(tokenizer: Any) -> None:
    """Let only the beginning of a text get a made-up space, and not what follows a number too.

    Llama 2's kind of tokenizer puts it before each part between two special tokens; Metaspace with "first" is what the
    library itself has put in its place since (legacy=False).
    """
    from tokenizers import normalizers, pre_tokenizers

    backend = tokenizer.backend_tokenizer
    known = normalizers.Sequence([normalizers.Prepend(MARK), normalizers.Replace(" ", MARK)])
    if backend.pre_tokenizer is None and repr(backend.normalizer) == repr(known):
        backend.normalizer = normalizers.Sequence([])
        backend.pre_tokenizer = pre_tokenizers.Metaspace(MARK, prepend_scheme="first", split=False)


def digits(tokenizer: Any) -> list[int]:
    """The ids of the ten digits, where each is a token: what the number token's row starts from the mean of."""
    found = [tokenizer(d, add_special_tokens=False).input_ids for d in "0123456789"]
    return sorted({ids[-1] for ids in found if ids})


def median_and_spread(values: np.ndarray) -> tuple[float, float]:
    """The median of values and half their interquartile range, 1 where that is 0: what regression is measured in."""
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    unit = float(high - low) / 2
    return float(middle), unit if unit > 0 and np.isfinite(unit) else 1.0
