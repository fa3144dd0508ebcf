"""inspect-weights, given what cannot be read: one clear line that names the file, nothing half-written."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from checkpoints import INDEX, inspect, rows, write
from headtool.models.locate import locate
from shell import call


@pytest.fixture
def folder(tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(locate("demo").folder, copy)
    return copy


@pytest.fixture
def sharded(tmp_path):
    made = {f"model.layers.{i}.mlp.up_proj.weight": torch.randn(6, 4) for i in range(4)}
    return write(tmp_path / "sharded", made, {"model_type": "llama"}, shards=2)


@pytest.fixture
def refused(capsys, tmp_path):
    def refuse(path, *args, code=2, says="", names=""):
        said = inspect(capsys, path, *args, out=tmp_path / "run")
        assert said.code == code, said.err
        assert said.out == ""
        assert says in said.error, said.err
        assert names in said.error, said.err
        assert not (tmp_path / "run").exists()
        return said

    return refuse


@pytest.mark.parametrize("keep", [0, 4, 100, 5000, -1])
def test_a_truncated_file(refused, folder, keep):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    refused(folder, says="truncated", names="model.safetensors")


def test_trailing_bytes(refused, folder):
    with (folder / "model.safetensors").open("ab") as file:
        file.write(b"more")
    refused(folder, says="too long", names="model.safetensors")


def broken_header(file, change):
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda entry: entry.update(shape=[7, 7]), "bytes do not hold"),
        (lambda entry: entry.update(dtype="BF16"), "bytes do not hold"),
        (lambda entry: entry.pop("dtype"), "its header cannot be read"),
        (lambda entry: entry.update(shape="wide"), "its header cannot be read"),
        (lambda entry: entry.update(data_offsets=[-4, 0]), "its header cannot be read"),
        (
            lambda entry: entry.update(data_offsets=[4, entry["data_offsets"][1]]),
            "overlaps another tensor, or leaves a gap",
        ),
    ],
)
def test_a_header_that_contradicts_itself(refused, tmp_path, change, says):
    folder = write(tmp_path / "m", {"a": torch.zeros(4, 4), "b": torch.zeros(2)}, {})
    broken_header(folder / "model.safetensors", lambda header: change(header["a"]))
    refused(folder, says=says, names="model.safetensors")


def test_a_header_of_nonsense(refused, folder):
    file = folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[8:20] = b"nonsense 123"
    file.write_bytes(content)
    refused(folder, says="header cannot be read", names="model.safetensors")


def test_a_type_that_nobody_knows(capsys, folder, tmp_path):
    broken_header(folder / "model.safetensors", lambda header: header["model.norm.weight"].update(dtype="F4_NEW"))
    said = inspect(capsys, folder, "-q", out=tmp_path / "run")
    assert said.code == 0, said.err
    row = rows(tmp_path / "run")["model.norm.weight"]
    assert (row["dtype"], row["rank_method"], row["mean"]) == ("F4_NEW", "skipped:type F4_NEW", None)


def test_a_missing_shard(refused, sharded):
    (sharded / "model-00002-of-00002.safetensors").unlink()
    refused(sharded, says="shards are missing: model-00002-of-00002.safetensors")


def test_a_shard_that_is_cut(refused, sharded):
    file = sharded / "model-00002-of-00002.safetensors"
    file.write_bytes(file.read_bytes()[:-3])
    refused(sharded, says="truncated", names="model-00002-of-00002.safetensors")


def test_a_shard_that_the_index_does_not_name(capsys, sharded, tmp_path):
    """Followed is the index, with a warning that names the file: Mistral's repositories hold a second copy."""
    shutil.copy(sharded / "model-00001-of-00002.safetensors", sharded / "consolidated.safetensors")
    said = inspect(capsys, sharded, "-q", out=tmp_path / "run")
    assert said.code == 0, said.err
    assert "consolidated.safetensors is not in the index and is left out" in said.err
    assert len(rows(tmp_path / "run")) == 4


def test_an_index_and_shards_of_different_checkpoints(refused, sharded):
    index = json.loads((sharded / INDEX).read_text())
    index["weight_map"]["model.norm.weight"] = "model-00001-of-00002.safetensors"
    (sharded / INDEX).write_text(json.dumps(index))
    refused(
        sharded,
        says="it puts model.norm.weight in model-00001-of-00002.safetensors, which does not hold it",
        names=INDEX,
    )


def test_a_shard_that_holds_more_than_the_index_says(capsys, sharded, tmp_path):
    index = json.loads((sharded / INDEX).read_text())
    del index["weight_map"]["model.layers.0.mlp.up_proj.weight"]
    (sharded / INDEX).write_text(json.dumps(index))
    said = inspect(capsys, sharded, "-q", out=tmp_path / "run")
    assert said.code == 0, said.err
    assert "does not name model.layers.0.mlp.up_proj.weight" in said.err
    assert len(rows(tmp_path / "run")) == 3


@pytest.mark.parametrize(
    ("text", "says"), [("{", "not a safetensors index"), ('{"weight_map": {"a": "../x"}}', "outside its folder")]
)
def test_an_index_that_cannot_be_followed(refused, sharded, text, says):
    (sharded / INDEX).write_text(text)
    refused(sharded, says=says, names=INDEX)


@pytest.mark.parametrize("by_file", [False, True])
def test_pickles(capsys, refused, folder, tmp_path, by_file):
    """Refused, and with --allow-pickle read under weights_only=True: the same numbers as from safetensors."""
    from safetensors.torch import load_file

    assert inspect(capsys, folder, "-q", out=tmp_path / "safe").code == 0
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    path = folder / "pytorch_model.bin" if by_file else folder
    refused(path, says="a pickle, which can run any code when opened", names="pytorch_model.bin")
    said = inspect(capsys, path, "--allow-pickle", "-q", out=tmp_path / "pickled")
    assert said.code == 0, said.err
    safe, pickled = rows(tmp_path / "safe"), rows(tmp_path / "pickled")
    for name, row in pickled.items():
        assert row["std"] == safe[name]["std"]
        assert row["rank"] == safe[name]["rank"]


class Trick:
    """What a malicious pickle would do, harmless here."""

    def __reduce__(self):
        return print, ("run when opened",)


def test_a_pickle_that_runs_code_is_refused_even_then(capsys, refused, tmp_path):
    (tmp_path / "m").mkdir()
    torch.save({"w": Trick()}, tmp_path / "m" / "pytorch_model.bin")
    said = refused(
        tmp_path / "m", "--allow-pickle", says="refuses it under weights_only=True", names="pytorch_model.bin"
    )
    assert "run when opened" not in said.err + said.out
    torch.save({"step": 3}, tmp_path / "m" / "pytorch_model.bin")
    refused(tmp_path / "m", "--allow-pickle", says="it holds no dictionary of tensors", names="pytorch_model.bin")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p: p.mkdir(), "there are no weights"),
        (lambda p: p.write_text("x"), "neither a model folder nor a weight file"),
        (lambda p: None, "there is no such model folder"),
    ],
)
def test_not_a_model_folder(refused, tmp_path, make, says):
    make(tmp_path / "thing.d")
    refused(tmp_path / "thing.d", says=says, names="thing.d")


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_broken_configuration(refused, folder, text):
    (folder / "config.json").write_text(text)
    refused(folder, says="not JSON", names="config.json")


def test_a_checkpoint_without_tensors(refused, tmp_path):
    refused(write(tmp_path / "m", {}), says="it holds no tensors")


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
    ("args", "says"),
    [
        (("--rank-tol", "0"), "--rank-tol 0"),
        (("--rank-tol", "much"), "--rank-tol much"),
        (("--rank-tol", "nan"), "--rank-tol nan"),
        (("--zero-eps", "-1"), "--zero-eps -1.0"),
        (("--zero-eps", "nan"), "--zero-eps nan"),
        (("--alpha", "--spectrum", "none"), "--alpha is fitted to spectra"),
        (("--include", "*.nothing"), "no tensor fits --include and --exclude"),
        (("--spectrum", "some"), "'--spectrum'"),
        (("--format", "xml"), "'--format'"),
        (("--k-max", "2"), "'--k-max'"),
        (("--clusters", "0"), "'--clusters'"),
        (("--sample", "5"), "'--sample'"),
        (("--family", "nothing"), "there is no family named 'nothing'"),
        (("--diff", "./nothing/here"), "there is no such model folder"),
        (("--diff", "demo-encoder"), "the two checkpoints have no tensor in common"),
        (("--embedding", "--include", "*norm*"), "there is no word embedding among its tensors"),
        (("--shard", "3/2"), "--shard 3/2"),
    ],
)
def test_flags(refused, args, says):
    refused("demo", *args, says=says)


def test_without_a_path(capsys):
    said = call(capsys, "inspect-weights")
    assert said.code == 2
    assert "missing argument" in said.error
