"""inspect-weights, given what is odd, beyond the table of tests/bad_input: what is read all the same, and with what warning."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from bad_input.case import config, header
from checkpoints import INDEX, inspect, rows, write
from headtool.models.locate import locate


@pytest.fixture
def folder(tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(locate("demo").folder, copy)
    return copy


@pytest.fixture
def sharded(tmp_path):
    made = {f"model.layers.{i}.mlp.up_proj.weight": torch.randn(6, 4) for i in range(4)}
    return write(tmp_path / "sharded", made, {"model_type": "llama"}, shards=2)


def test_a_type_that_nobody_knows(capsys, folder, tmp_path):
    header(lambda entries: entries["model.norm.weight"].update(dtype="F4_NEW"))(folder)
    said = inspect(capsys, folder, "-q", out=tmp_path / "run")
    assert said.code == 0, said.err
    row = rows(tmp_path / "run")["model.norm.weight"]
    assert (row["dtype"], row["rank_method"], row["mean"]) == ("F4_NEW", "skipped:type F4_NEW", None)


def test_a_shard_that_the_index_does_not_name(capsys, sharded, tmp_path):
    """Followed is the index, with a warning that names the file: Mistral's repositories hold a second copy."""
    shutil.copy(sharded / "model-00001-of-00002.safetensors", sharded / "consolidated.safetensors")
    said = inspect(capsys, sharded, "-q", out=tmp_path / "run")
    assert said.code == 0, said.err
    assert "consolidated.safetensors is not in the index and is left out" in said.err
    assert len(rows(tmp_path / "run")) == 4


def test_a_shard_that_holds_more_than_the_index_says(capsys, sharded, tmp_path):
    index = json.loads((sharded / INDEX).read_text())
    del index["weight_map"]["model.layers.0.mlp.up_proj.weight"]
    (sharded / INDEX).write_text(json.dumps(index))
    said = inspect(capsys, sharded, "-q", out=tmp_path / "run")
    assert said.code == 0, said.err
    assert "does not name model.layers.0.mlp.up_proj.weight" in said.err
    assert len(rows(tmp_path / "run")) == 3


@pytest.mark.parametrize("by_file", [False, True])
def test_pickles(capsys, folder, tmp_path, by_file):
    """With --allow-pickle read under weights_only=True: the same numbers as from safetensors."""
    from safetensors.torch import load_file

    assert inspect(capsys, folder, "-q", out=tmp_path / "safe").code == 0
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    path = folder / "pytorch_model.bin" if by_file else folder
    said = inspect(capsys, path, "--allow-pickle", "-q", out=tmp_path / "pickled")
    assert said.code == 0, said.err
    safe, pickled = rows(tmp_path / "safe"), rows(tmp_path / "pickled")
    for name, row in pickled.items():
        assert row["std"] == safe[name]["std"]
        assert row["rank"] == safe[name]["rank"]


def test_a_file_that_is_cut_while_it_is_read(capsys, folder, tmp_path, monkeypatch):
    from headtool.weights import inspection

    real, file = inspection.do, folder / "model.safetensors"

    def cut(*args):
        with file.open("rb+") as handle:
            handle.truncate(20_000)
        return real(*args)

    monkeypatch.setattr(inspection, "do", cut)
    said = inspect(capsys, folder, out=tmp_path / "run")
    assert said.code == 1
    assert "it ends at byte" in said.error
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["status"] == "failed"


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"num_attention_heads": "x"}, "config.json does not say how many heads there are"),
        ({"num_attention_heads": -1}, "config.json does not say how many heads there are"),
        ({"quantization_config": 3}, ""),
    ],
)
def test_a_configuration_with_odd_values(capsys, folder, tmp_path, changes, note):
    config(**changes)(folder)
    said = inspect(capsys, folder, out=tmp_path / "run")
    assert said.code == 0, said.err
    assert note in said.err
    assert rows(tmp_path / "run")["model.norm.weight"]["std"] is not None
