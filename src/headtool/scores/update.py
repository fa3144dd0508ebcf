"""Weight update: how far each head's weights moved between two checkpoints, read from their files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headtool.errors import HeadtoolError
from headtool.models import checkpoint, heads
from headtool.models.layout import Layout
from headtool.models.locate import Located

NAMES = ("update",)
NEEDS = "weights"
PARTS = ("q", "k", "v", "o")


@dataclass(frozen=True)
class Update:
    """U, Urel and their parts: (layer, head) each."""

    U: np.ndarray
    Urel: np.ndarray
    Uq: np.ndarray
    Uk: np.ndarray
    Uv: np.ndarray
    Uo: np.ndarray


def update(before: Located, after: Located, layout: Layout, geometry: heads.Geometry, bias: bool) -> Update:
    """The update of every head, in float64, a layer at a time; the models are not built.

    Ux is the Frobenius norm of the change of the head's slice, x in q, k, v (rows of W) and o (columns of W_O);
    U = sqrt(Uq^2 + Uk^2 + Uv^2 + Uo^2), Urel = U / (|Wq0| + |Wk0| + |Wv0| + |Wo0|). With bias, q, k and v take their
    biases as one more column. The key and value slices of a kv head count for every head of its group.

    Raises HeadtoolError for checkpoints whose tensors are missing or of other shapes.

    Source: docs/methods.md, "Weight update".
    """
    g = geometry
    old, new = Tensors(before.folder), Tensors(after.folder)
    moved, size = np.zeros((2, len(PARTS), g.layers, g.heads))
    for layer in range(g.layers):
        for p, part in enumerate(PARTS):
            was, now = (_matrix(tensors, layout, layer, part, bias) for tensors in (old, new))
            if was.shape != now.shape:
                raise HeadtoolError(
                    f"layer {layer}: the {part} weights are {was.shape} in {before.folder} and {now.shape} in {after.folder}",
                    hint="--init takes the checkpoint that the model was fine-tuned from",
                )
            for head in range(g.heads):
                at = _slice(layout, g, part, head)
                moved[p, layer, head] = np.linalg.norm(now[at] - was[at])
                size[p, layer, head] = np.linalg.norm(was[at])
    U = np.sqrt((moved**2).sum(0))
    total = size.sum(0)
    Urel = np.divide(U, total, out=np.zeros_like(U), where=total > 0)
    return Update(U, Urel, *moved)


class Tensors:
    """The tensors of a checkpoint, by what their names end with: task heads prefix them differently."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file_of = {name: file for file in checkpoint.weight_files(folder) for name in checkpoint.header(file)}
        self.known: dict[str, np.ndarray] = {}

    def read(self, ending: str) -> np.ndarray | None:
        """The tensor whose name is the ending, or ends with it after a dot, as float64; None if there is none."""
        import torch
        from safetensors import safe_open

        if ending not in self.known:
            found = [name for name in self.file_of if re.search(rf"(^|\.){re.escape(ending)}$", name)]
            if len(found) > 1:
                raise HeadtoolError(f"{self.folder}: several tensors are named ...{ending}", hint=", ".join(found[:3]))
            if not found:
                return None
            with safe_open(self.file_of[found[0]], framework="pt") as file:
                tensor: Any = file.get_tensor(found[0])
            if not tensor.is_floating_point():
                raise HeadtoolError(f"{self.folder}: {found[0]} is quantised", hint="update needs weights as numbers")
            self.known.clear()  # a fused projection is asked for three times in a row
            self.known[ending] = tensor.to(torch.float64).numpy()
        return self.known[ending]


def _matrix(tensors: Tensors, layout: Layout, layer: int, part: str, bias: bool) -> np.ndarray:
    """W (out, in) of a projection, for q, k and v with its bias as the last column if that is asked for."""
    path = layout.out if part == "o" else heads.projection(layout, part)  # type: ignore[arg-type]
    name = f"{layout.blocks}.{layer}.{path}"
    weight = tensors.read(f"{name}.weight")
    if weight is None or weight.ndim != 2:
        raise HeadtoolError(f"{tensors.folder}: there is no matrix {name}.weight", hint="is it of the same family?")
    matrix = weight.T if layout.transposed else weight
    if bias and part != "o":
        extra = tensors.read(f"{name}.bias")
        if extra is not None:
            matrix = np.concatenate([matrix, extra[:, None]], 1)
    return matrix


def _slice(layout: Layout, geometry: heads.Geometry, part: str, head: int) -> tuple[slice, slice]:
    everything = slice(None)
    if part == "o":
        return everything, slice(head * geometry.head_dim, (head + 1) * geometry.head_dim)
    which = head if part == "q" else geometry.kv_head(head)
    return heads.rows(layout, geometry, part, which), everything  # type: ignore[arg-type]
