"""An inspection: what is read, in which parts, and one part of it done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from headtool.errors import HeadtoolError
from headtool.models.layout import Layout
from headtool.weights import compare, plan
from headtool.weights.examine import Wish
from headtool.weights.plan import Attention, Chunk, Item
from headtool.weights.source import Checkpoint, open_checkpoint
from headtool.weights.work import Room, examine_chunk

Task = Chunk | compare.Group


@dataclass(frozen=True)
class Inspection:
    """What an inspection reads, and the tasks that it is split into: one part each."""

    checkpoint: Checkpoint
    other: Checkpoint | None
    layout: Layout | None
    items: Sequence[Item]
    attention: Attention | None
    chunks: Sequence[Chunk]
    groups: Sequence[compare.Group]
    notes: Sequence[str]
    warnings: Sequence[str]

    @property
    def tasks(self) -> list[Task]:
        return [*self.chunks, *self.groups]

    @property
    def plan(self) -> dict[str, Any]:
        """What the parts depend on beside the arguments."""
        return {
            "chunks": [[item.name for item in chunk.items] for chunk in self.chunks],
            "groups": [[pair.item.name for pair in group.pairs] for group in self.groups],
        }


def inspect(given: str, ask: SimpleNamespace) -> Inspection:
    """Open what is to be inspected, and plan it. Raises HeadtoolError for whatever cannot be read."""
    checkpoint = open_checkpoint(given, allow_pickle=ask.allow_pickle)
    notes, warnings = list(checkpoint.notes), list(checkpoint.warnings)
    layout, why = plan.known_layout(checkpoint, ask.family)
    if why:
        notes.append(f"{why}: block types are told by names alone, and there is no table of heads")
    items = plan.items_of(checkpoint, layout, ask.include, ask.exclude)
    attention = None
    if ask.heads or ask.diff:
        attention, why = plan.attention_of(checkpoint, layout, items)
        if why:
            notes.append(f"there is no table of heads: {why}")
    if methods := sorted({item.quantisation for item in items if item.quantisation}):
        count = sum(bool(item.quantisation) for item in items)
        notes.append(
            f"{count} of {len(items)} tensors are quantised ({', '.join(methods)}): their statistics are of the stored "
            "codes and scales, and they have no spectra"
        )
    if ask.embedding and word_embedding(items, checkpoint) is None:
        raise HeadtoolError(
            f"{checkpoint.path}: there is no word embedding among its tensors", hint="leave out --embedding"
        )
    other, groups = None, []
    if ask.diff is not None:
        other = open_checkpoint(str(ask.diff), allow_pickle=ask.allow_pickle)
        warnings += other.warnings
        theirs = plan.items_of(other, layout, ask.include, ask.exclude)
        pairs = compare.pairs_of(items, theirs, layout)
        groups = compare.groups_of(pairs, attention)
    heads = attention if ask.heads else None
    light = not ask.wish.spectra and checkpoint.folder is not None
    chunks = plan.chunks_of(items, heads if ask.wish.spectra else None, light)
    return Inspection(checkpoint, other, layout, items, attention, chunks, groups, notes, warnings)


def do(found: Inspection, task: Task, wish: Wish, room: Room) -> dict[str, np.ndarray]:
    """The arrays of a task's part."""
    if isinstance(task, compare.Group):
        assert found.other is not None
        return compare.compare_group(found.checkpoint, found.other, task, found.attention, wish, room)
    return examine_chunk(found.checkpoint, task, found.attention, wish, room)


def word_embedding(items: Sequence[Item], checkpoint: Checkpoint) -> Item | None:
    """The matrix with a row a token: of type embedding, and of the vocabulary's size where the configuration says that;
    never positions or token types.
    """
    named = [item for item in items if item.told.block_type == "embedding" and not item.skip]
    named = [item for item in named if "token_type" not in item.name]
    vocabulary = checkpoint.config.get("vocab_size")
    fitting = [item for item in named if item.rows == vocabulary] or named
    return max(fitting, key=lambda item: item.rows, default=None)
