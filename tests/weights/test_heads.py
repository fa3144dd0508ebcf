"""The table of heads against the dense matrices of the model itself, for every family; its difference against update."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from checkpoints import inspect, table
from families import ALL, tiny
from headtool.models import heads
from headtool.models.locate import locate
from headtool.scores.update import update


def dense(adapter, layer, part, head):
    """W (head_dim, width) of a head, by its module's own weight."""
    g = adapter.geometry
    block = adapter.block(layer)
    path = adapter.layout.out if part == "o" else heads.projection(adapter.layout, part)
    weight = block.get_submodule(path).weight.detach().double()
    weight = weight.T if adapter.layout.transposed else weight
    if part == "o":
        return weight[:, head * g.head_dim : (head + 1) * g.head_dim].T.numpy()
    return weight[heads.rows(adapter.layout, g, part, head if part == "q" else g.kv_head(head))].numpy()


def numbers(s):
    s = s[s > 1e-12 * s[0]]
    p = s / s.sum()
    return {
        "fro_norm": np.linalg.norm(s), "spectral_norm": s[0], "stable_rank": (s**2).sum() / s[0] ** 2,
        "effective_rank": np.exp(-(p * np.log(p)).sum()),
    }  # fmt: skip


@pytest.mark.parametrize("name", ALL)
def test_heads_of_every_family(capsys, tmp_path, name):
    adapter = tiny(name)
    adapter.model.save_pretrained(tmp_path / "model")
    said = inspect(capsys, tmp_path / "model", "-q", out=tmp_path / "run")
    assert said.code == 0, said.err
    found = table(tmp_path / "run", "heads")
    g = adapter.geometry
    assert found.height == g.layers * g.heads
    for row in found.iter_rows(named=True):
        layer, head = row["layer"], row["head"]
        assert row["kv_head"] == g.kv_head(head)
        w = {part: dense(adapter, layer, part, head) for part in "qkvo"}
        matrices = w | {"qk": w["q"].T @ w["k"], "ov": w["o"].T @ w["v"]}
        for part, matrix in matrices.items():
            told = numbers(np.linalg.svd(matrix, compute_uv=False))
            for column, value in told.items():
                assert row[f"{part}_{column}"] == pytest.approx(value, rel=2e-6), (name, part, column)
    parameters = table(tmp_path / "run")
    stored = {tensor.data_ptr(): tensor.numel() for tensor in adapter.model.state_dict().values()}  # tied ones once
    assert parameters["n_params"].sum() == sum(stored.values())
    assert set(parameters["rank_method"].unique()) <= {
        "gram32", "gram64", "skipped:vector", "skipped:bias", "skipped:integers"
    }  # fmt: skip


@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt_neox", "falcon", "phi3", "bert", "deberta-v2", "opt"])
def test_how_far_heads_moved_is_what_update_says(capsys, tmp_path, name):
    adapter = tiny(name)
    moved = copy.deepcopy(adapter.model)
    generator = torch.Generator().manual_seed(5)
    for parameter in moved.parameters():
        parameter.data += 0.01 * torch.randn(parameter.shape, generator=generator)
    for model, folder in ((adapter.model, "a"), (moved, "b")):
        model.save_pretrained(tmp_path / folder)
    said = inspect(capsys, tmp_path / "a", "--diff", tmp_path / "b", "-q", out=tmp_path / "run")
    assert said.code == 0, said.err
    found = table(tmp_path / "run", "heads_diff")
    told = update(locate(str(tmp_path / "a")), locate(str(tmp_path / "b")), adapter.layout, adapter.geometry, False)
    for column in ("U", "Urel", "Uq", "Uk", "Uv", "Uo"):
        np.testing.assert_allclose(found[column].to_numpy(), getattr(told, column).ravel(), rtol=1e-6)
