"""The geometry of heads: how many, how wide, which rows and columns of which matrix are whose."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from headtool.errors import HeadtoolError
from headtool.models.layout import Layout

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Geometry:
    """The shape of a model's attention, the same in every layer."""

    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    width: int

    @property
    def group(self) -> int:
        """Query heads a key/value head."""
        return self.heads // self.kv_heads

    def kv_head(self, head: int) -> int:
        """The key/value head that a query head reads."""
        return head // self.group


def rows(layout: Layout, geometry: Geometry, part: Literal["q", "k", "v"], head: int) -> slice:
    """The output rows of a head's slice in the projection that holds it (the fused one, where it is fused).

    head is a query head for q and a key/value head for k and v.
    """
    g, d = geometry, geometry.head_dim
    if layout.packing == "separate":
        start = head
    elif layout.packing == "concat":
        start = {"q": 0, "k": g.heads, "v": g.heads + g.kv_heads}[part] + head
    elif part == "q":  # grouped: q heads of the group, then its k, then its v
        start = g.kv_head(head) * (g.group + 2) + head % g.group
    else:
        start = head * (g.group + 2) + g.group + (part == "v")
    return slice(start * d, (start + 1) * d)


def projection(layout: Layout, part: Literal["q", "k", "v"]) -> str:
    """The path, from a block, of the module that holds a part."""
    path = layout.qkv or {"q": layout.query, "k": layout.key, "v": layout.value}[part]
    assert path is not None  # a layout has either qkv or all three
    return path


def submodule(root: Any, path: str) -> Any:
    """The module at a dotted path. Raises HeadtoolError where there is none."""
    try:
        return root.get_submodule(path)
    except AttributeError as error:
        raise HeadtoolError(
            f"the model has no module '{path}' where its family has one",
            hint="it may be another family's: give another --family, or leave it out",
        ) from error


def matrix(module: Any, layout: Layout) -> torch.Tensor:
    """A projection's weight as (out, in), whatever way round it is stored. Raises HeadtoolError if it is quantised."""
    weight = module.weight
    if not weight.is_floating_point() or weight.dim() != 2:
        raise HeadtoolError("the weights are quantised, and have no per-head slices to read", hint="leave out resid")
    return weight.T if layout.transposed else weight


def runs_on(module: Any) -> torch.device:
    """The device that a module runs on, wherever its weights wait for it."""
    hook = getattr(module, "_hf_hook", None)  # accelerate's, of a model that is spread
    if module.weight.device.type == "meta" and hook is not None:
        import torch  # this module is read without it

        return torch.device(hook.execution_device)
    return module.weight.device


def in_memory(module: Any) -> AbstractContextManager[None]:
    """Have a module's weights in memory inside, of a model that is spread over memory and disk."""
    from accelerate.utils import align_module_device

    return align_module_device(module)


def measure(blocks: Any, layout: Layout, heads: int, width: int) -> Geometry:
    """The geometry, read from the shapes of the weights of every layer.

    Raises HeadtoolError where shapes and head counts do not fit, or where layers differ.
    """
    found = set()
    for block in blocks:
        inner = _features(submodule(block, layout.out), layout)[1]
        k_rows = _features(submodule(block, projection(layout, "k")), layout)[0]
        found.add(fit(layout, heads, inner, k_rows))
    return uniform(found, len(blocks), heads, width)


def fit(layout: Layout, heads: int, inner: int, k_rows: int) -> tuple[int, int]:
    """(kv_heads, head_dim) of a layer whose output projection takes inner features, and whose key projection (the fused
    one, where it is fused) gives k_rows. Raises HeadtoolError where they do not fit the heads.
    """
    if inner % heads:
        raise HeadtoolError(
            f"the output projection takes {inner} features, which {heads} heads cannot share",
            hint="give another --family, or leave it out",
        )
    head_dim = inner // heads
    kv_heads = (k_rows // head_dim - heads) // 2 if layout.qkv else k_rows // head_dim
    fits = (
        kv_heads > 0
        and heads % kv_heads == 0
        and k_rows == head_dim * ((heads + 2 * kv_heads) if layout.qkv else kv_heads)
    )
    if not fits:
        raise HeadtoolError(
            f"a key projection of {k_rows} rows does not fit {heads} heads of {head_dim}",
            hint="give another --family, or leave it out",
        )
    return kv_heads, head_dim


def uniform(found: set[tuple[int, int]], layers: int, heads: int, width: int) -> Geometry:
    """The geometry of layers that are all of one (kv_heads, head_dim). Raises HeadtoolError where they differ."""
    if len(found) != 1:
        raise HeadtoolError(
            "the layers differ in their heads, which one table of heads cannot show", hint="see docs/families.md"
        )
    kv_heads, head_dim = found.pop()
    return Geometry(layers, heads, kv_heads, head_dim, width)


def _features(module: Any, layout: Layout) -> tuple[int, int]:
    """(out, in) of a projection, quantised or not."""
    if hasattr(module, "out_features"):
        return int(module.out_features), int(module.in_features)
    shape = tuple(module.weight.shape)
    return (shape[1], shape[0]) if layout.transposed else (shape[0], shape[1])
