"""Bad input: one clear line, a hint, the right exit code, nothing half-written."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path

import pytest

from headtool.models.locate import BUILT_IN, locate
from shell import call


@pytest.fixture
def folder(tmp_path):
    """A copy of the demo model, to be broken."""
    copy = tmp_path / "model"
    shutil.copytree(locate("demo").folder, copy)
    return copy


def refused(capsys, *args, code=2, says=""):
    said = call(capsys, *args)
    assert said.code == code, said.err
    assert said.out == ""
    assert says in said.error, said.err
    return said


def rows(path: Path, *lines: object) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


GOOD = {"question": "Which is red?", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "A"}


def test_a_model_folder_that_is_not_there(capsys):
    refused(capsys, "score", "./nothing/here", says="there is no such model folder")
    refused(capsys, "score", "a b", says="there is no such model folder")


def test_a_file_for_a_model(capsys, tmp_path):
    file = rows(tmp_path / "x.json", "{}")
    refused(capsys, "score", file, says="is no folder")


def test_no_config(capsys, folder):
    (folder / "config.json").unlink()
    refused(capsys, "score", folder, says="there is no config.json")


@pytest.mark.parametrize(("text", "says"), [("{", "not JSON"), ("[]", "no model_type"), ('{"a": 1}', "no model_type")])
def test_a_broken_config(capsys, folder, text, says):
    (folder / "config.json").write_text(text)
    refused(capsys, "score", folder, says=says)


def test_no_weights(capsys, folder):
    (folder / "model.safetensors").unlink()
    refused(capsys, "score", folder, says="there are no weights")


def test_pickles_only(capsys, folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    refused(capsys, "score", folder, says="the weights are pickles")


@pytest.mark.parametrize("keep", [0, 4, 100, 5000, -1])
def test_truncated_weights(capsys, folder, keep):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    refused(capsys, "score", folder, says="truncated")


def test_trailing_bytes(capsys, folder):
    with (folder / "model.safetensors").open("ab") as file:
        file.write(b"more")
    refused(capsys, "score", folder, says="too long")


def test_a_header_of_nonsense(capsys, folder):
    file = folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[8:20] = b"nonsense 123"
    file.write_bytes(content)
    refused(capsys, "score", folder, says="header cannot be read")


def test_an_index_that_names_a_missing_shard(capsys, folder):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "model-00001.safetensors"}}))
    refused(capsys, "score", folder, says="shards are missing: model-00001.safetensors")


def test_an_index_that_leaves_its_folder(capsys, folder):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../secret.safetensors"}}))
    refused(capsys, "score", folder, says="outside its folder")


def test_no_tokenizer(capsys, folder):
    for file in folder.glob("tokenizer*"):
        file.unlink()
    refused(capsys, "score", folder, says="no tokenizer that can be read")


@pytest.mark.parametrize(
    ("model_type", "says"), [("albert", "shared layer"), ("lama", "not known"), ("mamba", "no attention heads")]
)
def test_families_that_are_not_read(capsys, folder, model_type, says):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": model_type}))
    refused(capsys, "score", folder, says=says)


def test_a_model_of_another_shape_than_its_config(capsys, folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_attention_heads": 6}))
    refused(capsys, "score", folder)


def test_another_family(capsys):
    said = refused(capsys, "score", "demo", "--family", "lama", says="there is no family named 'lama'")
    assert "did you mean 'llama'" in said.err
    refused(capsys, "score", "demo", "--family", "gpt2", says="no module")


def test_a_hub_id_offline(capsys):
    refused(capsys, "score", "nobody/nothing-at-all", code=1, says="'nobody/nothing-at-all' is no folder here")


def test_a_hub_data_set_offline(capsys):
    refused(capsys, "score", "demo", "--data", "nobody/nothing-at-all", code=1)
    refused(capsys, "score", "demo-encoder", "--task", "mnli", code=1)


@pytest.mark.parametrize("device", ["cuda", "cuda:7", "nonsense", "meta"])
def test_a_device_that_is_not_there(capsys, device):
    import torch

    if device.startswith("cuda") and torch.cuda.is_available():
        device = "cuda:99"
    said = refused(capsys, "score", "demo", "--device", device, says=f"--device {device}")
    assert "cpu" in said.err


def test_data_that_is_not_there(capsys, tmp_path):
    refused(capsys, "score", "demo", "--data", tmp_path / "no.jsonl", says="there is no such file")
    refused(capsys, "score", "demo", "--data", "no.jsonl", says="there is no such file")


def test_empty_data(capsys, tmp_path):
    refused(capsys, "score", "demo", "--data", rows(tmp_path / "a.jsonl"), says="the file is empty")
    refused(capsys, "score", "demo", "--data", rows(tmp_path / "b.jsonl", "", "  "), says="there is no row in it")
    refused(capsys, "score", "demo", "--data", rows(tmp_path / "c.json", "[]"), says="there is no row in it")
    refused(capsys, "score", "demo", "--data", rows(tmp_path / "d.txt", " ", ""), says="there is no row in it")


def test_a_kind_of_file_that_is_not_read(capsys, tmp_path):
    refused(capsys, "score", "demo", "--data", rows(tmp_path / "a.xlsx", "x"), says="files of this kind are not read")


def test_wrong_fields(capsys, tmp_path):
    said = refused(
        capsys,
        "score",
        "demo",
        "--data",
        rows(tmp_path / "a.jsonl", {"quest": 1, "ion": 2}),
        says="no known shape: quest, ion",
    )
    assert "--field" in said.err
    other = rows(tmp_path / "b.jsonl", {"question": 3, "choices": {"text": ["a"], "label": ["A"]}})
    refused(capsys, "score", "demo", "--data", other, says="the field 'question' is no text")
    uneven = rows(tmp_path / "c.jsonl", GOOD | {"choices": {"text": ["a"], "label": []}})
    refused(capsys, "score", "demo", "--data", uneven, says="unequal length")


def test_a_broken_line_is_named(capsys, tmp_path):
    file = rows(tmp_path / "a.jsonl", *[GOOD] * 5, '{"question": "Which', *[GOOD] * 5)
    refused(capsys, "score", "demo", "--data", file, says=f"1 of 11 rows cannot be read; the first: {file}:6: not JSON")
    many = rows(tmp_path / "b.jsonl", *[GOOD] * 150, "[1]", *[GOOD] * 5)
    said = call(capsys, "score", "demo", "--data", many, "--scores", "out", "--out", tmp_path / "run")
    assert said.code == 0  # less than one in a hundred
    assert f"1 of 156 rows cannot be read and are left out: {many}:151: not an object" in said.err


def test_no_parquet(capsys, tmp_path):
    refused(capsys, "score", "demo", "--data", rows(tmp_path / "a.parquet", "PAR1 not"), says="not a Parquet file")


def test_a_field_that_is_not_there(capsys, tmp_path):
    file = rows(tmp_path / "a.jsonl", {"query": {"text": "Which?"}})
    refused(capsys, "score", "demo", "--data", file, "--field", "text=query.txt", says="it has no field 'query.txt'")
    refused(capsys, "score", "demo", "--data", file, "--field", "text", says="not of the form NAME=PATH")
    said = call(
        capsys,
        "score",
        "demo",
        "--data",
        file,
        "--field",
        "text=query.text",
        "--scores",
        "out",
        "--out",
        tmp_path / "run",
        "-q",
    )
    assert said.code == 0


def test_no_span_in_any_row(capsys, tmp_path):
    file = rows(tmp_path / "a.jsonl", {"instruction": "Say something."})
    said = refused(
        capsys,
        "score",
        "demo",
        "--data",
        file,
        "--out",
        tmp_path / "run",
        code=1,
        says="the task span was found in none of the rows",
    )
    assert "--question-marker" in said.err
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["status"] == "failed"


def test_tasks(capsys, tmp_path):
    said = refused(
        capsys, "score", "demo", "--task", "multiple_choise", says="there is no task named 'multiple_choise'"
    )
    assert "did you mean 'multiple_choice'" in said.err
    refused(capsys, "score", "demo", "--task", "text", says="needs them")
    refused(
        capsys, "score", "demo", "--task", "demo", "--data", rows(tmp_path / "a.txt", "x"), says="brings its own rows"
    )


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--scores", "entropi"), "there is no score named 'entropi'"),
        (("--scores", ","), "--scores is empty"),
        (("--limit", "-1"), "'--limit'"),
        (("--limit", "0"), "'--limit'"),
        (("--limit", "many"), "'--limit'"),
        (("--subset", "-4"), "--subset -4"),
        (("--subset", "some"), "--subset some"),
        (("--batch-size", "0"), "--batch-size 0"),
        (("--max-length", "1"), "'--max-length'"),
        (("--top-k", "0"), "'--top-k'"),
        (("--query", "middle"), "'--query'"),
        (("--dtype", "int8"), "'--dtype'"),
        (("--threads", "-1"), "'--threads'"),
        (("--seed", "-1"), "'--seed'"),
        (("--shard", "3/2"), "--shard 3/2"),
        (("--shard", "0/2"), "--shard 0/2"),
        (("--shard", "half"), "--shard half"),
        (("--seed", str(2**70)), "'--seed'"),
        (("--batch-size", "²"), "--batch-size ²"),
        (("--lambda-ent", "nan"), "--lambda-ent nan"),
        (("--lambda-task", "inf"), "--lambda-task inf"),
        (("--data", ""), "--data is empty"),
        (("--data", "~nosuchuser/x.jsonl"), "there is no such file"),
        (("--max-length", "2", "--task", "demo", "--family", "nothing"), "no family"),
        (("--scors", "out"), "no such option: --scors"),
        (("extra",), "unexpected extra argument"),
    ],
)
def test_flags(capsys, args, says):
    refused(capsys, "score", "demo", *args, says=says)


def test_force_is_for_one_process(capsys, tmp_path):
    refused(
        capsys, "score", "demo", "--force", "--shard", "1/2", "--out", tmp_path / "run", says="--force with several"
    )


def test_a_length_that_leaves_no_room(capsys, tmp_path):
    refused(capsys, "score", "demo-encoder", "--max-length", "3", "--out", tmp_path / "run", says="leaves no room")


def test_scores_that_are_defined_nowhere(capsys, tmp_path):
    args = ("score", "demo", "--query", "first", "--limit", "4", "-q")
    for i, scores in enumerate((("ent_rel",), ("ent", "--exclude-bos"))):
        refused(
            capsys,
            *args,
            "--scores",
            *scores,
            "--out",
            tmp_path / str(i),
            code=1,
            says="no score is defined for any example",
        )
    said = call(capsys, *args, "--exclude-bos", "--out", tmp_path / "combined")
    assert said.code == 0
    assert "'combined' is made without ent, task" in said.err


def test_an_empty_folder_for_data(capsys, tmp_path):
    (tmp_path / "nothing").mkdir()
    refused(capsys, "score", "demo", "--data", tmp_path / "nothing", says="not a data set that can be read")


def test_a_word_order_mark_and_bytes_that_are_no_text(capsys, tmp_path):
    file = tmp_path / "a.csv"
    file.write_bytes(b"\xef\xbb\xbftext\nhello\n")
    assert call(capsys, "score", "demo", "--data", file, "--scores", "out", "-q", "--out", tmp_path / "run").code == 0
    file.write_bytes(b"text\nhel\xfflo\n")
    refused(capsys, "score", "demo", "--data", file, "--out", tmp_path / "other", says="not valid Unicode")
    lines = rows(tmp_path / "b.jsonl", '{"text": "\\ud800"}')
    refused(capsys, "score", "demo", "--data", lines, "--out", tmp_path / "third", says="not valid Unicode")


def test_json_with_one_slip_names_it(capsys, tmp_path):
    file = rows(tmp_path / "a.json", "[", '  {"text": "a"},,', "]")
    refused(capsys, "score", "demo", "--data", file, "--out", tmp_path / "run", says="line 2")


def test_a_tokenizer_of_another_model(capsys, folder, tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    weights["model.embed_tokens.weight"] = torch.clone(weights["model.embed_tokens.weight"][:300])
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 300}))
    refused(capsys, "score", folder, "--out", tmp_path / "run", says="the model knows 300")


def test_a_checkpoint_that_lacks_weights(capsys, folder, tmp_path):
    """transformers would draw them at random."""
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.2.self_attn.q_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    refused(capsys, "score", folder, "--out", tmp_path / "run", says="model.layers.2.self_attn.q_proj.weight")


def test_no_such_command(capsys):
    said = refused(capsys, "scor", says="no such command 'scor'")
    assert "did you mean 'score'" in said.err


def test_configuration_files(capsys, tmp_path):
    refused(capsys, "score", "demo", "--config", tmp_path / "no.yaml", says="cannot be read")
    refused(capsys, "score", "demo", "--config", rows(tmp_path / "a.toml", "= 3"), says="neither TOML nor YAML")
    refused(capsys, "score", "demo", "--config", rows(tmp_path / "b.yaml", "a: [1"), says="neither TOML nor YAML")
    refused(capsys, "score", "demo", "--config", rows(tmp_path / "c.yaml", "- a"), says="holds no names")
    refused(capsys, "score", "demo", "--config", rows(tmp_path / "d.yaml", "limit: few"), says="'--limit'")


def test_a_directory_that_cannot_be_written(capsys, tmp_path):
    file = rows(tmp_path / "file", "x")
    refused(capsys, "score", "demo", "--out", file, says="is a file")
    refused(capsys, "score", "demo", "--out", file / "below", says="cannot be made: not a directory")
    refused(capsys, "score", "demo", "--out", "/proc/headtool-run", code=2 if Path("/proc").exists() else 1)


def test_a_full_disk(capsys, tmp_path, monkeypatch):
    """A write that fails for want of space: one line, exit 1, no half-written file; then the same call succeeds."""
    import os

    out = tmp_path / "run"
    real, calls = os.fsync, []

    def full(handle):
        calls.append(handle)
        if len(calls) > 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    args = ("score", "demo", "--scores", "out", "--limit", "8", "-q", "--out", out)
    monkeypatch.setattr(os, "fsync", full)
    refused(capsys, *args, code=1, says="no space left on the disk")
    assert not list(out.rglob("*.tmp"))
    monkeypatch.setattr(os, "fsync", real)
    assert call(capsys, *args).code == 0


def test_an_unknown_error_keeps_its_traceback(capsys, monkeypatch):
    import headtool.models.locate

    def bug(model):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(headtool.models.locate, "locate", bug)
    said = call(capsys, "score", "demo")
    assert said.code == 1
    assert "Traceback" in said.err
    assert "this is a bug in headtool" in said.err


def test_debug_shows_the_traceback_of_a_known_error(capsys, monkeypatch, tmp_path):
    args = ("score", "./nothing/here")
    assert "Traceback" in call(capsys, *args, "--debug").err
    file = rows(tmp_path / "a.yaml", "debug: true")
    assert "Traceback" in call(capsys, *args, "--config", file).err
    monkeypatch.setenv("HEADTOOL_DEBUG", "1")
    assert "Traceback" in call(capsys, *args).err
    monkeypatch.setenv("HEADTOOL_DEBUG", "false")
    assert "Traceback" not in call(capsys, *args).err


def test_a_command_without_its_model(capsys):
    refused(capsys, "score", says="missing argument")


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_built_in_models_are_small(name):
    total = sum(file.stat().st_size for built in BUILT_IN for file in locate(built).folder.iterdir())
    assert total <= 2_000_000
    assert (locate(name).folder / "model.safetensors").is_file()
