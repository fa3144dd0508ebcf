"""finetune, asked for what cannot be, beyond the table of tests/bad_input."""

from __future__ import annotations

import json

import pytest

from headtool.errors import translate
from shell import call


def refused(capsys, *args, code=2, says=""):
    said = call(capsys, "finetune", *args, "--threads", 1)
    assert said.code == code, said.err
    assert said.out == ""
    assert says in said.error, said.err
    return said


@pytest.mark.parametrize("more", [[], ["--lora"]], ids=["full", "lora"])
def test_a_loss_that_is_no_number_stops_the_run(capsys, tmp_path, more):
    if more:
        pytest.importorskip("peft")
    args = ("--task", "demo", "--limit", 64, "--lr", "1e30", "--warmup", 0, "--out", tmp_path / "run", *more)
    refused(capsys, "demo-encoder", *args, code=1, says="at step 2")
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["status"] == "failed"
    assert "at step 2" in manifest["error"]
    assert not (tmp_path / "run" / "ckpt_final").exists()


def test_weights_that_are_no_numbers_after_the_last_step(capsys, tmp_path):
    args = ("--task", "demo", "--limit", 16, "--epochs", 1, "--lr", "1e38", "--warmup", 0, "--out", tmp_path / "run")
    refused(capsys, "demo-encoder", *args, code=1, says="the evaluation loss is nan at step 1")
    assert not (tmp_path / "run" / "ckpt_final").exists()


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("SafetensorError", "Error while serializing: I/O error: No space left on device (os error 28)"),
        ("RuntimeError", "[enforce fail at inline_container.cc:664] . PytorchStreamWriter failed writing file data/1"),
    ],
)
def test_a_full_disk_is_said_to_be_one(kind, text):
    error = {"RuntimeError": RuntimeError}.get(kind) or type(kind, (Exception,), {})
    known = translate(error(text))
    assert known is not None
    assert known.code == 1
    assert "disk" in str(known)


def test_a_directory_of_another_run(capsys, tmp_path):
    args = ("--task", "demo", "--limit", 16, "--epochs", 1, "--threads", 1, "--out", tmp_path / "run")
    assert call(capsys, "finetune", "demo-encoder", *args).code == 0
    refused(capsys, "demo-encoder", *args, "--lr", "1e-3", says="holds another run")
    assert call(capsys, "finetune", "demo-encoder", *args, "--lr", "1e-3", "--force").code == 0
