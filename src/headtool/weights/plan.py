"""What there is to do: one item a row of the table parameters, grouped so that a layer's attention is read once."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from headtool.errors import HeadtoolError
from headtool.models import layout as layouts
from headtool.models.heads import Geometry, fit, uniform
from headtool.models.layout import Layout
from headtool.weights.formats import FORMATS
from headtool.weights.names import COMPANION, Name, attention_tensors, classify
from headtool.weights.source import Checkpoint, Tensor

HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads")  # as configurations call their number
CHUNKS = 256  # parts of a run, about
LIGHT = 64 << 20  # bytes of a part of a run without spectra, of files: they take a twentieth of a second
FEW = 16  # parts that such a run has at least


@dataclass(frozen=True)
class Item:
    """A tensor, or one expert of it: a row of the table parameters. skip says why it has no spectrum, if it has none."""

    name: str
    tensor: Tensor
    told: Name
    offset: int  # bytes into the tensor
    rows: int
    cols: int
    vector: bool
    skip: str
    quantisation: str

    @property
    def bytes(self) -> int:
        return self.rows * self.cols * FORMATS[self.tensor.dtype].bits.itemsize if self.tensor.dtype in FORMATS else 0


@dataclass(frozen=True)
class Attention:
    """Where the heads of the checkpoint are: its layout and geometry, and the items of each layer's q, k, v and o."""

    layout: Layout
    geometry: Geometry
    layers: Mapping[int, Mapping[str, Item]]


@dataclass(frozen=True)
class Chunk:
    """Items that one part holds; the layers whose heads are among them."""

    number: int
    items: tuple[Item, ...]
    layers: tuple[int, ...]

    @property
    def part(self) -> str:
        return f"{self.number:05d}.part"

    @property
    def bytes(self) -> int:
        return sum(item.bytes for item in self.items)


def known_layout(checkpoint: Checkpoint, family: str | None) -> tuple[Layout | None, str]:
    """The layout of a checkpoint's family, and why there is none where there is none.

    Raises HeadtoolError for a --family that is not known.
    """
    model_type = str(checkpoint.config.get("model_type", ""))
    if not model_type and family is None:
        return None, "its config.json names no model_type" if checkpoint.config else ""
    try:
        return layouts.find(model_type, family), ""
    except HeadtoolError as error:
        if family is not None:
            raise
        return None, str(error)


def items_of(
    checkpoint: Checkpoint, layout: Layout | None, include: Sequence[str], exclude: Sequence[str]
) -> list[Item]:
    """The rows of the table parameters, in the order of the files. Raises HeadtoolError where globs leave none, and for
    two tensors of one name.
    """
    quantised = checkpoint.config.get("quantization_config")
    method = str(quantised.get("quant_method") or "") if isinstance(quantised, dict) else ""
    stems = {t.name.removesuffix(".qweight") for t in checkpoint.tensors if t.name.endswith(".qweight")}
    found: list[Item] = []
    names: set[str] = set()
    for tensor in checkpoint.tensors:
        if include and not any(fnmatch.fnmatchcase(tensor.name, glob) for glob in include):
            continue
        if any(fnmatch.fnmatchcase(tensor.name, glob) for glob in exclude):
            continue
        if tensor.name in names:
            raise HeadtoolError(f"{checkpoint.path}: {tensor.name} is stored twice", hint="download it again")
        names.add(tensor.name)
        found += _split(tensor, layout, method, stems)
    if not found:
        what = "no tensor fits --include and --exclude" if checkpoint.tensors else "it holds no tensors"
        raise HeadtoolError(f"{checkpoint.path}: {what}", hint="for example --include '*.self_attn.*'")
    return found


def _split(tensor: Tensor, layout: Layout | None, method: str, stems: set[str]) -> list[Item]:
    told = classify(tensor.name, layout)
    shape = tensor.shape
    known = FORMATS.get(tensor.dtype)
    quantised = _quantisation(tensor, method, stems)
    skip = ""
    if known is None:
        skip = f"type {tensor.dtype}"
    elif quantised:
        skip = "quantised"
    elif len(shape) < 2:
        skip = "vector"
    elif told.block_type == "bias":
        skip = "bias"
    elif known.eps is None:
        skip = "integers"
    if len(shape) == 3 and told.block_type == "moe_expert" and told.expert is None and known is not None:
        step = shape[1] * shape[2] * known.bits.itemsize
        experts = [Name(told.layer, told.block_type, e) for e in range(shape[0])]
        return [
            Item(f"{tensor.name}[{e}]", tensor, each, e * step, shape[1], shape[2], False, skip, quantised)
            for e, each in enumerate(experts)
        ]
    rows = shape[0] if shape else 1
    cols = tensor.elements // rows if rows else 1
    return [Item(tensor.name, tensor, told, 0, rows, cols, len(shape) < 2, skip, quantised)]


def _quantisation(tensor: Tensor, method: str, stems: set[str]) -> str:
    """The method of a tensor whose values are codes, or scales of codes; "" for plain weights."""
    known = FORMATS.get(tensor.dtype)
    stem, _, last = tensor.name.rpartition(".")
    companion = bool(COMPANION.search(last)) and (bool(method) or stem in stems or last in ("SCB", "absmax"))
    if companion:
        return method or ("gptq or awq" if stem in stems else "bitsandbytes")
    if known is not None and known.packed:
        return method or tensor.dtype.lower()
    return ""


def attention_of(checkpoint: Checkpoint, layout: Layout | None, items: list[Item]) -> tuple[Attention | None, str]:
    """Where the heads are, or why they cannot be read."""
    if layout is None:
        return None, ""
    by_name = {item.name: item for item in items}
    layers = {
        layer: {part: by_name[name] for part, name in parts.items()}
        for layer, parts in sorted(attention_tensors(list(by_name), layout).items())
        if len(parts) == 4
    }
    if not layers:
        if any(item.quantisation for item in items):
            return None, "the projections are quantised, and have no slices to read"
        return None, "not all of q, k, v and o are there in any layer"
    if any(item.skip or item.vector for parts in layers.values() for item in parts.values()):
        return None, "the projections are quantised, and have no slices to read"
    counts = (checkpoint.config.get(key) for key in HEADS)
    count = next((each for each in counts if type(each) is int and each > 0), None)
    if count is None:
        return None, "config.json does not say how many heads there are"
    found = set()
    try:
        for parts in layers.values():
            out, key = parts["o"], parts["k"]
            inner, rows = (out.rows, key.cols) if layout.transposed else (out.cols, key.rows)
            found.add(fit(layout, count, inner, rows))
        width = out.cols if layout.transposed else out.rows
        geometry = uniform(found, max(layers) + 1, count, width)
    except HeadtoolError as error:
        return None, str(error)
    return Attention(layout, geometry, layers), ""


def chunks_of(items: list[Item], attention: Attention | None, light: bool) -> list[Chunk]:
    """The items in groups of about a 256th of the bytes, in the order of the files; a layer's projections stay together.

    A light one, without spectra and from files, has more, or writing its part would cost a tenth of what it holds.
    """
    least = min(LIGHT, sum(item.bytes for item in items) // FEW) if light else 0
    owner = owners(attention)
    made = grouped(items, lambda item: owner.get(item.name, item.name), least)
    return [Chunk(n, tuple(held), tuple(k for k in keys if isinstance(k, int))) for n, (keys, held) in enumerate(made)]


def owners(attention: Attention | None) -> dict[str, int]:
    """The layer of each projection that is read for the heads."""
    layers = attention.layers.items() if attention is not None else ()
    return {item.name: layer for layer, parts in layers for item in parts.values()}


class Sized(Protocol):
    """What has a number of bytes."""

    @property
    def bytes(self) -> int: ...


S = TypeVar("S", bound=Sized)


def grouped(things: Iterable[S], key: Callable[[S], Hashable], least: int = 0) -> list[tuple[list[Hashable], list[S]]]:
    """Things of one key together, and of so many keys as make a 256th of the bytes, or the least: (keys, things) each."""
    atoms: dict[Hashable, list[S]] = {}
    for thing in things:
        atoms.setdefault(key(thing), []).append(thing)
    wanted = max(sum(thing.bytes for atom in atoms.values() for thing in atom) / CHUNKS, least)
    found: list[tuple[list[Hashable], list[S]]] = []
    room = -1.0
    for each, atom in atoms.items():
        if room < 0 or not found:
            found.append(([], []))
            room = wanted
        found[-1][0].append(each)
        found[-1][1].extend(atom)
        room -= sum(thing.bytes for thing in atom)
    return found
