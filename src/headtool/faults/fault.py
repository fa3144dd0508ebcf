"""One fault: what is hit, where, and how; its identity, and the rows and heads that it reaches."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import astuple, dataclass

import torch

from headtool.errors import HeadtoolError
from headtool.faults import bits
from headtool.models.heads import Geometry
from headtool.models.sites import SITES, Edit

BY_KEY = ("scores", "weights")  # the column is a key position
SHARED = ("k", "v")  # the head is a key/value head, and its whole group reads what it holds


@dataclass(frozen=True)
class Fault:
    """A fault at (site, layer, sequence, head, row, column).

    row: position (the query's, for scores and weights; the key's, for k and v). column: component of head_dim, or for
    scores and weights the key's position. head: query head, or for k and v key/value head. bit is -1 where the pattern
    has none. keep and flip: the new bits are (old & keep) ^ flip.
    """

    phase: str
    site: str
    layer: int
    sequence: int
    head: int
    row: int
    column: int
    pattern: str
    bit: int
    keep: int
    flip: int
    seed: int
    width: int = 1  # columns that are hit, from column on

    @property
    def id(self) -> str:
        """A hash of what the fault is: 16 hexadecimal digits."""
        return hashlib.sha256(repr(astuple(self)).encode()).hexdigest()[:16]

    @property
    def element(self) -> tuple[str, int, int, int, int, int]:
        """What it hits; the bits of one element are a cluster."""
        return self.site, self.layer, self.sequence, self.head, self.row, self.column

    def heads(self, geometry: Geometry) -> range:
        """The query heads that it can reach."""
        if self.site in SHARED:
            return range(self.head * geometry.group, (self.head + 1) * geometry.group)
        return range(self.head, self.head + 1)

    def rows(self, length: int, causal: bool) -> range:
        """The query rows whose output it can reach."""
        if self.site in SHARED:
            return range(self.row if causal else 0, length)
        return range(self.row, self.row + 1)


def shape_of(site: str, geometry: Geometry, length: int) -> tuple[int, int, int]:
    """(heads, rows, columns) of a site for a sequence of a length."""
    heads = geometry.kv_heads if site in SHARED else geometry.heads
    return heads, length, length if site in BY_KEY else geometry.head_dim


def check_index(fault: Fault, geometry: Geometry, length: int) -> None:
    """Raise HeadtoolError for an index beyond the shape of its site."""
    limits = (geometry.layers, *shape_of(fault.site, geometry, length))
    named = zip(
        ("layer", "head", "row", "column"), (fault.layer, fault.head, fault.row, fault.column), limits, strict=True
    )
    for name, index, limit in named:
        if not 0 <= index < limit:
            raise HeadtoolError(f"{name} {index} at site {fault.site}: there are {limit}", hint="they count from 0")


def editing(faults: Sequence[Fault | None], heads: range, kv_heads: range, rows: range) -> Edit:
    """The edit that gives copy i fault i (None leaves it alone), where the tensors hold some heads and query rows only.

    All faults are of one site. heads, kv_heads and rows say which ones the tensors hold; k and v hold every position.
    """
    sites = {fault.site for fault in faults if fault is not None}
    assert len(sites) == 1
    site = sites.pop()
    assert site in SITES

    def edit(here: str, tensor: torch.Tensor) -> torch.Tensor:
        if here != site:
            return tensor
        changed = tensor.clone()
        index: list[tuple[int, int, int, int]] = []
        keep: list[int] = []
        flip: list[int] = []
        for copy, fault in enumerate(faults):
            if fault is None:
                continue
            head = fault.head - (kv_heads.start if site in SHARED else heads.start)
            row = fault.row - (0 if site in SHARED else rows.start)
            columns = range(fault.column, min(fault.column + fault.width, tensor.shape[-1]))
            index += [(copy, head, row, column) for column in columns]
            keep += [fault.keep] * len(columns)
            flip += [fault.flip] * len(columns)
        at = tuple(torch.tensor(axis, device=tensor.device) for axis in zip(*index, strict=True))
        kept, flipped = (bits.signed(each, tensor.dtype).to(tensor.device) for each in (keep, flip))
        changed[at] = bits.apply(changed[at], kept, flipped)
        return changed

    return edit
