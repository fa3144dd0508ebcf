"""Bit patterns of numbers as they are stored, and what a fault does to them."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import torch

from headtool.errors import HeadtoolError

INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
MANTISSA = {torch.float64: 52, torch.float32: 23, torch.float16: 10, torch.bfloat16: 7}
BURST, MULTI = 32, 2  # neighbours of a burst, bits of a multi-bit fault, where nobody says how many
WITHOUT_BIT = ("random", "value")


@dataclass(frozen=True)
class Pattern:
    """What a fault does to the element it hits.

    kind: flip (one bit), multi (so many bits), stuck0, stuck1 (one bit), random (all bits drawn), value (a given
    number), burst (one bit of so many neighbouring columns).
    """

    kind: str
    count: int = 1
    value: float = 0.0

    @property
    def name(self) -> str:
        more = {"multi": self.count, "burst": self.count, "value": self.value}.get(self.kind)
        return self.kind if more is None else f"{self.kind}:{more}"

    @property
    def width(self) -> int:
        """How many neighbouring columns it hits."""
        return self.count if self.kind == "burst" else 1

    @property
    def has_bit(self) -> bool:
        return self.kind not in WITHOUT_BIT


def parse(text: str) -> Pattern:
    """A pattern from flip, multi[:N], stuck0, stuck1, random, value:X or burst[:N]. Raises HeadtoolError for others."""
    kind, _, more = text.partition(":")
    if kind in ("flip", "stuck0", "stuck1", "random") and not more:
        return Pattern(kind)
    if kind in ("multi", "burst") and (not more or re.fullmatch(r"[1-9][0-9]{0,5}", more)):
        return Pattern(kind, int(more) if more else MULTI if kind == "multi" else BURST)
    if kind == "value":
        try:
            return Pattern(kind, value=float(more))
        except ValueError:
            pass
    hint = "flip, multi[:N], stuck0, stuck1, random, value:X or burst[:N]"
    raise HeadtoolError(f"--pattern {text}: there is no such pattern", hint=hint)


def bits_of(dtype: torch.dtype) -> int:
    """How many bits a number of a dtype has: they are counted from 0, the least of the mantissa."""
    return dtype.itemsize * 8


def field(bit: int, dtype: torch.dtype) -> str:
    """Sign, exponent or mantissa: the field of IEEE 754 (or bfloat16) that a bit belongs to."""
    if bit == bits_of(dtype) - 1:
        return "sign"
    return "exponent" if bit >= MANTISSA[dtype] else "mantissa"


def masks(pattern: Pattern, bit: int, dtype: torch.dtype, rng: np.random.Generator) -> tuple[int, int]:
    """(keep, flip) of a fault: the new pattern of bits is (old & keep) ^ flip. bit is -1 where the pattern has none.

    Raises HeadtoolError for more bits than there are.
    """
    width = bits_of(dtype)
    every = (1 << width) - 1
    if pattern.kind == "random":
        return 0, int(rng.integers(0, 1 << 32)) << 32 & every | int(rng.integers(0, 1 << 32)) & every
    if pattern.kind == "value":
        stored = torch.tensor([pattern.value], dtype=dtype).view(INTEGERS[dtype.itemsize])
        return 0, int(stored.item()) & every
    one = 1 << bit
    if pattern.kind == "stuck0":
        return every ^ one, 0
    if pattern.kind == "stuck1":
        return every ^ one, one
    if pattern.kind == "multi":
        if pattern.count > width:
            raise HeadtoolError(f"--pattern multi:{pattern.count}: there are {width} bits", hint="a smaller number")
        others = [other for other in range(width) if other != bit]
        drawn = rng.choice(others, pattern.count - 1, replace=False).tolist()
        return every, one | sum(1 << other for other in drawn)
    return every, one


def apply(values: torch.Tensor, keep: torch.Tensor, flip: torch.Tensor) -> torch.Tensor:
    """(bits of values & keep) ^ flip, as numbers: keep and flip are integers of the same width and shape, see signed."""
    stored = values.contiguous().view(INTEGERS[values.dtype.itemsize])
    return ((stored & keep) ^ flip).view(values.dtype)


def stored(x: torch.Tensor) -> tuple[int, float]:
    """(bits, value) of one number: its bits as an unsigned integer."""
    return int(x.view(INTEGERS[x.element_size()]).item()) % (1 << bits_of(x.dtype)), float(x)


def signed(patterns: list[int], dtype: torch.dtype) -> torch.Tensor:
    """Bit patterns (unsigned Python integers) as a tensor of the signed integers that have those bits."""
    width = bits_of(dtype)
    wrapped = [p - (1 << width) if p >> (width - 1) else p for p in patterns]
    return torch.tensor(wrapped, dtype=INTEGERS[dtype.itemsize])
