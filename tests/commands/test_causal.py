"""headtool causal-train and causal-predict from end to end, on the model that ships with headtool."""

from __future__ import annotations

import io
import json
import os
import sys

import numpy as np
import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal
from transformers import AutoModelForCausalLM

import headtool
from headtool.causal import outcome
from headtool.causal.experiments import EXPERIMENTS
from headtool.causal.folder import open_causal
from headtool.causal.trainer import CausalTrainer
from headtool.models.locate import locate
from shell import call

QUICK = {"examples": 48, "epochs": 1, "lr": 1e-3, "gamma0": 1.0, "threads": 1, "quiet": True, "subset": "12"}
SHORT = ["--examples", 48, "--epochs", 1, "--threads", 1, "--subset", 12, "-q"]


def table(run, name):
    return pl.read_parquet(run / "tables" / f"{name}.parquet")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An undisturbed run: one configuration, two made sets."""
    return headtool.causal_train(
        "demo", task="addition,basic", save_steps=2, out=tmp_path_factory.mktemp("causal") / "run", **QUICK
    )


@pytest.fixture(scope="module")
def prices(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "prices.jsonl"
    rows = [{"what": f"a house of {n} rooms.", "price": 100.5 * n} for n in range(1, 41)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_run_leaves_what_the_docs_say(whole):
    manifest = json.loads((whole / "manifest.json").read_text())
    assert manifest["status"] == "done"
    assert set(manifest["tables"]) == {"results", "training", "predictions"}
    assert set(os.listdir(whole / "model")) >= {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "causal.json",
        "causal.safetensors",
    }
    assert not (whole / "parts").exists()
    assert {"training.png", "training.svg", "mae.png", "picp_95.svg"} <= set(os.listdir(whole / "figures"))
    results = table(whole, "results")
    assert set(results["config"]) == {"basic", "softmax_l1", "median"}
    assert set(results["dataset"]) == {"addition", "basic"}
    for config, expected in (
        ("basic", {"nll", "accuracy_ovr", "ece_softmax", "loss"}),
        ("softmax_l1", {"nll", "accuracy_softmax"}),
    ):
        assert expected <= set(results.filter(config=config)["metric"])
    assert {"mae", "picp_95"} <= set(results.filter(config="median")["metric"])
    training = table(whole, "training")
    assert set(training["config"]) == {"basic", "softmax_l1"}
    assert training.filter(config="basic")["step"].to_list() == list(range(1, 7))
    assert training.filter(config="basic").null_count().sum_horizontal().item() == 0
    predictions = table(whole, "predictions")
    assert predictions.height == 3 * 2 * 12
    metrics = json.loads((whole / "metrics.json").read_text())
    for config, dataset in (("basic", "addition"), ("median", "basic")):
        some = predictions.filter(config=config, dataset=dataset)
        mae = (some["value"] - some["median"]).abs().mean()
        assert metrics[config]["results"][dataset]["mae"] == pytest.approx(mae)
        inside = ((some["low"] <= some["value"]) & (some["value"] <= some["high"])).mean()
        assert metrics[config]["results"][dataset]["picp_95"] == pytest.approx(inside)
    summary = (whole / "summary.md").read_text()
    assert all(f"| {config} |" in summary for config in ("basic", "softmax_l1", "median"))


def test_the_same_call_finds_it_done(whole, capsys):
    said = call(
        capsys, "causal-train", "demo", "--task", "addition,basic", *SHORT, "--lr", 1e-3, "--gamma0", 1, "--out", whole
    )
    assert (said.code, said.out.strip()) == (0, str(whole))


def test_the_model_opens_as_a_plain_language_model_and_as_a_causal_one(whole):
    model, tokens = open_causal(locate(str(whole / "model")))
    plain = AutoModelForCausalLM.from_pretrained(whole / "model")
    for ours, theirs in zip(model.backbone.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert plain.get_output_embeddings().weight is plain.get_input_embeddings().weight
    with pl.Config():
        predictions = table(whole, "predictions").filter(config="basic", dataset="addition")
    from headtool.causal import synthetic

    for example, row in zip(
        synthetic.rows("addition", 12, training=False), predictions.iter_rows(named=True), strict=True
    ):
        frame = headtool.causal_predict(whole, text=example.text, number=True, threads=1, quiet=True)
        assert frame["value"].item() == pytest.approx(row["median"], rel=1e-5)
        assert frame["low"].item() == pytest.approx(row["low"], rel=1e-4)
        assert frame["p_number"].item() == pytest.approx(row["p_number"], rel=1e-4)


def test_score_reads_its_heads(whole, tmp_path, capsys):
    said = call(
        capsys, "score", whole / "model", "--scores", "out,ent", "--subset", 8, "-q", "--out", tmp_path / "scores"
    )
    assert said.code == 0, said.err


def test_predictions_on_the_command_line(whole, capsys, monkeypatch):
    said = call(capsys, "causal-predict", whole, "--number", "--threads", 1, "2 plus 3 is", "4 plus 4 is")
    head, *rows = said.out.splitlines()
    assert head.split("\t") == ["text", "step", "token", "p", "p_number", "value", "low", "high"]
    assert [row.split("\t")[0] for row in rows] == ["2 plus 3 is", "4 plus 4 is"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("2 plus 3 is\n\n4 plus 4 is\n"))
    said = call(
        capsys, "causal-predict", whole / "model", "--mode", "causal", "--new-tokens", 2, "--json", "--threads", 1
    )
    told = [json.loads(line) for line in said.out.splitlines()]
    assert {row["text"] for row in told} == {"2 plus 3 is", "4 plus 4 is"}
    assert all(0 <= row["p"] <= 1 for row in told)


def same(one, other):
    assert (one / "model" / "model.safetensors").read_bytes() == (other / "model" / "model.safetensors").read_bytes()
    assert (one / "model" / "causal.safetensors").read_bytes() == (other / "model" / "causal.safetensors").read_bytes()
    for name in ("training", "results", "predictions"):
        assert_frame_equal(table(one, name), table(other, name), check_exact=True)


@pytest.mark.parametrize("step", [3, 9])
def test_an_interrupted_run_goes_on_where_it_stopped(whole, tmp_path, monkeypatch, step):
    """Stopped in the first configuration or in the second: the same tables and weights, bit for bit."""
    taken, train = 0, CausalTrainer.training_step

    def interrupted(self, *args, **given):
        nonlocal taken
        taken += 1
        if taken == step:
            raise KeyboardInterrupt
        return train(self, *args, **given)

    asked = {"task": "addition,basic", "save_steps": 2, "out": tmp_path / "run", **QUICK}
    with monkeypatch.context() as patched:
        patched.setattr(CausalTrainer, "training_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            headtool.causal_train("demo", **asked)
    assert not (tmp_path / "run" / "summary.md").exists()
    headtool.causal_train("demo", **asked)
    same(whole, tmp_path / "run")


def test_a_field_of_a_file(prices, tmp_path):
    run = headtool.causal_train(
        "demo", data=str(prices), text_field="what", value_field="price", baselines=False, out=tmp_path / "run", **QUICK
    )
    predictions = table(run, "predictions").filter(config="basic")
    assert predictions["dataset"].unique().to_list() == ["held_out"]
    assert predictions.height == 4  # a tenth
    data = json.loads((run / "manifest.json").read_text())["data"]
    assert (data["train"]["examples"], data["eval"]["held_out"]["examples"]) == (36, 4)
    assert all(value % 100.5 == 0 for value in predictions["value"])


def test_numbers_of_plain_texts(prices, tmp_path):
    texts = tmp_path / "texts.jsonl"  # with classes, which are no numbers
    texts.write_text("".join(json.dumps({"text": f"from {n} to {n + 1}", "label": "a"}) + "\n" for n in range(40)))
    run = headtool.causal_train("demo", data=str(texts), baselines=False, out=tmp_path / "run", **QUICK)
    predictions = table(run, "predictions").filter(config="basic")
    assert predictions.group_by("example").len()["len"].unique().to_list() == [2]


COMPARED = {
    "comparison": {
        "base", "causal_dim_small", "causal_dim_large", "threshold_low", "threshold_high", "reg_weight_low", "reg_weight_high",
    },
    "ablation": {"full", "no_ovr", "no_cauchy", "neither"},
}  # fmt: skip


@pytest.mark.parametrize("experiment", COMPARED)
def test_every_configuration_is_trained_and_is_another_model(experiment, tmp_path):
    settings = QUICK | {"examples": 4, "subset": "1"}
    run = headtool.causal_train("demo", experiment=experiment, baselines=False, out=tmp_path / "run", **settings)
    results, training = table(run, "results"), table(run, "training")
    assert set(results["config"]) == COMPARED[experiment] | {"median"}
    assert set(training["config"]) == COMPARED[experiment]
    assert set(results["dataset"]) == {"addition", "conversion", "copying", "basic"}
    losses = results.filter(pl.col("config") != "median", dataset="addition", metric="loss")["value"]
    assert losses.n_unique() == len(COMPARED[experiment])
    for name, part in json.loads((run / "metrics.json").read_text()).items():
        if name != "median":
            assert part["settings"]["causal_dim"] == {"causal_dim_small": 32, "causal_dim_large": 128}.get(name)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_plan_of_every_experiment(experiment, tmp_path, capsys):
    said = call(
        capsys,
        "causal-train",
        "demo",
        "--experiment",
        experiment,
        "--examples",
        4,
        "--dry-run",
        "--json",
        "--out",
        tmp_path / "run",
    )
    plan = json.loads(said.out)
    expected = COMPARED.get(experiment) or {
        "basic": {"basic"}, "comprehensive": {"comprehensive"},
        "initialization": {"gamma0_low", "gamma0_first_principles", "gamma0_high"},
    }[experiment]  # fmt: skip
    assert set(plan["configurations"]) == expected | {"softmax_l1"}
    made = {"addition", "conversion", "copying", "basic"}
    if experiment == "comprehensive":
        made |= {"question_answering", "extreme_values", "boundary_values"}
    assert set(plan["eval_examples"]) == made
    assert plan["steps"] == len(plan["configurations"]) * 5  # 16 rows, 5 epochs
    assert not (tmp_path / "run").exists()


def test_other_ways_to_the_token_loss(tmp_path):
    few = QUICK | {"examples": 16}
    runs = [
        headtool.causal_train("demo", task="addition", baselines=False, out=tmp_path / name, **few, **more)
        for name, more in (
            ("sampled", {"negatives": 16}),
            ("mean", {"ovr_reduction": "mean"}),
            ("bf16", {"dtype": "bf16"}),
        )
    ]
    losses = [table(run, "training")["loss"].to_list() for run in runs]
    assert len({tuple(loss) for loss in losses}) == 3


def test_numbers_that_were_not_learnt_are_named(tmp_path, capsys):
    some = ["--examples", 48, "--epochs", 1, "--gamma0", 1, "--threads", 1, "--subset", 12, "--no-baselines"]
    out = tmp_path / "run"
    said = call(capsys, "causal-train", "demo", "--task", "addition,copying", *some, "--lr", 1e-9, "--out", out)
    assert said.code == 0
    for dataset in ("addition", "copying"):
        assert f"basic has learnt no number of {dataset}: " in said.err


def test_only_what_is_better_than_the_median_beyond_chance_was_learnt():
    rng = np.random.default_rng(0)
    value = rng.uniform(0, 100, 200)
    guess = {"value": value, "median": np.full(200, 50.0)}
    said = {
        "by chance": guess["median"] + rng.normal(0, 1, 200),
        "all": value + rng.normal(0, 5, 200),
        "the same": guess["median"],
    }
    found = {
        "a": {"predictions": {name: {"value": value, "median": median} for name, median in said.items()}},
        "median": {"predictions": dict.fromkeys(said, guess)},
    }
    assert outcome._guessed(found) == ["by chance", "the same"]
