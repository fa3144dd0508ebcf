"""causal-train and causal-predict, asked for what cannot be: one clear line, a hint, the right exit code, nothing left."""

from __future__ import annotations

import io
import json
import shutil
import sys

import pytest

import headtool
from headtool.models.locate import locate
from shell import call


def refused(capsys, *args, code=2, says=""):
    said = call(capsys, *args)
    assert said.code == code, said.err
    assert said.out == ""
    assert says in said.error, said.err
    return said


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--epochs", "0"], "--epochs 0.0: not a number above 0"),
        (["--lr", "nan"], "--lr nan"),
        (["--gamma0", "0"], "--gamma0 0.0"),
        (["--gamma0", "-1"], "--gamma0 -1.0"),
        (["--gate-alpha", "1.5"], "--gate-alpha 1.5: not a share from 0 to 1"),
        (["--reg-weight", "-1"], "--reg-weight"),
        (["--threshold", "inf"], "--threshold inf: not a finite number"),
        (["--b-noise", "-0.1"], "--b-noise"),
        (["--causal-dim", "0"], "greater than or equal to 1"),
        (["--head", "both"], "'both' is not one of"),
        (["--distribution", "caucy"], "'caucy' is not one of"),
        (["--experiment", "all"], "'all' is not one of"),
        (["--number-pattern", "[0-9"], "no regular expression"),
        (["--task", "additon"], "there is no made data set named 'additon'"),
        (["--task", ","], "--task is empty"),
        (["--value-field", "price"], "--value-field without --data"),
        (["--eval", "x.jsonl"], "--eval without --data"),
        (["--head", "softmax", "--negatives", "4"], "--negatives is of the one-vs-rest loss"),
        (["--report-to", "mlflow"], "--report-to mlflow: not one of none, tensorboard, wandb"),
        (["--dtype", "fp16", "--device", "cpu"], "--dtype fp16: a CPU does not train in it"),
        (["--data", "nothing.jsonl"], "there is no such file"),
    ],
)
def test_flags_that_cannot_be_meant(capsys, tmp_path, args, says):
    refused(capsys, "causal-train", "demo", "--out", tmp_path / "run", *args, says=says)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("sink", ["tensorboard", "wandb"])
def test_a_sink_that_is_not_installed(capsys, tmp_path, sink, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    refused(capsys, "causal-train", "demo", "--report-to", sink, "--out", tmp_path / "run", says="it is not installed")


@pytest.mark.parametrize(
    ("rows", "args", "says"),
    [
        ([{"text": "no number"}] * 20, [], "there is no number in the training rows"),
        ([{"text": "a", "price": None}] * 20, ["--value-field", "price"], "its value is missing"),
        ([{"text": "a"}] * 20, ["--value-field", "price"], "it has no field 'price'"),
        ([{"text": "a", "price": "much"}] * 20, ["--value-field", "price"], "its value is no number: much"),
        ([{"text": "a", "price": float("inf")}] * 20, ["--value-field", "price"], "its value is not finite"),
        ([{"text": "a", "price": float("nan")}] * 20, ["--value-field", "price"], "its value is not finite"),
        ([{"text": 3, "price": 1}] * 20, ["--value-field", "price"], "the field 'text' is no text"),
        ([{"text": "a", "price": 1}], ["--value-field", "price"], "one row cannot be trained on and held out"),
        ([{"text": "say <NUM>", "price": 1}] * 20, ["--value-field", "price"], "none of the rows"),
        ([], [], "the file is empty"),
    ],
)
def test_rows_that_cannot_be_used(capsys, tmp_path, rows, args, says):
    data = lines(tmp_path / "data.jsonl", rows)
    said = refused(capsys, "causal-train", "demo", "--data", data, "--out", tmp_path / "run", *args, says="")
    assert says in said.err
    assert not (tmp_path / "run").exists()


def test_models_that_cannot_be_trained(capsys, tmp_path):
    refused(capsys, "causal-train", "demo-encoder", "--out", tmp_path / "run", says="is an encoder")
    headless = tmp_path / "headless"
    shutil.copytree(locate("demo").folder, headless)
    config = json.loads((headless / "config.json").read_text()) | {"architectures": ["LlamaModel"]}
    (headless / "config.json").write_text(json.dumps(config))
    refused(capsys, "causal-train", headless, "--out", tmp_path / "run", says="has no language model head")
    refused(capsys, "causal-train", "nowhere/at/all", "--out", tmp_path / "run", says="there is no such model folder")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("bad") / "run"
    return headtool.causal_train(
        "demo", task="addition", examples=4, subset="2", epochs=1, baselines=False, threads=1, quiet=True, out=out
    )


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--interval", "1"], "--interval 1.0: not a level between 0 and 1"),
        (["--temperature", "0"], "--temperature 0.0"),
        (["--top-p", "0"], "--top-p 0.0"),
        (["--shared", "noise"], "--shared noise is of --mode causal"),
        (["--mode", "greedy"], "'greedy' is not one of"),
        (["--new-tokens", "0"], "greater than or equal to 1"),
    ],
)
def test_inference_flags_that_cannot_be_meant(capsys, run, args, says):
    refused(capsys, "causal-predict", run, "2 plus 2 is", *args, says=says)


def test_texts_that_cannot_be_gone_on_from(capsys, run, monkeypatch):
    refused(capsys, "causal-predict", run, "", says="there is no text")
    refused(capsys, "causal-predict", run, "say <NUM>", says="its text holds the token <NUM>")
    refused(capsys, "causal-predict", run, "word " * 300, says="the model has room for 256")
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    refused(capsys, "causal-predict", run, says="there is no text")


def test_directories_that_hold_no_causal_model(capsys, run, tmp_path):
    refused(capsys, "causal-predict", tmp_path / "none", "a", says="there is no such directory")
    refused(capsys, "causal-predict", locate("demo").folder, "a", says="holds a model without a causal part")
    refused(capsys, "causal-predict", tmp_path, "a", says="holds no causal model")
    other = headtool.score("demo", scores="out", subset=4, quiet=True, out=tmp_path / "score")
    refused(capsys, "causal-predict", other, "a", says="is a run of headtool score, not of causal-train")
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    (unfinished / "manifest.json").write_text(json.dumps({"command": "causal-train", "status": "running"}))
    refused(capsys, "causal-predict", unfinished, "a", code=1, says="this run is not done (running)")


def test_damaged_models(capsys, run, tmp_path):
    broken = tmp_path / "model"
    shutil.copytree(run / "model", broken)
    whole = (broken / "causal.safetensors").read_bytes()
    (broken / "causal.safetensors").write_bytes(whole[:-8])
    refused(capsys, "causal-predict", broken, "a", says="truncated")
    (broken / "causal.safetensors").unlink()
    refused(capsys, "causal-predict", broken, "a", says="causal.safetensors is missing")
    (broken / "causal.safetensors").write_bytes(whole)
    facts = json.loads((broken / "causal.json").read_text())
    (broken / "causal.json").write_text(json.dumps(facts | {"settings": facts["settings"] | {"causal_dim": 3}}))
    refused(capsys, "causal-predict", broken, "a", says="its weights do not fit causal.json")
    (broken / "causal.json").write_text("{")
    refused(capsys, "causal-predict", broken, "a", says="not the settings of a causal model")


def test_a_loss_that_is_no_number_stops_the_run(capsys, tmp_path):
    data = lines(tmp_path / "data.jsonl", [{"text": "a 1e300", "value": 1.0}] * 20)
    args = [
        "--data",
        data,
        "--value-field",
        "value",
        "--number-encoding",
        "linear",
        "--epochs",
        1,
        "--out",
        tmp_path / "run",
        "-q",
    ]
    refused(capsys, "causal-train", "demo", *args, code=1, says="the loss is nan at step 1")
