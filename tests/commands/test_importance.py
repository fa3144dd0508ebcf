"""headtool score with ablation, gradients and updates, from end to end on the models that ship with it."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from safetensors.torch import load_file, save_file

import headtool
from headtool.models import devices
from headtool.models.batches import Examples
from headtool.models.locate import locate
from headtool.scores import passes
from shell import call

SMALL = {"limit": 20, "quiet": True}


def table(run, name="heads"):
    return pl.read_parquet(run / "tables" / f"{name}.parquet")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run"
    return headtool.score("demo", scores="ablation,gradient,fisher,out", out=out, **SMALL)


@pytest.fixture
def moved(tmp_path):
    """The built-in encoder with every weight 1% larger, in a folder of its own."""
    folder = tmp_path / "moved"
    shutil.copytree(locate("demo-encoder").folder, folder)
    state = load_file(folder / "model.safetensors")
    save_file({name: value * 1.01 for name, value in state.items()}, folder / "model.safetensors")
    return folder


def test_the_tables_agree_with_each_other(whole):
    importance, losses, heads = table(whole, "importance"), table(whole, "losses"), table(whole)
    assert losses.height == 20 * (32 + 1)
    clean = losses.filter(pl.col("layer") == -1)
    by_head = losses.filter(pl.col("layer") >= 0).join(clean, on="example", suffix="_base")
    mean = by_head.group_by("layer", "head").agg(
        (pl.col("loss").cast(pl.Float64) - pl.col("loss_base")).mean().alias("I"),
        pl.col("right").cast(pl.Float64).mean(),
    )
    mean = mean.sort("layer", "head")
    np.testing.assert_allclose(importance["I"], mean["I"], atol=1e-9)
    np.testing.assert_allclose(importance["accuracy_ablate"], mean["right"], atol=1e-9)
    np.testing.assert_allclose(importance["loss_ablate"] - importance["loss_base"], importance["I"], atol=1e-12)
    assert ((importance["I_low"] <= importance["I"]) & (importance["I"] <= importance["I_high"])).all()
    assert sorted(importance["rank"]) == list(range(1, 33))
    for name, columns in (("importance", ["I", "I_low", "rank"]), ("gradfisher", ["G", "F", "Ppred"])):
        assert_frame_equal(heads.select(columns), table(whole, name).select(columns))
    manifest = json.loads((whole / "manifest.json").read_text())
    assert manifest["verified"]["largest_difference"] < 1e-5
    assert manifest["data"]["loss"] == "answer"
    top = json.loads((whole / "topk_global.json").read_text())
    assert top[0]["score"] == importance["I"].max()


def test_shards_are_the_whole_bit_for_bit(whole, tmp_path, capsys):
    out = tmp_path / "run"
    for shard in ("2/3", "1/3", "3/3"):
        said = call(
            capsys, "score", "demo", "--scores", "ablation,gradient,fisher,out", "--limit", 20, "-q", "--out", out,
            "--shard", shard,
        )  # fmt: skip
        assert said.code == 0
    for name in ("importance", "losses", "gradfisher"):
        assert_frame_equal(table(out, name), table(whole, name))


@pytest.mark.parametrize("mode", ["mean", "resample"])
def test_modes_are_verified_and_differ(mode, whole, tmp_path, capsys):
    said = call(
        capsys, "score", "demo", "--scores", "ablation", "--ablate", mode, "--limit", 20, "--verify", 5, "--out",
        tmp_path / "run",
    )  # fmt: skip
    assert said.code == 0
    assert "5 heads ablated again the naive way" in said.err
    assert not np.allclose(table(tmp_path / "run", "importance")["I"], table(whole, "importance")["I"], atol=1e-4)


def test_half_precision_states_its_error(tmp_path):
    run = headtool.score("demo", scores="ablation", dtype="bf16", out=tmp_path / "run", **SMALL)
    assert json.loads((run / "manifest.json").read_text())["verified"]["error_of_I"] < 0.2


def test_without_room_for_float32_half_precision_judges_itself(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(devices, "free_bytes", lambda where: 1_000_000)
    said = call(
        capsys, "score", "demo", "--scores", "ablation", "--dtype", "bf16", "--limit", "20", "--out", tmp_path / "run"
    )
    assert said.code == 0
    assert "and 1 MB are free: heads are ablated again in its own precision" in " ".join(said.err.split())
    told = json.loads((tmp_path / "run" / "manifest.json").read_text())["verified"]
    assert 0 < told["largest_difference"] < 0.2
    assert "error_of_I" not in told


def test_a_backward_pass_keeps_within_its_bytes(tmp_path, monkeypatch):
    """Smaller batches, the same numbers."""
    found = []
    for most in (passes.BACKWARD, 1_000_000):
        monkeypatch.setattr(passes, "BACKWARD", most)
        sizes = []
        monkeypatch.setattr(
            Examples,
            "batch",
            lambda self, index, own=Examples.batch, sizes=sizes: sizes.append(len(index)) or own(self, index),
        )
        found.append(headtool.score("demo", scores="gradient", out=tmp_path / str(most), **SMALL))
        monkeypatch.undo()
        assert (max(sizes) > 3) == (most > 1_000_000)
    assert_frame_equal(*(table(run, "gradfisher") for run in found), rel_tol=1e-4, abs_tol=1e-7)


def test_text_rows_and_masked_rows_have_losses(tmp_path):
    rows = tmp_path / "rows.txt"
    rows.write_text("The cat sat on the mat today.\nA dog ran over the hill.\n\nShort.\n")
    run = headtool.score("demo", scores="ablation", data=str(rows), out=tmp_path / "run", quiet=True)
    assert json.loads((run / "manifest.json").read_text())["data"]["loss"] == "tokens"
    assert table(run, "importance")["n"].unique().to_list() == [3]


def test_update_of_a_model_from_itself(tmp_path, capsys):
    said = call(
        capsys, "score", "demo-encoder", "--scores", "update", "--init", "demo-encoder", "--out", tmp_path / "run"
    )
    assert said.code == 0
    assert "warning: U is 0 for every head: no q, k, v or o differs from --init's" in said.err
    assert " moved    no head\n" in said.err


def test_update_from_two_folders(moved, tmp_path):
    run = headtool.score(str(moved), scores="update", init="demo-encoder", out=tmp_path / "run", quiet=True)
    update = table(run, "update")
    parts = update.select(pl.sum_horizontal(pl.col("Uq", "Uk", "Uv", "Uo").pow(2)).sqrt().alias("U"))
    np.testing.assert_allclose(update["U"], parts["U"])
    before = update["U"] / update["Urel"]
    assert ((update["Urel"] > 0.004) & (update["Urel"] <= 0.01)).all()
    assert (before > 0).all()
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["inputs"]["init_sha256"] == locate("demo-encoder").fingerprint()["weights_sha256"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--scores", "update"], "update needs the checkpoint"),
        (["--scores", "update", "--init", "demo"], "another tokenizer"),
        (["--scores", "update", "--init", "nowhere/at/all"], "no such model folder"),
        (["--scores", "ablation", "--ablate", "noise"], "noise"),
        (["--scores", "ablation", "--memory", "lots"], "neither 'auto' nor a size"),
        (["--scores", "ablation", "--verify", "-1"], "--verify"),
        (["--scores", "ablation", "--ablate", "resample", "--limit", "1"], "second example"),
        (["--scores", "ablation", "--data", "{far}"], "label 7 is none of the 3 classes"),
        (["--scores", "gradient", "--data", "{none}"], "has no label"),
        (["--scores", "gradient", "--data", "{odd}"], "none of the 3 classes"),
    ],
)
def test_what_cannot_be_asked(args, words, tmp_path, capsys):
    for name, label in (("far", "7"), ("none", "null"), ("odd", '"maybe so"')):
        row = f'{{"premise": "It rains.", "hypothesis": "It is wet.", "label": {label}}}\n'
        (tmp_path / f"{name}.jsonl").write_text(row * 3)
    given = [a.format(**{n: tmp_path / f"{n}.jsonl" for n in ("far", "none", "odd")}) for a in args]
    said = call(capsys, "score", "demo-encoder", *given, "--out", tmp_path / "run")
    assert said.code == 2
    assert re.search(words, said.error)
    assert not (tmp_path / "run" / "tables" / "heads.parquet").exists()


def test_a_sampled_sweep_knows_what_it_does_not_know(tmp_path, capsys):
    """Intervals as narrow as asked for, most of which hold what the whole sweep gives, from fewer ablations."""
    rows = ("--subset", "all", "--threads", "1", "--top-k", "4")
    ask = ("score", "demo-encoder", "--scores", "ablation", *rows)
    said = call(capsys, *ask, "--ablate-error", "0.02", "--out", tmp_path / "some")
    assert said.code == 0
    assert "round 1: 64 of 256 examples" in said.err
    assert call(capsys, *ask, "-q", "--out", tmp_path / "all").code == 0
    some, every = table(tmp_path / "some", "importance"), table(tmp_path / "all", "importance")
    assert ((some["I_data_high"] - some["I_data_low"]) / 2 <= 0.02 + 1e-9).all()
    held = (some["I_data_low"] - 1e-6 <= every["I"]) & (every["I"] <= some["I_data_high"] + 1e-6)
    assert held.sum() >= 13
    assert some["n_exact"].sum() < every["n_exact"].sum()
    assert (some["n"] == 256).all()
    np.testing.assert_allclose(some["loss_base"], every["loss_base"], atol=1e-5)
    losses = table(tmp_path / "some", "losses")
    assert losses.height == 256 + some["n_exact"].sum()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--ablate-error", "0"], "not a number above 0"),
        (["--ablate-error", "nan"], "not a number above 0"),
        (["--ablate-budget", "-3"], "not a number above 0"),
        (["--ablate-error", "0.1", "--shard", "1/2"], "must run at the same time"),
        (["--ablate-error", "0.1", "--scores", "out"], "are about ablation"),
        (["--ablate-until", "top-k"], "needs --ablate-error"),
    ],
)
def test_what_a_sampled_sweep_cannot_do(args, words, tmp_path, capsys):
    said = call(capsys, "score", "demo-encoder", "--scores", "ablation", *args, "--out", tmp_path / "run")
    assert said.code == 2
    assert words in said.error


def test_a_budget_ends_the_rounds(tmp_path, capsys):
    said = call(
        capsys, "score", "demo-encoder", "--scores", "ablation", "--subset", "all", "--ablate-budget", "0.000001",
        "--threads", "1", "--top-k", "4", "--out", tmp_path / "run",
    )  # fmt: skip
    assert said.code == 0
    assert set(table(tmp_path / "run", "importance")["n_exact"]) == {64}


def test_a_loss_that_is_no_number_is_an_error(tmp_path, capsys):
    folder = tmp_path / "broken"
    shutil.copytree(locate("demo-encoder").folder, folder)
    state = load_file(folder / "model.safetensors")
    state["classifier.bias"][:] = float("nan")
    save_file(state, folder / "model.safetensors")
    for scores in ("ablation", "gradient"):
        said = call(capsys, "score", folder, "--scores", scores, "--limit", "8", "--out", tmp_path / scores)
        assert said.code == 1
        assert "finite" in said.error


def test_the_plan_of_a_sweep(tmp_path, capsys):
    args = ("score", "demo-encoder", "--scores", "ablation,gradient", "--out", tmp_path / "run", "--dry-run")
    said = call(capsys, *args)
    assert said.code == 0
    assert "parts" in said.out
    assert not (tmp_path / "run").exists()
