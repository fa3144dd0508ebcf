"""The tokens of a checkpoint's vocabulary, without loading a tokenizer."""

from __future__ import annotations

import json

from headtool.errors import HeadtoolError
from headtool.weights.source import Checkpoint


def tokens_of(checkpoint: Checkpoint, rows: int) -> list[str | None]:
    """The token of each row as tokenizer.json or vocab.txt writes it; None for rows without one."""
    found: list[str | None] = [None] * rows
    for token, number in _vocabulary(checkpoint).items():
        if 0 <= number < rows:
            found[number] = token
    return found


def _vocabulary(checkpoint: Checkpoint) -> dict[str, int]:
    """Token -> id from the tokenizer's own files, without loading a tokenizer."""
    name = "tokenizer.json"
    try:
        text = checkpoint.companion(name)
        if text is not None:
            content = json.loads(text)
            vocabulary = content["model"]["vocab"]
            if isinstance(vocabulary, list):  # Unigram: [token, score], in order
                vocabulary = {entry[0]: i for i, entry in enumerate(vocabulary)}
            found = dict(vocabulary) | {entry["content"]: entry["id"] for entry in content.get("added_tokens", [])}
            return {str(token): int(number) for token, number in found.items()}
        name = "vocab.txt"
        text = checkpoint.companion(name)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise HeadtoolError(f"{checkpoint.path}: its {name} cannot be read", hint=repr(error)[:200]) from error
    return {} if text is None else {token: i for i, token in enumerate(text.split("\n"))}
