"""headtool finetune from end to end, on models that ship with it or are made here."""

from __future__ import annotations

import json

import polars as pl
import pytest
import transformers
from polars.testing import assert_frame_equal
from safetensors.torch import load_file

import headtool
from classifiers import easy_rows, rows_of, tiny_folder
from headtool.training import loop
from shell import call

QUICK = {"epochs": 2, "limit": 96, "lr": 1e-3, "threads": 1, "quiet": True, "save_steps": 2}


def table(run, name):
    return pl.read_parquet(run / "tables" / f"{name}.parquet")


def weights(run, name="ckpt_final"):
    return (run / name / "model.safetensors").read_bytes()


def same(one, other):
    """Are two runs the same, bit for bit?"""
    assert weights(one, "ckpt_init") == weights(other, "ckpt_init")
    assert weights(one) == weights(other)
    for name in ("training", "evaluation"):
        assert_frame_equal(table(one, name), table(other, name), check_exact=True)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A BERT with dropout and without a pooler, so that the generators matter and the classifier has two new layers."""
    return tiny_folder(tmp_path_factory.mktemp("model") / "bert", "bert", transformers.AutoModelForMaskedLM)


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory):
    """An undisturbed run, to compare others with."""
    return headtool.finetune(str(model), task="demo", probe=True, out=tmp_path_factory.mktemp("whole") / "run", **QUICK)


def test_a_run_leaves_what_the_docs_say(whole):
    manifest = json.loads((whole / "manifest.json").read_text())
    assert manifest["status"] == "done"
    assert set(manifest["tables"]) == {"training", "evaluation"}
    assert {"train", "eval", "weights_sha256"} <= set(manifest["inputs"])
    for file in ("metrics.json", "run_config.json", "config.yaml", "run.log", "eval_subset.json"):
        assert (whole / file).stat().st_size > 0
    assert not (whole / "parts").exists()
    assert not (whole / "figures").exists()  # it draws none
    assert table(whole, "training")["step"].to_list() == list(range(1, 13))
    evaluation = table(whole, "evaluation")
    assert evaluation["step"].to_list() == [0, 6, 12]
    assert evaluation["epoch"].to_list() == [0.0, 1.0, 2.0]
    metrics = json.loads((whole / "metrics.json").read_text())
    for side, row in (("init", 0), ("final", 2)):
        assert metrics[side]["loss"] == evaluation["loss"][row]
        assert metrics[side]["accuracy"] == evaluation["accuracy"][row]
    config = json.loads((whole / "run_config.json").read_text())
    assert len(config["fresh"]) == 4
    assert config["data"]["classes"] == ["entailment", "neutral", "contradiction"]


def test_checkpoints_load_again_and_are_what_the_table_says(whole):
    """The evaluation table, made again from the two checkpoints with plain transformers."""
    from itertools import islice

    import torch

    from headtool.tasks import demo

    rows = list(islice(demo.rows(True), 256))
    for name, row in (("ckpt_init", 0), ("ckpt_final", -1)):
        loaded = transformers.AutoModelForSequenceClassification.from_pretrained(whole / name)
        tokenizer = transformers.AutoTokenizer.from_pretrained(whole / name)
        assert loaded.config.label2id == {"entailment": 0, "neutral": 1, "contradiction": 2}
        given = tokenizer(*([r[f] for r in rows] for f in ("premise", "hypothesis")), return_tensors="pt", padding=True)
        kept = {k: given[k] for k in ("input_ids", "attention_mask")}
        second = given["input_ids"].clone().zero_()
        for i in range(len(rows)):
            kinds = torch.tensor([kind or 0 for kind in given.encodings[i].type_ids])
            second[i] = kinds
        with torch.no_grad():
            found = loaded(**kept, token_type_ids=second, labels=torch.tensor([r["label"] for r in rows]))
        assert found.loss.item() == pytest.approx(table(whole, "evaluation")["loss"][row], rel=1e-5)


def test_a_checkpoint_is_scored(whole, tmp_path, capsys):
    said = call(capsys, "score", whole / "ckpt_final", "--scores", "out", "--limit", "8", "-q", "--out", tmp_path / "s")
    assert said.code == 0
    manifest = json.loads((tmp_path / "s" / "manifest.json").read_text())
    named = json.loads((whole / "manifest.json").read_text())["checkpoints"]
    assert manifest["inputs"]["weights_sha256"] == named["ckpt_final"]["weights_sha256"]


def test_the_same_call_does_nothing_more(whole, model, capsys):
    args = ("--task", "demo", "--probe", "--epochs", 2, "--limit", 96, "--lr", 1e-3, "--threads", 1, "--out", whole)
    said = call(capsys, "finetune", model, *args, "--save-steps", 7)
    assert (said.code, said.out) == (0, f"{whole}\n")
    assert "done already" in said.err


def test_the_same_call_elsewhere_is_the_same_bit_for_bit(whole, model, tmp_path, capsys):
    args = ("--task", "demo", "--probe", "--epochs", 2, "--limit", 96, "--lr", 1e-3, "--threads", 1, "--json")
    said = call(capsys, "finetune", model, *args, "--out", tmp_path / "run")
    assert json.loads(said.out)["run"] == str(tmp_path / "run")
    assert json.loads(said.out)["status"] == "done"
    same(whole, tmp_path / "run")


def test_another_seed_is_another_run(whole, model, tmp_path):
    other = headtool.finetune(str(model), task="demo", probe=True, seed=2**40, out=tmp_path / "run", **QUICK)
    assert weights(other) != weights(whole)


def stop_at(monkeypatch, step):
    """Ctrl-C in the middle of a step."""
    train = loop.CarefulTrainer.training_step

    def interrupted(self, *args, **given):
        if self.state.global_step == step:
            raise KeyboardInterrupt
        return train(self, *args, **given)

    monkeypatch.setattr(loop.CarefulTrainer, "training_step", interrupted)


@pytest.mark.parametrize("step", [1, 5, 6, 11])
def test_an_interrupted_run_goes_on_where_it_stopped(whole, model, tmp_path, capsys, monkeypatch, step):
    """Before the first checkpoint, within an epoch, at an epoch's end, near the end."""
    out = tmp_path / "run"
    args = ("--task", "demo", "--probe", "--epochs", 2, "--limit", 96, "--lr", 1e-3, "--threads", 1, "--save-steps", 2)
    with monkeypatch.context() as patch:
        stop_at(patch, step)
        assert call(capsys, "finetune", model, *args, "--out", out).code == 130
    assert json.loads((out / "manifest.json").read_text())["status"] == "running"
    checkpoints = sorted(out.glob("parts/*/checkpoint-*"))
    assert len(checkpoints) <= 2
    if step == 5:  # the newest was not finished: the one before serves
        (max(checkpoints, key=lambda c: int(c.name[11:])) / "whole").unlink()
    assert call(capsys, "finetune", model, *args, "--out", out, "-q").code == 0
    same(whole, out)


def test_adapters_go_on_too_and_leave_a_plain_checkpoint(model, tmp_path, capsys, monkeypatch):
    pytest.importorskip("peft")
    args = ("--task", "demo", "--epochs", 2, "--limit", 96, "--lr", 1e-2, "--threads", 1, "--save-steps", 2, "--lora")
    args += ("--lora-targets", "q,v", "-q")
    assert call(capsys, "finetune", model, *args, "--out", tmp_path / "one").code == 0
    with monkeypatch.context() as patch:
        stop_at(patch, 9)
        assert call(capsys, "finetune", model, *args, "--out", tmp_path / "two").code == 130
    assert call(capsys, "finetune", model, *args, "--out", tmp_path / "two").code == 0
    same(tmp_path / "one", tmp_path / "two")
    first, last = (load_file(tmp_path / "one" / name / "model.safetensors") for name in ("ckpt_init", "ckpt_final"))
    assert list(first) == list(last)
    moved = {name for name in first if not (first[name] == last[name]).all()}
    base = {name for name in moved if "pooler" not in name and not name.startswith("classifier")}
    assert base == {f"bert.encoder.layer.{i}.attention.self.{n}.weight" for i in range(2) for n in ("query", "value")}


def test_a_built_in_model_goes_on_from_its_classifier(tmp_path, capsys):
    said = call(
        capsys,
        "finetune",
        "demo-encoder",
        "--task",
        "demo",
        "--limit",
        32,
        "--epochs",
        0.5,
        "--probe",
        "--out",
        tmp_path / "r",
    )
    assert said.code == 0
    assert "the model brings its classifier" in said.err
    assert "warning" not in said.err
    assert table(tmp_path / "r", "evaluation")["accuracy"][0] > 0.85
    assert table(tmp_path / "r", "evaluation")["step"].to_list() == [0, 1]


def test_a_decoder_learns_a_file_with_texts_for_labels(tmp_path, capsys):
    """The class is written in the row: a few steps are enough. A tenth is held out, the run is named by itself."""
    file = rows_of(
        tmp_path / "rows.jsonl", *({"review": {"text": r["text"]}, "gold": r["label"]} for r in easy_rows(200))
    )
    args = (
        "--train",
        file,
        "--text-field",
        "review.text",
        "--label-field",
        "gold",
        "--lr",
        3e-3,
        "--epochs",
        2,
        "--threads",
        1,
    )
    said = call(capsys, "finetune", "demo", *args, "--out", tmp_path / "run")
    assert said.code == 0
    assert "20 of 200 rows" in said.err
    assert "the classifier is new (score.weight)" in said.err
    final = json.loads((tmp_path / "run" / "metrics.json").read_text())["final"]
    assert (final["accuracy"], final["n"]) == (1.0, 20)
    config = json.loads((tmp_path / "run" / "ckpt_final" / "config.json").read_text())
    assert config["label2id"] == {"bad": 0, "good": 1}


def test_another_number_of_classes_is_another_classifier(tmp_path, capsys):
    file = rows_of(tmp_path / "rows.jsonl", *easy_rows(40, labels=(0, 1)))
    args = ("--train", file, "--eval", file, "--subset", 10, "--epochs", 1, "--probe", "--threads", 1)
    said = call(capsys, "finetune", "demo-encoder", *args, "--out", tmp_path / "run")
    assert said.code == 0
    assert "a new one is drawn" in said.err
    assert "the classifier alone, on the training rows: loss" in said.err
    assert json.loads((tmp_path / "run" / "eval_subset.json").read_text())["n"] == 10
    old = load_file(headtool_demo() / "model.safetensors")
    new = load_file(tmp_path / "run" / "ckpt_init" / "model.safetensors")
    assert [name for name in old if old[name].shape != new[name].shape] == ["classifier.bias", "classifier.weight"]
    assert all((old[name] == new[name]).all() for name in old if not name.startswith("classifier"))


def headtool_demo():
    from headtool.models.locate import locate

    return locate("demo-encoder").folder


def test_precision_is_asked_for(tmp_path, capsys):
    args = ("--task", "demo", "--limit", 16, "--epochs", 1, "--threads", 1, "-q")
    for dtype, stored in (("bf16", "F32"), ("fp64", "F64")):
        said = call(capsys, "finetune", "demo-encoder", *args, "--dtype", dtype, "--out", tmp_path / dtype)
        assert said.code == 0, said.err
        with (tmp_path / dtype / "ckpt_final" / "model.safetensors").open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        assert {entry["dtype"] for name, entry in header.items() if name != "__metadata__"} == {stored}


def test_a_plan_touches_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = call(capsys, "finetune", "demo", "--task", "demo", "--lora", "--dry-run", "--json")
    plan = json.loads(said.out)
    assert (plan["steps"], plan["train_examples"], plan["classes"]) == (384, 2048, 3)
    assert (
        plan["trained"] == 4 * 8 * ((64 + 128) + 2 * (64 + 64) + (128 + 64)) + 3 * 64
    )  # q, k and v, o; the classifier
    assert not list(tmp_path.iterdir())


def test_a_missing_checkpoint_is_made_again(tmp_path, capsys):
    args = (
        "finetune",
        "demo-encoder",
        "--task",
        "demo",
        "--limit",
        16,
        "--epochs",
        1,
        "--threads",
        1,
        "--out",
        tmp_path / "run",
    )
    assert call(capsys, *args).code == 0
    (tmp_path / "run" / "ckpt_final" / "model.safetensors").unlink()
    said = call(capsys, *args)
    assert "it is made again" in said.err
    assert (tmp_path / "run" / "ckpt_final" / "model.safetensors").is_file()


def test_the_hub_rows_of_a_task(tmp_path, capsys, monkeypatch):
    """A folder stands for the hub's GLUE: train on train, evaluate on validation_matched."""
    from headtool.tasks import glue, rows

    asked = []

    def data_set(self):
        asked.append(self.name)
        found = [{"premise": r["text"], "hypothesis": "it is.", "label": i % 3} for i, r in enumerate(easy_rows(24))]
        return found

    monkeypatch.setattr(rows.Source, "_data_set", data_set)
    said = call(
        capsys,
        "finetune",
        "demo-encoder",
        "--task",
        "mnli",
        "--epochs",
        1,
        "--threads",
        1,
        "-q",
        "--out",
        tmp_path / "run",
    )
    assert said.code == 0, said.err
    assert set(asked) == {f"{glue.REPOSITORY}:mnli:train", f"{glue.REPOSITORY}:mnli:validation_matched"}
