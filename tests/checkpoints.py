"""Checkpoints made for a test: tensors in one file or in shards, and the tables of an inspection."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import torch
from safetensors.torch import save_file

from shell import Said, call

INDEX = "model.safetensors.index.json"


def write(folder: Path, tensors: dict[str, torch.Tensor], config: dict | None = None, shards: int = 1) -> Path:
    """A model folder with these tensors, in one file or dealt out over shards with an index."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    if shards == 1:
        save_file(tensors, folder / "model.safetensors")
        return folder
    files = [f"model-{i + 1:05d}-of-{shards:05d}.safetensors" for i in range(shards)]
    for i, file in enumerate(files):
        save_file({name: tensors[name] for name in list(tensors)[i::shards]}, folder / file)
    placed = {name: files[i % shards] for i, name in enumerate(tensors)}
    (folder / INDEX).write_text(json.dumps({"weight_map": placed}))
    return folder


def inspect(capsys, path, *args, out: Path) -> Said:
    """headtool inspect-weights without figures, into a directory."""
    return call(capsys, "inspect-weights", path, "--no-figures", "--out", out, "--threads", 1, *args)


def table(run: Path, name: str = "parameters") -> pl.DataFrame:
    return pl.read_parquet(run / "tables" / f"{name}.parquet")


def rows(run: Path, name: str = "parameters") -> dict[str, dict]:
    return {row["param_name"]: row for row in table(run, name).iter_rows(named=True)}
