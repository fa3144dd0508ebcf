"""Finished runs of scores that need no model: numbers of a seed, written through the run directory's own code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from headtool.console import Console
from headtool.ranks import Share
from headtool.record import tables
from headtool.record.run import Run

LAYERS, HEADS = 6, 8
Columns = dict[str, Any]


def keys(layers: int = LAYERS, heads: int = HEADS) -> Columns:
    return {"layer": [i for i in range(layers) for _ in range(heads)], "head": list(range(heads)) * layers}


def importance(values: np.ndarray, n: int = 64) -> Columns:
    """The columns of the table importance that a report reads, with intervals of a width that n gives."""
    order = np.argsort(np.argsort(-values))
    width = 0.2 / n**0.5
    columns: Columns = {
        "I": values,
        "I_low": values - width,
        "I_high": values + width,
        "differs": np.abs(values) > 2 * width,
        "rank": order + 1,
        "rank_low": np.maximum(order - 1, 1),
        "rank_high": order + 3,
        "top_k_share": (order < 5).astype(float),
        "loss_base": np.full(len(values), 1.5),
        "loss_ablate": values + 1.5,
        "n": np.full(len(values), n),
    }
    return {name: column.tolist() for name, column in columns.items()}


def gradfisher(values: np.ndarray) -> Columns:
    g = np.abs(values)
    return {name: c.tolist() for name, c in {"G": g, "F": g**2 * 1.5, "Ppred": g / 3, "n": np.full(len(g), 64)}.items()}


def update(values: np.ndarray) -> Columns:
    u = np.abs(values)
    return {"U": u.tolist(), "Urel": (u / 7).tolist()} | {f"U{x}": (u / 2).tolist() for x in "qkvo"}


def make(
    path: Path,
    content: dict[str, Columns],
    *,
    model: str = "base",
    init: str | None = None,
    seed: int = 42,
    label: str = "toy",
    layers: int = LAYERS,
    heads: int = HEADS,
    family: str = "llama",
    finish: bool = True,
    scores: tuple[str, ...] = (),
    rows: str = "rows",
) -> Path:
    """A run directory with these tables; model and init stand for the hashes of the files."""
    arguments = {"model": label, "init": init, "seed": seed, "scores": ",".join(content), "top_k": 5}
    inputs = {"model": label, "weights_sha256": model, "data": "built-in:demo"} | (
        {"init_sha256": init} if init else {}
    )
    run = Run.start(
        "score", arguments, inputs, label=label, out=path, force=False, console=Console(quiet=True), share=Share()
    )
    with run:
        run.manifest["data"] = {"rows_sha256": rows}
        run.manifest["model"] = {"label": label, "model_type": family, "layers": layers, "heads": heads}
        for name, columns in content.items():
            run.write(name, tables.build(name, keys(layers, heads) | columns, scores))
        if finish:
            run.finish()
    return path


def pair(folder: Path, seed: int = 42, name: str = "", noise: float = 0.5) -> list[Path]:
    """Three runs of a seed: ablation and, apart, gradient and forward scores before; ablation and update after."""
    rng = np.random.default_rng(seed)
    n = LAYERS * HEADS
    before = np.random.default_rng(0).normal(size=n) * 0.1 + rng.normal(size=n) * 0.1 * noise
    after, moved = before + rng.normal(size=n) * 0.05, np.exp(rng.normal(size=n))
    forward = {"out_raw": rng.gamma(2, size=n).tolist(), "out_se": [0.1] * n, "out_n": [64] * n}
    tag = f"{name}{seed}"
    init, final = f"init-{seed}", f"final-{tag}"
    return [
        make(folder / f"pre-{tag}", {"importance": importance(before)}, model=init, seed=seed),
        make(
            folder / f"grad-{tag}",
            {"gradfisher": gradfisher(before + rng.normal(size=n) * 0.05), "scores_raw": forward},
            model=init,
            seed=seed,
            scores=("out",),
        ),
        make(
            folder / f"post-{tag}",
            {"importance": importance(after), "update": update(moved)},
            model=final,
            init=init,
            seed=seed,
        ),
    ]
