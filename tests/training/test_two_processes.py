"""Training by torchrun: two processes leave what one leaves with the same batches over all."""

from __future__ import annotations

import os
import subprocess
import sys

import polars as pl
import pytest

TRAININGS = {
    "finetune": "finetune demo-encoder --task demo --limit 64 --subset 16 --epochs 1 --lr 1e-3 --batch-size 16",
    "causal-train": "causal-train demo --task addition --examples 48 --epochs 1 --batch-size 8 --no-baselines",
}


@pytest.mark.parametrize("words", TRAININGS.values(), ids=TRAININGS.keys())
def test_the_loss_curve_is_that_of_one_process(words, tmp_path):
    launch = {
        "one": (sys.executable, "-m", "headtool"),
        "two": (
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            "2",
            "-m",
            "headtool",
        ),
    }
    for out, start in launch.items():
        call = [*start, *words.split(), "--threads", "1", "--quiet", "--out", out]
        ended = subprocess.run(
            call, cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )
        assert (ended.returncode, ended.stdout) == (0, f"{out}\n"), ended.stderr
        assert all(line.startswith("headtool: warning: ") for line in ended.stderr.splitlines()), ended.stderr
    one, two = (pl.read_parquet(tmp_path / out / "tables" / "training.parquet") for out in launch)
    assert one.height > 3
    assert two["loss"].to_list() == pytest.approx(one["loss"].to_list(), rel=1e-5)
    assert two["grad_norm"].to_list() == pytest.approx(one["grad_norm"].to_list(), rel=1e-4)
