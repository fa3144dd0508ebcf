"""From parts to what a reader gets: tables, figures, the closing words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from headtool.figures.files import save
from headtool.record import tables
from headtool.record.files import whole_part, write_text
from headtool.record.run import Run
from headtool.weights import compare
from headtool.weights.inspection import Inspection, word_embedding
from headtool.weights.plan import Item
from headtool.weights.work import INTEGERS, NUMBERS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLOCK = 1 << 22  # bytes of two tensors compared at a time
NORMS = {"q": "W_Q", "k": "W_K", "v": "W_V", "o": "W_O", "qk": "the QK circuit", "ov": "the OV circuit"}
SHOWN_HEADS = {f"Frobenius norm of {told}": f"{part}_fro_norm" for part, told in NORMS.items()}


def write(run: Run, found: Inspection, parts: Path, ask: SimpleNamespace) -> None:
    """Write every table and figure of an inspection from its parts."""
    with run.clock.phase("write"):
        examined = [whole_part(parts / chunk.part) for chunk in found.chunks]
        columns, spectra = _parameters(run, found, examined)
        _save(run, "inspect.parameters", columns, ask)
        heads = _heads(examined, found)
        if heads:
            _save(run, "inspect.heads", heads, ask)
        if found.groups:
            compared = [whole_part(parts / group.part) for group in found.groups]
            _save(run, "inspect.diff", _diff(found, compared), ask)
            moved = _heads(compared, found, kv=False)
            if moved:
                _save(run, "inspect.heads_diff", moved, ask)
        run.manifest["model"] = _facts(found)
    if ask.embedding:
        from headtool.weights import clusters

        with run.clock.phase("clusters"):
            item = word_embedding(found.items, found.checkpoint)
            assert item is not None  # seen to when the inspection was planned
            made = clusters.cluster(run, found.checkpoint, item, ask)
            for name, table in made.tables.items():
                _save(run, name, table, ask)
            write_text(run.path / "embedding.md", made.report())
    if ask.figures:
        with run.clock.phase("figures"):
            for name, figure in _figures(found, columns, spectra, heads).items():
                save(figure, run.path / "figures" / name)
            if ask.embedding:
                for name, figure in made.figures().items():
                    save(figure, run.path / "figures" / name)


def _save(run: Run, name: str, columns: Mapping[str, Sequence[Any]], ask: SimpleNamespace) -> None:
    run.write(name, tables.build(name, columns), lines=ask.format == "jsonl", document=ask.format == "json")


Part = Mapping[str, np.ndarray]


def _parameters(run: Run, found: Inspection, parts: Sequence[Part]) -> tuple[dict[str, list[Any]], list[np.ndarray]]:
    """The columns of the table parameters, and beside them the points of each spectrum, in the same order."""
    checkpoint = found.checkpoint
    by_name: dict[str, dict[str, Any]] = {}
    for chunk, part in zip(found.chunks, parts, strict=True):
        for i, item in enumerate(chunk.items):
            row = zip(NUMBERS, part["numbers"][i], strict=True)
            numbers: dict[str, Any] = {name: _number(value, name in INTEGERS) for name, value in row}
            by_name[item.name] = numbers | {"rank_method": str(part["method"][i]), "spectrum": part["spectrum"][i]}
    items = sorted(found.items, key=lambda item: item.name)
    duplicates, tied = _duplicates(found, items, by_name), _tied(found, items)
    columns: dict[str, list[Any]] = {
        "model_path": [checkpoint.path] * len(items),
        "model_id": [checkpoint.model_id] * len(items),
        "revision": [checkpoint.revision] * len(items),
        "param_name": [item.name for item in items],
        "layer_index": [item.told.layer for item in items],
        "block_type": [item.told.block_type for item in items],
        "expert": [item.told.expert for item in items],
        "shape": ["x".join(map(str, item.tensor.shape)) for item in items],
        "rows": [item.rows for item in items],
        "cols": [None if item.vector else item.cols for item in items],
        "n_params": [item.rows * item.cols for item in items],
        "dtype": [item.tensor.dtype for item in items],
        "quantisation": [item.quantisation or None for item in items],
        **{name: [by_name[item.name][name] for item in items] for name in (*NUMBERS, "rank_method")},
        "tied_to": [tied.get(item.name) for item in items],
        "duplicate_of": [duplicates.get(item.name) for item in items],
        "created_at": [run.manifest["started"]] * len(items),
    }
    return columns, [by_name[item.name]["spectrum"] for item in items]


def _number(value: float, integer: bool) -> float | int | None:
    if not np.isfinite(value):
        return None
    return int(value) if integer else float(value)


def _duplicates(found: Inspection, items: Sequence[Item], by_name: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Name -> the first parameter with the same type, shape and bytes. Constants (norms as they were made) are left out.

    Tensors whose statistics all agree are compared byte by byte; of those on the hub the statistics have to do.
    """
    first: dict[tuple[Any, ...], list[Item]] = {}
    same: dict[str, str] = {}
    for item in items:
        told = by_name[item.name]
        if not told["std"]:
            continue
        key = (item.tensor.dtype, item.rows, item.cols, *(told[name] for name in NUMBERS))
        for other in first.get(key, ()):
            if _same_bytes(found, item, other):
                same[item.name] = other.name
                break
        else:
            first.setdefault(key, []).append(item)
    return same


def _same_bytes(found: Inspection, a: Item, b: Item) -> bool:
    if found.checkpoint.folder is None:
        return True
    mine, theirs = bytearray(BLOCK), bytearray(BLOCK)
    for start in range(0, a.bytes, BLOCK):
        n = min(BLOCK, a.bytes - start)
        for item, room in ((a, mine), (b, theirs)):
            found.checkpoint.read(item.tensor, item.offset + start, memoryview(room)[:n])
        if mine[:n] != theirs[:n]:
            return False
    return True


def _tied(found: Inspection, items: Sequence[Item]) -> dict[str, str]:
    """What config.json ties: the stored output matrix to the embedding, or the embedding to an output that is not stored."""
    config = found.checkpoint.config
    embedding = word_embedding(found.items, found.checkpoint)
    if embedding is None or not config.get("tie_word_embeddings"):
        return {}
    outputs = [
        item for item in items
        if item.told.block_type == "output" and (item.rows, item.cols) == (embedding.rows, embedding.cols)
    ]  # fmt: skip
    if outputs:
        return {item.name: embedding.name for item in outputs}
    return {embedding.name: "output (not stored)"}


def _heads(parts: Sequence[Part], found: Inspection, kv: bool = True) -> dict[str, list[Any]]:
    """The columns of a table of heads from the parts that hold some; none where there are none."""
    held = [part for part in parts if "heads" in part]
    if not held or found.attention is None:
        return {}
    values = np.concatenate([part["heads"] for part in held])
    told = dict(zip(held[0]["heads_names"].tolist(), values.T, strict=True))
    g = found.attention.geometry
    count = len(told["layer"]) // g.heads
    columns: dict[str, list[Any]] = {
        "layer": told.pop("layer").astype(int).tolist(),
        "head": list(range(g.heads)) * count,
    }
    if kv:
        columns["kv_head"] = [g.kv_head(head) for head in columns["head"]]
    return columns | {
        name: [_number(value, name.endswith("rank_90")) for value in values] for name, values in told.items()
    }


def _diff(found: Inspection, parts: Sequence[Part]) -> dict[str, list[Any]]:
    """The columns of the table diff."""
    rows: list[dict[str, Any]] = []
    for group, part in zip(found.groups, parts, strict=True):
        for i, pair in enumerate(group.pairs):
            row = zip(compare.NUMBERS, part["numbers"][i], strict=True)
            numbers = {name: _number(value, name in ("rank", "rank_resolved", "n_changed")) for name, value in row}
            rows.append(
                numbers | {
                    "param_name": pair.item.name, "layer_index": pair.item.told.layer,
                    "block_type": pair.item.told.block_type, "status": str(part["status"][i]),
                    "rank_method": str(part["method"][i]) or None,
                }
                | {f"{what}{suffix}": value for suffix, side in (("", pair.a), ("_b", pair.b))
                   for what, value in _sides(side).items()}
            )  # fmt: skip
    return {name: [row[name] for row in rows] for name in rows[0]}


def _sides(item: Item | None) -> dict[str, str | None]:
    if item is None:
        return {"shape": None, "dtype": None}
    return {"shape": "x".join(map(str, item.tensor.shape)), "dtype": item.tensor.dtype}


def _facts(found: Inspection) -> dict[str, Any]:
    """What the manifest says of the model."""
    c, attention = found.checkpoint, found.attention
    facts: dict[str, Any] = {
        "label": c.label, "id": c.model_id, "revision": c.revision, "model_type": c.config.get("model_type"),
        "tensors": len(c.tensors), "parameters": sum(t.elements for t in c.tensors), "bytes": c.bytes,
        "dtypes": sorted({t.dtype for t in c.tensors}),
    }  # fmt: skip
    if attention is not None:
        g = attention.geometry
        facts |= {
            "layers": g.layers,
            "heads": g.heads,
            "kv_heads": g.kv_heads,
            "head_dim": g.head_dim,
            "width": g.width,
        }
    return facts


def _figures(
    found: Inspection, columns: Mapping[str, list[Any]], spectra: Sequence[np.ndarray], heads: Mapping[str, list[Any]]
) -> dict[str, Figure]:
    """The figures that the tables allow, by file name."""
    from headtool.figures.heatmap import heatmaps
    from headtool.figures.ranks import ranks
    from headtool.figures.spectra import spectra as drawn

    label = found.checkpoint.label
    made: dict[str, Figure] = {}
    placed = [
        i for i, (layer, rank) in enumerate(zip(columns["layer_index"], columns["rank"], strict=True))
        if layer is not None and rank is not None
    ]  # fmt: skip
    if placed:
        kept = {
            name: [columns[name][i] for i in placed]
            for name in ("layer_index", "block_type", "rank", "rank_resolved", "effective_rank", "rows", "cols")
        }
        made["ranks"] = ranks(kept, f"{label}: ranks over the smaller side")
        made["spectra"] = drawn(
            kept["layer_index"], kept["block_type"], [spectra[i] for i in placed], f"{label}: singular values"
        )
    if heads:
        frame = tables.build("inspect.heads", heads)
        shared = frame["kv_head"].n_unique() < frame["head"].n_unique()
        shown = {f"{told}: its key/value head's" if shared and told.endswith(("W_K", "W_V")) else told: column
                 for told, column in SHOWN_HEADS.items()}  # fmt: skip
        made["heads"] = heatmaps(frame, shown, f"{label}: heads", most_across=3, span=4.8)
    return made
