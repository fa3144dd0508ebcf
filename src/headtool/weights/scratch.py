"""Arrays that are used again and again: fresh memory costs as much as adding up what is written there."""

from __future__ import annotations

import threading

import numpy as np

CACHE_LINE = 64  # bytes; arrays that begin elsewhere are read a few per cent slower
LARGEST = 1 << 20  # elements up to which an array is kept


class _Kept(threading.local):
    def __init__(self) -> None:
        self.arrays: dict[tuple[str, np.dtype], np.ndarray] = {}


_kept = _Kept()


def scratch(use: str, size: int, dtype: np.dtype) -> np.ndarray:
    """An array of this many elements, with whatever was in it: the same one whenever a thread asks for this use and type."""
    held = _kept.arrays.get((use, dtype))
    if held is None or held.size < size:
        room = np.empty(size * dtype.itemsize + CACHE_LINE, np.uint8)
        start = -room.ctypes.data % CACHE_LINE
        held = room[start : start + size * dtype.itemsize].view(dtype)
        if size <= LARGEST:
            _kept.arrays[use, dtype] = held
    return held[:size]
