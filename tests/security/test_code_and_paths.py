"""No code of a checkpoint or a data set is run, no pickle is opened, nothing outside their folders is read."""

from __future__ import annotations

import io
import json
import pickle
import shutil

import numpy as np
import pytest

from headtool.models.locate import locate
from headtool.record.files import MAGIC, read_part
from shell import call

CODE = """
from pathlib import Path
Path({ran!r}).touch()
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
class Config(LlamaConfig):
    model_type = "mine"
class Model(LlamaForCausalLM):
    config_class = Config
class Tokenizer(PreTrainedTokenizerFast):
    pass
"""
MAP = {"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model", "AutoModel": "mine.Model"}
MAP |= {"AutoModelForSequenceClassification": "mine.Model"}


class Bomb:
    """Opened as a pickle, it makes a file."""

    def __init__(self, ran):
        self.ran = str(ran)

    def __reduce__(self):
        return open, (self.ran, "w")


@pytest.fixture
def ran(tmp_path):
    """A file that foreign code would make."""
    return tmp_path / "ran"


@pytest.fixture
def folder(tmp_path, ran):
    """A copy of the demo model that brings code, and pickles, of its own."""
    copy = tmp_path / "model"
    shutil.copytree(locate("demo").folder, copy)
    (copy / "mine.py").write_text(CODE.format(ran=str(ran)))
    change(copy / "config.json", auto_map=MAP)
    change(copy / "tokenizer_config.json", auto_map={"AutoTokenizer": [None, "mine.Tokenizer"]})
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt"):
        (copy / name).write_bytes(pickle.dumps(Bomb(ran)))
    return copy


def change(file, **more):
    file.write_text(json.dumps(json.loads(file.read_text()) | more))


def test_the_bomb_goes_off(folder, ran):
    """What the tests below look for would be seen."""
    pickle.loads((folder / "optimizer.pt").read_bytes()).close()
    assert ran.exists()
    ran.unlink()
    exec((folder / "mine.py").read_text(), {})
    assert ran.exists()


@pytest.mark.parametrize(
    "args", [("score", "--limit", 4), ("finetune", "--task", "demo", "--limit", 8, "--epochs", 1)], ids=lambda a: a[0]
)
def test_a_known_family_is_read_by_the_librarys_code(capsys, folder, ran, tmp_path, args):
    said = call(capsys, args[0], folder, *args[1:], "--out", tmp_path / "run", "-q")
    assert said.code == 0, said.err
    assert not ran.exists()


def test_an_unknown_family_is_refused_whatever_it_brings(capsys, folder, ran, monkeypatch):
    change(folder / "config.json", model_type="mine", architectures=["Model"])
    monkeypatch.setattr("sys.stdin", io.StringIO("y\ny\n"))  # transformers would ask
    for more in ((), ("--family", "llama")):
        said = call(capsys, "score", folder, "--limit", 4, *more)
        assert said.code == 2
        assert said.error
    assert not ran.exists()


def test_a_tokenizer_of_its_own_code_is_not_run(capsys, folder, ran, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("y\ny\n"))
    change(folder / "tokenizer_config.json", tokenizer_class="Tokenizer")
    call(capsys, "score", folder, "--limit", 4, "--out", tmp_path / "run", "-q")
    assert not ran.exists()


def test_a_folder_of_data_runs_nothing(capsys, tmp_path, ran):
    data = tmp_path / "data"
    data.mkdir()
    (data / "data.py").write_text(f"open({str(ran)!r}, 'w')")
    (data / "rows.pkl").write_bytes(pickle.dumps(Bomb(ran)))
    (data / "rows.jsonl").write_text('{"text": "The lion is red."}\n')
    call(capsys, "score", "demo", "--data", data, "--scores", "out", "--out", tmp_path / "run", "-q")
    assert not ran.exists()


def test_a_part_with_a_pickle_in_it_is_no_part(tmp_path, ran):
    """Even one whose checksum is right."""
    import hashlib

    buffer = io.BytesIO()
    np.savez(buffer, x=np.array([Bomb(ran)], dtype=object))
    for payload in (buffer.getvalue(), pickle.dumps(Bomb(ran)), b""):
        file = tmp_path / "a.part"
        file.write_bytes(MAGIC + hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload)
        assert read_part(file) is None
    assert not ran.exists()


def test_a_model_beside_a_secret_does_not_reach_it(capsys, tmp_path):
    """Paths in tokenizer_config.json that old versions of transformers followed."""
    copy, secret = tmp_path / "model", tmp_path / "secret.json"
    shutil.copytree(locate("demo").folder, copy)
    secret.write_text(json.dumps({"a secret token": 3}))
    for key in ("tokenizer_file", "vocab_file", "special_tokens_map_file", "added_tokens_file", "chat_template_file"):
        change(copy / "tokenizer_config.json", **{key: "../secret.json"})
    said = call(capsys, "score", copy, "--limit", 4, "--scores", "out", "--out", tmp_path / "run", "-q")
    assert said.code == 0, said.err
    from headtool.models.open import read

    _, tokenizer = read(copy)
    assert "a secret token" not in tokenizer.get_vocab()
