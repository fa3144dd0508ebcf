"""A model that is spread over memory and disk gives what it gives in memory."""

from __future__ import annotations

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import headtool
from shell import call

SPREAD = {"device_map": "auto", "max_memory": "cpu=300kB"}


def test_scores(tmp_path):
    same = {"scores": "out,resid,ent,task,ablation,gradient", "limit": 8, "threads": 1, "quiet": True}
    runs = [headtool.score("demo", out=tmp_path / str(len(more)), **same, **more) for more in ({}, SPREAD)]
    whole, spread = (pl.read_parquet(run / "tables" / "heads.parquet") for run in runs)
    assert_frame_equal(whole, spread, abs_tol=1e-6)


def test_faults(tmp_path):
    same = {"bits": "20-31", "layers": "0,3", "sequences": 4, "calibrate": 4, "runs": 1, "threads": 1, "quiet": True}
    runs = [headtool.inject("demo", out=tmp_path / str(len(more)), **same, **more) for more in ({}, SPREAD)]
    whole, spread = (pl.read_parquet(run / "tables" / "trials.parquet") for run in runs)
    columns = [
        "site",
        "layer",
        "sequence",
        "head",
        "row",
        "column",
        "bit",
        "outcome",
        "loss_diff",
        "detected",
        "after_bits",
    ]
    assert_frame_equal(whole.select(columns).sort(columns[:7]), spread.select(columns).sort(columns[:7]), abs_tol=1e-6)


def test_a_family_that_reads_weights_behind_a_modules_back(tmp_path, capsys):
    said = call(
        capsys, "score", "demo-encoder", "--device-map", "auto", "--max-memory", "cpu=300kB", "--out", tmp_path / "run"
    )
    assert said.code == 2
    assert "reads weights that --device-map has put on the disk" in said.error


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--max-memory", "cpu=1GB"], "--max-memory without --device-map auto"),
        (["--device-map", "auto", "--max-memory", "gpu=1GB"], "not of the form DEVICE=SIZE"),
        (["--device-map", "auto", "--max-memory", "cpu=lots"], "--max-memory cpu=lots: not of the form DEVICE=SIZE"),
        (["--device-map", "auto", "--device", "cpu"], "contradict each other"),
    ],
)
@pytest.mark.parametrize("command", ["score", "inject"])
def test_what_cannot_be_meant(command, flags, says, tmp_path, capsys):
    said = call(capsys, command, "demo", *flags, "--out", tmp_path / "run")
    assert said.code == 2
    assert says in said.error
    assert not (tmp_path / "run").exists()
