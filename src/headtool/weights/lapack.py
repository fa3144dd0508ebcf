"""Two routines of the BLAS and LAPACK that scipy exports, called so that other threads run meanwhile.

scipy's own wrappers hold Python's lock. numpy's let go of it, but compute a Gram matrix in full and take twice as long for
the eigenvalues of a float32 matrix.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
from collections.abc import Callable
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, FileFinder
from pathlib import Path
from typing import Any

import numpy as np

from headtool.errors import HeadtoolError

LETTERS = {np.dtype(np.float32): "s", np.dtype(np.float64): "d"}


def add_gram(total: np.ndarray, block: np.ndarray, tall: bool) -> None:
    """Add block^T block, where tall, else block block^T, to the lower triangle of a Fortran-ordered total (?syrk)."""
    block = np.ascontiguousarray(block, total.dtype)
    rows, columns = block.shape
    side, inner = (columns, rows) if tall else (rows, columns)
    if total.shape != (side, side) or not total.flags.f_contiguous:
        raise ValueError(f"a Gram matrix of {block.shape} is no {total.shape} in Fortran's order")
    if not block.size:
        return
    # Seen in Fortran's order a C-contiguous block is its own transpose: no copy is made.
    one = np.ones(1, total.dtype)
    _routine("blas", f"{LETTERS[total.dtype]}syrk", 10)(
        b"L", b"N" if tall else b"T", _int(side), _int(inner), one.ctypes.data, block.ctypes.data, _int(columns),
        one.ctypes.data, total.ctypes.data, _int(side),
    )  # fmt: skip


def eigenvalues(matrix: np.ndarray) -> np.ndarray:
    """The eigenvalues of a symmetric matrix of which the lower triangle is given, ascending, float64 (?syevd).

    Raises numpy.linalg.LinAlgError where they are not found.
    """
    work_on = np.array(matrix, order="F")  # it is overwritten
    side, info = len(work_on), ctypes.c_int()
    found = np.empty(side, work_on.dtype)
    work, integers, asks = np.empty(1, work_on.dtype), np.empty(1, np.int32), True
    while True:  # first it is asked how much room it wants
        _routine("lapack", f"{LETTERS[work_on.dtype]}syevd", 11)(
            b"N", b"L", _int(side), work_on.ctypes.data, _int(max(1, side)), found.ctypes.data, work.ctypes.data,
            _int(-1 if asks else len(work)), integers.ctypes.data, _int(-1 if asks else len(integers)),
            ctypes.addressof(info),
        )  # fmt: skip
        if info.value:
            raise np.linalg.LinAlgError(f"?syevd: {info.value}")
        if not asks:
            return found.astype(np.float64, copy=False)
        work, integers, asks = np.empty(int(work[0]), work_on.dtype), np.empty(int(integers[0]), np.int32), False


def ready() -> None:
    """Load the routines."""
    _routine("blas", "ssyrk", 10)
    _routine("lapack", "ssyevd", 11)


def _int(value: int) -> Any:
    return ctypes.byref(ctypes.c_int(value))


@cache
def _exports(room: str) -> dict[str, Any]:
    """What scipy.linalg.cython_blas or cython_lapack exports, without the rest of scipy.linalg, which takes longer to import
    than many a matrix.
    """
    import scipy

    finder = FileFinder(str(Path(scipy.__file__).parent / "linalg"), (ExtensionFileLoader, EXTENSION_SUFFIXES))
    spec = finder.find_spec(f"cython_{room}")
    if spec is None or spec.loader is None:
        return importlib.import_module(f"scipy.linalg.cython_{room}").__pyx_capi__
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.__pyx_capi__


@cache
def _routine(room: str, name: str, arguments: int) -> Callable[..., None]:
    """A routine by its name: scipy gives its address to whoever does not go through Python (scipy.linalg.cython_blas)."""
    capsule = _exports(room)[name]
    called, address = ctypes.pythonapi.PyCapsule_GetName, ctypes.pythonapi.PyCapsule_GetPointer
    called.restype, called.argtypes = ctypes.c_char_p, [ctypes.py_object]
    address.restype, address.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    signature = called(capsule)
    if b"int *" not in signature:
        raise HeadtoolError(f"this scipy's {name} takes other integers ({signature.decode()})", hint="scipy from PyPI")
    return ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * arguments)(address(capsule, signature))
