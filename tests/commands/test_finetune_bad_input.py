"""finetune, asked for what cannot be: one clear line, a hint, the right exit code, no checkpoint."""

from __future__ import annotations

import json

import pytest

from classifiers import easy_rows, rows_of
from headtool.errors import translate
from shell import call


def refused(capsys, *args, code=2, says=""):
    said = call(capsys, "finetune", *args, "--threads", 1)
    assert said.code == code, said.err
    assert said.out == ""
    assert says in said.error, said.err
    return said


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--epochs", "0"], "--epochs 0.0: not a number above 0"),
        (["--epochs", "nan"], "--epochs nan"),
        (["--lr", "0"], "--lr 0.0: not a number above 0"),
        (["--lr", "-1e-5"], "--lr -1e-05"),
        (["--lr", "inf"], "--lr inf"),
        (["--weight-decay", "-1"], "--weight-decay"),
        (["--warmup", "1"], "--warmup 1.0"),
        (["--batch-size", "0"], "greater than or equal to 1"),
        (["--max-length", "1"], "greater than or equal to 2"),
        (["--subset", "some"], "--subset some"),
        (["--lora-rank", "0"], "greater than or equal to 1"),
        (["--lora", "--lora-dropout", "1"], "--lora-dropout 1.0"),
        (["--lora", "--lora-targets", "q,dense"], "there is no LoRA target named 'dense'"),
        (["--lora", "--lora-targets", ","], "--lora-targets is empty"),
        (["--dtype", "fp16", "--device", "cpu"], "--dtype fp16: a CPU does not train in it"),
        (["--device", "cuda:99"], "--device cuda:99: it is not there"),
        (["--text-field", "a"], "the fields of the task 'demo' are known"),
    ],
)
def test_flags_that_cannot_be_meant(capsys, tmp_path, args, says):
    refused(capsys, "demo-encoder", "--task", "demo", "--out", tmp_path / "run", *args, says=says)
    assert not (tmp_path / "run" / "ckpt_init").exists()


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ([], "there is nothing to train on"),
        (["--eval", "x.jsonl"], "--eval without --train"),
        (["--task", "pairs"], "there is nothing to train on"),
        (["--task", "multiple_choice"], "have no class"),
        (["--task", "stsb"], "stsb is a regression"),
        (["--task", "mnly"], "there is no task named 'mnly'"),
        (["--train", "nothing.jsonl"], "there is no such file"),
        (["--train", ""], "--train is empty"),
        (["--train", "x.jsonl", "--text-field2", "b"], "--text-field2 without --text-field"),
        (["--train", "x.jsonl", "--task", "pairs", "--text-field", "b"], "--task pairs is not what"),
        (["--train", "x.jsonl", "--field", "label"], "not of the form NAME=PATH"),
    ],
)
def test_rows_that_cannot_be_found(capsys, tmp_path, monkeypatch, args, says):
    monkeypatch.chdir(tmp_path)
    refused(capsys, "demo-encoder", *args, says=says)
    assert not (tmp_path / "runs").exists()


def test_models_that_are_not_there(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(capsys, "./nothing", "--task", "demo", says="there is no such model folder")
    refused(capsys, "demo", "--task", "demo", "--family", "lama", says="there is no family named 'lama'")


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([], "the file is empty"),
        (["{}", "{}"], "its fields are of no known shape"),
        (["not json"], "rows cannot be read"),
        ([{"text": "a"}, {"text": "b"}], ":1: it has no label"),
        ([{"text": "a", "label": 0}, {"text": "b", "label": 0.5}], ":2: the label 0.5 is no class"),
        ([{"text": "a", "label": 0}, {"text": "b", "label": -1}], "below 0"),
        ([{"text": "a", "label": 0}, {"text": "b", "label": 0}], "all rows have the label 0"),
        ([{"text": "a", "label": 0}, {"text": "b", "label": 7}], "no row has the label 1 of 0 to 7"),
        ([{"question": "a", "choices": {"text": ["b"], "label": ["A"]}, "answerKey": "A"}], "have no class"),
    ],
)
def test_rows_that_cannot_be_trained_on(capsys, tmp_path, rows, says):
    file = rows_of(tmp_path / "rows.jsonl", *rows)
    refused(capsys, "demo-encoder", "--train", file, "--eval", file, "--out", tmp_path / "run", says=says)
    assert not (tmp_path / "run" / "ckpt_init").exists()


def test_labels_that_were_not_trained_on(capsys, tmp_path):
    train = rows_of(tmp_path / "train.jsonl", *easy_rows(8))
    held = rows_of(tmp_path / "eval.jsonl", *easy_rows(4), {"text": "c", "label": "fair"})
    args = ("--train", train, "--eval", held, "--out", tmp_path / "run")
    said = refused(capsys, "demo-encoder", *args, says="eval.jsonl:5: the label 'fair' is none of the 2 classes")
    assert "bad, good" in said.err


def test_labels_that_are_not_the_tasks(capsys, tmp_path):
    train = rows_of(tmp_path / "train.jsonl", *easy_rows(8, labels=(0, 3)))
    args = ("--task", "mnli", "--train", train, "--out", tmp_path / "run")
    refused(capsys, "demo-encoder", *args, says="the label 3 is none of the 3 classes")


def test_a_field_that_is_not_there(capsys, tmp_path):
    train = rows_of(tmp_path / "train.jsonl", *easy_rows(8))
    args = ("--train", train, "--label-field", "stars", "--out", tmp_path / "run")
    refused(capsys, "demo-encoder", *args, says="it has no field 'stars'")


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


def test_adapters_without_their_package(capsys, tmp_path, monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "peft" else find(name, *more))
    said = refused(capsys, "demo", "--task", "demo", "--lora", "--out", tmp_path / "run", says="needs the package peft")
    assert "pip install 'headtool[lora]'" in said.err
    assert not (tmp_path / "run").exists()


def test_a_directory_of_another_run(capsys, tmp_path):
    args = ("--task", "demo", "--limit", 16, "--epochs", 1, "--threads", 1, "--out", tmp_path / "run")
    assert call(capsys, "finetune", "demo-encoder", *args).code == 0
    refused(capsys, "demo-encoder", *args, "--lr", "1e-3", says="holds another run")
    assert call(capsys, "finetune", "demo-encoder", *args, "--lr", "1e-3", "--force").code == 0


def test_somebody_elses_checkpoints_are_left_alone(capsys, tmp_path):
    (tmp_path / "mine" / "ckpt_final").mkdir(parents=True)
    (tmp_path / "mine" / "ckpt_final" / "weights").write_text("mine")
    refused(capsys, "demo-encoder", "--task", "demo", "--out", tmp_path / "mine", says="holds no run")
