"""The heads of a layer: norms and spectra of their slices of W_Q, W_K, W_V and W_O, and of their QK and OV circuits."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from headtool.models import heads
from headtool.models.layout import Layout
from headtool.weights.spectrum import resolved, shares

PARTS = ("q", "k", "v", "o")
SLICE = ("fro_norm", "spectral_norm", "stable_rank", "effective_rank", "rank_90")
CIRCUIT = ("fro_norm", "spectral_norm", "stable_rank", "effective_rank")


def slice_grams(matrix: np.ndarray, layout: Layout, geometry: heads.Geometry, part: str) -> np.ndarray:
    """W W^T of each head's slice W (head_dim, width), float64: (head or kv head, head_dim, head_dim).

    matrix is the stored weight that holds the part, fused or not, (in, out) where the layout says so; of o the slice
    is the transpose of the head's columns.
    """
    weight = matrix.T if layout.transposed else matrix
    d = geometry.head_dim
    count = geometry.heads if part in ("q", "o") else geometry.kv_heads
    found = np.empty((count, d, d))
    for head in range(count):
        rows, cols = part_of(layout, geometry, part, head)
        taken = weight[rows, cols]
        wide = np.ascontiguousarray(taken.T if part == "o" else taken, np.float64)
        found[head] = wide @ wide.T
    return found


def part_of(layout: Layout, geometry: heads.Geometry, part: str, head: int) -> tuple[slice, slice]:
    """Rows and columns of a head's slice in the weight (out, in) that holds it; head is a kv head for k and v."""
    if part == "o":
        return slice(None), slice(head * geometry.head_dim, (head + 1) * geometry.head_dim)
    return heads.rows(layout, geometry, part, head), slice(None)  # type: ignore[arg-type]


def rows(grams: Mapping[str, np.ndarray], geometry: heads.Geometry) -> dict[str, np.ndarray]:
    """The columns of the table heads for one layer, from the Gram matrices of the four parts: name -> (head,).

    The QK circuit is W_Q^T W_K, the OV circuit W_O W_V (both width x width, of rank head_dim at most). Their singular
    values are the square roots of the eigenvalues of L^T G L, with G the Gram matrix of the one slice and L L^T that
    of the other: nothing of size width x width is made. Biases, norms, rotary positions and the scale of the scores are left out.

    Source: Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits".
    """
    of_head = np.array([geometry.kv_head(head) for head in range(geometry.heads)])
    by_head = {part: gram if part in ("q", "o") else gram[of_head] for part, gram in grams.items()}
    told: dict[str, np.ndarray] = {}
    for part in PARTS:
        found = _singular(np.linalg.eigvalsh(grams[part]))
        columns = _numbers(found, SLICE)
        take = slice(None) if part in ("q", "o") else of_head
        told |= {f"{part}_{name}": values[take] for name, values in columns.items()}
    for circuit, (outer, inner) in {"qk": ("q", "k"), "ov": ("o", "v")}.items():
        root = _root(by_head[outer])
        found = _singular(np.linalg.eigvalsh(root.swapaxes(1, 2) @ by_head[inner] @ root))
        told |= {f"{circuit}_{name}": values for name, values in _numbers(found, CIRCUIT).items()}
    return told


def _root(grams: np.ndarray) -> np.ndarray:
    """L with L L^T = G: Cholesky's, or where G is singular the one from its eigenvectors."""
    try:
        return np.linalg.cholesky(grams)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(grams)
        return vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]


def _singular(eigen: np.ndarray) -> np.ndarray:
    """Singular values, descending, from the eigenvalues of Gram matrices: (head, head_dim)."""
    floor = resolved(eigen.shape[-1]) * eigen[:, -1:]
    return np.sqrt(np.where(eigen > np.maximum(floor, 0.0), eigen, 0.0))[:, ::-1]


def _numbers(values: np.ndarray, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    told = {name: np.empty(len(values)) for name in names}
    for head, s in enumerate(values):
        all_of = {"fro_norm": float(np.linalg.norm(s)), "spectral_norm": float(s[0])} | shares(s)
        for name in names:
            told[name][head] = all_of[name]
    return told
