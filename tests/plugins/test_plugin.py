"""The example package, installed as a user would install it: its score, its detector and its command are headtool's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from trouble.warm import Warm

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "headtool-plugin"
DETECT = """
import numpy as np
import torch
from families import random_batch, tiny
from headtool.faults import asked, bits, guard, trial
from headtool.faults.fault import Fault
from headtool.models import suffix
from headtool.models.batches import IGNORED, Batch

adapter, random = tiny("llama"), random_batch(tiny("llama"), (12,))
batch = Batch(random.ids, random.mask, random.index, None, None, torch.roll(random.ids, -1, 1).index_fill(1, torch.tensor([11]), IGNORED))
kept, left_out = guard.usable(adapter, asked.detectors("negative,range"), kv_equal=False)
assert list(kept) == ["negative", "range"] and not left_out
limits = guard.Limits({name: torch.zeros(adapter.geometry.layers, len(module.QUANTITIES), dtype=torch.float64) + (name == "range") * 1e9
                       for name, module in kept.items()})
with torch.inference_mode():
    setup = trial.Setup(adapter, suffix.resumable(adapter, batch), kept, limits)
    clean = suffix.Suffix(adapter, batch, cut=setup.cut)
    faults = []
    for bit in (31, 22):  # the sign of an attention weight, and a bit of its mantissa
        keep, flip = bits.masks(bits.parse("flip"), bit, adapter.dtype, np.random.default_rng(0))
        faults.append(Fault("forward", "weights", 1, 0, 2, 11, 3, "flip", bit, keep, flip, 0))
    sign, mantissa = trial.run(setup, clean, faults)
assert sign.after[1] == -sign.before[1] and sign.ratios["negative"] > 1, sign
assert mantissa.ratios["negative"] <= 1, mantissa
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the example installed by pip from a copy of its sources, without a network."""
    pytest.importorskip("setuptools")
    at = tmp_path_factory.mktemp("plugin")
    copy = shutil.copytree(EXAMPLE, at / "source")
    args = [
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--disable-pip-version-check",
        "--target",
        at / "site",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", *args, copy], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return at / "site"


def environment(installed):
    paths = [str(installed), *([os.environ["PYTHONPATH"]] if "PYTHONPATH" in os.environ else []), str(ROOT / "tests")]
    return {"PYTHONPATH": os.pathsep.join(paths)}


@pytest.fixture(scope="module")
def run(installed):
    """headtool where the package is installed: its words, after a look at its exit code."""
    if not hasattr(os, "fork"):
        pytest.skip("needs fork")
    warm = Warm(**environment(installed))

    def call(*args, code=0, **env):
        process = warm.run(*args, env=env)
        assert process.code == code, process.err
        return process

    yield call
    warm.close()


def python(installed, code, **env):
    """A Python of its own where the package is installed."""
    env = os.environ | environment(installed) | env
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


def test_the_score_and_the_command(run, tmp_path):
    out = tmp_path / "run"
    asked = ("--scores", "out,self_attention", "--limit", 16, "--query", "all")
    run("score", "demo", *asked, "--out", out, "-q")
    heads = pl.read_parquet(out / "tables" / "heads.parquet")
    assert heads["self_attention_raw"].is_between(0, 1).all()
    assert heads["self_attention_raw"].n_unique() > 1
    shown = run("strongest", out, "--by", "self_attention_raw", "--top-k", 3)
    first = heads.sort("self_attention_raw", descending=True).row(0, named=True)
    lines = shown.out.splitlines()
    assert lines[0] == "layer\thead\tself_attention_raw"
    assert len(lines) == 4
    assert lines[1].split("\t")[:2] == [str(first["layer"]), str(first["head"])]
    asked = json.loads(run("strongest", out, "--by", "self_attention_raw", "--json", HEADTOOL_TOP_K="2").out)
    assert len(asked["heads"]) == 2
    refused = run("strongest", out, "--by", "self_atention_raw", code=2)
    assert "there is no column named 'self_atention_raw'" in refused.err
    assert "did you mean 'self_attention_raw'" in refused.err


def test_the_detector(installed):
    python(installed, DETECT)


def test_its_command_helps_completes_and_errs_like_any_other(run, installed):
    helped = run("strongest", "--help").out
    assert "Print the strongest heads of a run." in helped
    assert "--by" in helped
    assert "strongest" in run("--help").out
    assert "no such option: --bye" in run("strongest", "x", "--bye", code=2).err
    for line, expected in (
        ("headtool str", {"strongest"}),
        ("headtool strongest x --to", {"--top-k"}),
        ("headtool score demo --scores self", {"self_attention"}),
    ):
        words = line.split(" ")
        asked = {"_HEADTOOL_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
        code = "import sys; sys.argv = ['headtool']; from headtool.cli import main; main()"
        assert set(python(installed, code, **asked).stdout.split()) == expected


@pytest.mark.parametrize("words", [["--help"], ["score", "--help"]], ids=" ".join)
def test_nobody_else_pays_for_it(installed, words):
    code = f"""
import sys
from headtool.cli import main
sys.argv = ["headtool", *{words}]
try:
    main()
finally:
    print("headtool_plugin" in sys.modules, file=sys.stderr)
"""
    assert python(installed, code).stderr == "False\n"


def test_a_broken_one_is_named_and_nothing_else_suffers(run, installed):
    for name in ("strongest", "self_attention"):
        (installed / "headtool_plugin" / f"{name}.py").write_text("import nothing_of_this_name")
    said = run("strongest", "x", code=1).err
    assert "error: the plug-in headtool_plugin.strongest:command cannot be loaded: ModuleNotFoundError" in said
    assert "Traceback" not in said
    assert "strongest" in run("--help").out
    assert "cannot be loaded" in run("score", "demo", "--scores", "self_attention", code=2).err
    found = json.loads(run("doctor", "--json", HF_HUB_OFFLINE="1").out)
    (plugins,) = (finding for finding in found["findings"] if finding["name"] == "plug-ins")
    assert plugins["state"] == "note"
    assert "self_attention (headtool_plugin.self_attention)" in plugins["found"]
