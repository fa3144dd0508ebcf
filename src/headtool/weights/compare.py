"""Two checkpoints of one model, tensor by tensor and head by head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from headtool.errors import HeadtoolError
from headtool.models.layout import Layout
from headtool.weights.circuits import PARTS, part_of
from headtool.weights.examine import Wish, examine
from headtool.weights.names import canonical
from headtool.weights.plan import Attention, Item, grouped, owners
from headtool.weights.source import Checkpoint
from headtool.weights.stored import Difference, Stored
from headtool.weights.work import Room, heads_of, need, table

FOUND = ("rank", "rank_resolved", "spectral_norm", "stable_rank", "effective_rank")
NUMBERS = ("fro_norm", "fro_norm_b", "fro_distance", "relative_distance", "cosine", "max_change", "n_changed", *FOUND)


@dataclass(frozen=True)
class Pair:
    """A tensor in both checkpoints, or in one of them; status "" where the two are to be compared."""

    a: Item | None
    b: Item | None
    status: str

    @property
    def item(self) -> Item:
        item = self.a or self.b
        assert item is not None
        return item

    @property
    def bytes(self) -> int:
        return sum(side.bytes for side in (self.a, self.b) if side is not None and not self.status)


@dataclass(frozen=True)
class Group:
    """Pairs that one part holds; the layers whose heads are among them."""

    number: int
    pairs: tuple[Pair, ...]
    layers: tuple[int, ...]

    @property
    def part(self) -> str:
        return f"diff-{self.number:05d}.part"

    @property
    def bytes(self) -> int:
        return sum(pair.bytes for pair in self.pairs)


def pairs_of(a: Sequence[Item], b: Sequence[Item], layout: Layout | None) -> list[Pair]:
    """The tensors of two checkpoints matched by name, whatever task head stands before it, in the order of a.

    Raises HeadtoolError where the two have no tensor in common.
    """
    theirs = {canonical(item.name, layout): item for item in b}
    found, met = [], set()
    for item in a:
        name = canonical(item.name, layout)
        other = theirs.get(name)
        met.add(name)
        if other is None:
            found.append(Pair(item, None, "only a"))
        elif (item.rows, item.cols, item.tensor.shape) != (other.rows, other.cols, other.tensor.shape):
            found.append(Pair(item, other, "other shape"))
        else:
            odd = any(side.quantisation or side.skip.startswith("type") for side in (item, other))
            found.append(Pair(item, other, "quantised" if odd else ""))
    if not any(pair.b for pair in found):
        raise HeadtoolError(
            "the two checkpoints have no tensor in common", hint="--diff takes a checkpoint of the same model"
        )
    return found + [Pair(None, item, "only b") for name, item in theirs.items() if name not in met]


def groups_of(pairs: Sequence[Pair], attention: Attention | None) -> list[Group]:
    """The pairs in groups for parts; the projections of a layer stay together."""
    owner = owners(attention)
    odd = {owner.get(pair.a.name) for pair in pairs if pair.a is not None and pair.status}  # layers that do not compare
    made = grouped(pairs, lambda pair: owner.get(pair.a.name, pair.a.name) if pair.a else ("b", pair.item.name))
    return [
        Group(n, tuple(held), tuple(k for k in keys if isinstance(k, int) and k not in odd))
        for n, (keys, held) in enumerate(made)
    ]


def compare_group(
    a: Checkpoint, b: Checkpoint, group: Group, attention: Attention | None, wish: Wish, room: Room
) -> dict[str, np.ndarray]:
    """The arrays of a group's part: NUMBERS of each pair, how its rank was found, its status; its layers' heads."""
    told: list[dict[str, float]] = []
    methods: list[str] = []
    statuses: list[str] = []
    for pair in group.pairs:
        if pair.status:
            told.append({})
            methods.append("")
            statuses.append(pair.status)
            continue
        with room.take(2 * need(pair.item, wish)):
            numbers, method = _compare(a, b, pair, wish)
        told.append(numbers)
        methods.append(method)
        same = numbers["n_changed"] == 0 and pair.a.tensor.dtype == pair.b.tensor.dtype  # type: ignore[union-attr]
        statuses.append("same" if same else "changed")
    arrays = {"numbers": table(told, NUMBERS), "method": np.array(methods), "status": np.array(statuses)}
    heads_found = []
    for layer in group.layers:
        assert attention is not None
        by_name = {pair.a.name: pair for pair in group.pairs if pair.a is not None}
        in_layer = {part: by_name[item.name] for part, item in attention.layers[layer].items()}
        with room.take(sum(2 * need(pair.item, wish, held=True) for pair in in_layer.values())):
            heads_found.append({"layer": np.full(attention.geometry.heads, layer)} | _heads(a, b, in_layer, attention))
    return arrays | heads_of(heads_found)


def _compare(a: Checkpoint, b: Checkpoint, pair: Pair, wish: Wish) -> tuple[dict[str, float], str]:
    assert pair.a is not None and pair.b is not None  # noqa: PT018 - no test
    values = Difference(Stored(a, pair.a), Stored(b, pair.b), pair.a.tensor.dtype == pair.b.tensor.dtype)
    seeing = examine(values, wish, pair.a.skip)
    was, now = values.norms
    distance = seeing.numbers["fro_norm"]
    numbers = {name: seeing.numbers[name] for name in FOUND if name in seeing.numbers}
    with np.errstate(all="ignore"):
        cosine = float(np.divide(values.product, was * now))
    return numbers | {
        "fro_norm": was, "fro_norm_b": now, "fro_distance": distance, "n_changed": values.changed,
        "relative_distance": distance / was if was > 0 else np.nan, "max_change": seeing.numbers["abs_max"],
        "cosine": min(max(cosine, -1.0), 1.0) if np.isfinite(cosine) else np.nan,
    }, seeing.method  # fmt: skip


def _heads(a: Checkpoint, b: Checkpoint, pairs: Mapping[str, Pair], attention: Attention) -> dict[str, np.ndarray]:
    """U, Urel and their parts, by head: as headtool score's update defines them, without biases."""
    g, plan = attention.geometry, attention.layout
    moved, size = np.zeros((2, len(PARTS), g.heads))
    held: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for p, part in enumerate(PARTS):
        a_item, b_item = pairs[part].a, pairs[part].b
        assert a_item is not None and b_item is not None  # noqa: PT018 - no test
        if a_item.name not in held:  # fused: one matrix for three parts
            held = {a_item.name: (_matrix(a, a_item, plan), _matrix(b, b_item, plan))}
        was, now = held[a_item.name]
        for head in range(g.heads):
            at = part_of(plan, g, part, head if part in ("q", "o") else g.kv_head(head))
            before = was[at].astype(np.float64)
            moved[p, head] = np.linalg.norm(now[at] - before)
            size[p, head] = np.linalg.norm(before)
    whole = np.sqrt((moved**2).sum(0))
    total = size.sum(0)
    relative = np.divide(whole, total, out=np.zeros_like(whole), where=total > 0)
    return {"U": whole, "Urel": relative} | {f"U{part}": moved[p] for p, part in enumerate(PARTS)}


def _matrix(checkpoint: Checkpoint, item: Item, layout: Layout) -> np.ndarray:
    matrix = Stored(checkpoint, item).whole()
    return matrix.T if layout.transposed else matrix
