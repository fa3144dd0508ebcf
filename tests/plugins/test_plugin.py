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

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "headtool-plugin"
DETECT = """
import numpy as np
import torch
from families import random_batch, tiny
from headtool.faults import bits, guard, trial
from headtool.faults.fault import Fault
from headtool.models import suffix
from headtool.models.batches import IGNORED, Batch

adapter, random = tiny("llama"), random_batch(tiny("llama"), (12,))
batch = Batch(random.ids, random.mask, random.index, None, None, torch.roll(random.ids, -1, 1).index_fill(1, torch.tensor([11]), IGNORED))
kept, left_out = guard.usable(adapter, guard.names_of("negative,range"), kv_equal=False)
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
assert sign.after[1] == -sign.before[1] and sign.detected_by == ["negative"], sign
assert mantissa.detected_by == [], mantissa
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


def run(installed, *args, code=0, python=("-m", "headtool"), cwd=None, **more):
    paths = [str(installed), *([os.environ["PYTHONPATH"]] if "PYTHONPATH" in os.environ else []), str(ROOT / "tests")]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(paths)} | more
    done = subprocess.run(
        [sys.executable, *python, *map(str, args)], env=env, cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    return done


def test_the_score_and_the_command(installed, tmp_path):
    out = tmp_path / "run"
    run(
        installed,
        "score",
        "demo",
        "--scores",
        "out,self_attention",
        "--limit",
        16,
        "--query",
        "all",
        "--out",
        out,
        "-q",
    )
    heads = pl.read_parquet(out / "tables" / "heads.parquet")
    assert heads["self_attention_raw"].is_between(0, 1).all()
    assert heads["self_attention_raw"].n_unique() > 1
    shown = run(installed, "strongest", out, "--by", "self_attention_raw", "--top-k", 3)
    first = heads.sort("self_attention_raw", descending=True).row(0, named=True)
    lines = shown.stdout.splitlines()
    assert lines[0] == "layer\thead\tself_attention_raw"
    assert len(lines) == 4
    assert lines[1].split("\t")[:2] == [str(first["layer"]), str(first["head"])]
    asked = json.loads(
        run(installed, "strongest", out, "--by", "self_attention_raw", "--json", HEADTOOL_TOP_K="2").stdout
    )
    assert len(asked["heads"]) == 2
    refused = run(installed, "strongest", out, "--by", "self_atention_raw", code=2)
    assert "there is no column named 'self_atention_raw'" in refused.stderr
    assert "did you mean 'self_attention_raw'" in refused.stderr


def test_the_detector(installed):
    run(installed, python=("-c", DETECT))


def test_its_command_helps_completes_and_errs_like_any_other(installed):
    helped = run(installed, "strongest", "--help").stdout
    assert "Print the strongest heads of a run." in helped
    assert "--by" in helped
    assert "strongest" in run(installed, "--help").stdout
    assert "no such option: --bye" in run(installed, "strongest", "x", "--bye", code=2).stderr
    for line, expected in (
        ("headtool str", {"strongest"}),
        ("headtool strongest x --to", {"--top-k"}),
        ("headtool score demo --scores self", {"self_attention"}),
    ):
        words = line.split(" ")
        asked = {"_HEADTOOL_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
        code = "import sys; sys.argv = ['headtool']; from headtool.cli import main; main()"
        assert set(run(installed, python=("-c", code), **asked).stdout.split()) == expected


def test_nobody_else_pays_for_it(installed):
    code = "import sys; from headtool.cli import main\ntry: main()\nfinally: print('headtool_plugin' in sys.modules, file=sys.stderr)"
    assert run(installed, "--help", python=("-c", code)).stderr == "False\n"
    assert run(installed, "score", "--help", python=("-c", code)).stderr == "False\n"


def test_a_broken_one_is_named_and_nothing_else_suffers(installed, tmp_path):
    broken = shutil.copytree(installed, tmp_path / "site")
    for name in ("strongest", "self_attention"):
        (broken / "headtool_plugin" / f"{name}.py").write_text("import nothing_of_this_name")
    said = run(broken, "strongest", "x", code=1).stderr
    assert (
        "headtool: error: the plug-in headtool_plugin.strongest:command cannot be loaded: ModuleNotFoundError" in said
    )
    assert "Traceback" not in said
    assert "strongest" in run(broken, "--help").stdout
    said = run(broken, "score", "demo", "--scores", "self_attention", code=2).stderr
    assert "cannot be loaded" in said
    found = json.loads(run(broken, "doctor", "--json", HF_HUB_OFFLINE="1").stdout)
    (plugins,) = (finding for finding in found["findings"] if finding["name"] == "plug-ins")
    assert plugins["state"] == "note"
    assert "self_attention (headtool_plugin.self_attention)" in plugins["found"]
