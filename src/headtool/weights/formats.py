"""How safetensors stores numbers: element types, their rounding, and the way back to floats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np


@dataclass(frozen=True)
class Format:
    """A stored element type: the numpy type of its bits, and for floats its machine epsilon (torch.finfo's eps)."""

    bits: np.dtype
    eps: float | None = None
    packed: bool = False  # are these codes that mean nothing without scales?

    @property
    def wide(self) -> np.dtype:
        """The type its values are computed in."""
        small = self.eps is not None and self.bits.itemsize <= 4
        return np.dtype(np.float32 if small else np.float64)


FORMATS = {
    "F64": Format(np.dtype("<f8"), 2.0**-52),
    "F32": Format(np.dtype("<f4"), 2.0**-23),
    "F16": Format(np.dtype("<f2"), 2.0**-10),
    "BF16": Format(np.dtype("<u2"), 2.0**-7),
    "F8_E4M3": Format(np.dtype("u1"), 2.0**-3, packed=True),
    "F8_E5M2": Format(np.dtype("u1"), 2.0**-2, packed=True),
    "I64": Format(np.dtype("<i8")),
    "I32": Format(np.dtype("<i4")),
    "I16": Format(np.dtype("<i2")),
    "I8": Format(np.dtype("i1"), packed=True),
    "U64": Format(np.dtype("<u8")),
    "U32": Format(np.dtype("<u4")),
    "U16": Format(np.dtype("<u2")),
    "U8": Format(np.dtype("u1"), packed=True),
    "BOOL": Format(np.dtype("u1")),
}


def widener(dtype: str, ordered: bool = True) -> Callable[[np.ndarray, np.ndarray], None]:
    """A function that writes stored elements into an array of the format's wide type, exactly; both C-contiguous.

    Not ordered, they may come in another order, where that is faster.
    """
    if dtype == "BF16":
        return _bf16 if ordered else _bf16_in_halves
    if dtype == "F16":
        return _f16
    if dtype.startswith("F8"):
        table = _float8(dtype)
        return lambda stored, out: np.copyto(out, table[stored])
    return lambda stored, out: np.copyto(out, stored, casting="unsafe")


def _bf16(stored: np.ndarray, out: np.ndarray) -> None:
    """bfloat16 is the upper half of a float32. Two steps are faster than one that converts on the way."""
    bits = out.view(np.uint32)
    np.copyto(bits, stored)
    np.left_shift(bits, 16, out=bits)


def _bf16_in_halves(stored: np.ndarray, out: np.ndarray) -> None:
    """Two neighbours at a time, as one integer of 32 bits: the lower ones to the first half of out, the upper to the second."""
    if stored.size % 2:
        return _bf16(stored, out)
    pairs, bits = stored.reshape(-1).view("<u4"), out.reshape(-1).view(np.uint32)
    half = len(pairs)
    np.left_shift(pairs, 16, out=bits[:half])
    np.bitwise_and(pairs, np.uint32(0xFFFF0000), out=bits[half:])


def _f16(stored: np.ndarray, out: np.ndarray) -> None:
    """float16 through integers, six times faster than the processor-independent cast: move exponent and fraction to
    their places in a float32, then scale by 2^112, which subnormals survive. Infinity and NaN take the slow way.
    """
    codes = stored.view(np.uint16)
    bits = out.view(np.uint32)
    np.bitwise_and(codes, 0x7FFF, out=bits, dtype=np.uint32, casting="unsafe")
    if bits.size and int(bits.max()) >= 0x7C00:
        np.copyto(out, stored)
        return
    np.left_shift(bits, 13, out=bits)
    np.multiply(out, np.float32(2.0**112), out=out)
    signs = np.bitwise_and(codes, 0x8000).astype(np.uint32)
    np.left_shift(signs, 16, out=signs)
    np.bitwise_or(bits, signs, out=bits)


@cache
def _float8(dtype: str) -> np.ndarray:
    """The value of each of the 256 codes: OCP E4M3 (finite but for one NaN) or E5M2 (as IEEE 754)."""
    codes = np.arange(256)
    fraction_bits, bias = (3, 7) if dtype == "F8_E4M3" else (2, 15)
    exponent, fraction = (codes & 0x7F) >> fraction_bits, codes & ((1 << fraction_bits) - 1)
    normal = (1 + fraction / (1 << fraction_bits)) * 2.0 ** (exponent - bias)
    value = np.where(exponent > 0, normal, fraction / (1 << fraction_bits) * 2.0 ** (1 - bias))
    if dtype == "F8_E4M3":
        value[(codes & 0x7F) == 0x7F] = np.nan
    else:
        value[exponent == 31] = np.where(fraction[exponent == 31] > 0, np.nan, np.inf)
    return np.where(codes & 0x80, -value, value).astype(np.float32)
