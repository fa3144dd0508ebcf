"""How to add a score, a detector, a family, a task and a command, followed word for word in a copy of the tree."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from trouble.warm import Warm

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
ROOT = Path(__file__).parents[2]
BLOCK = re.compile(
    r"^```python\n# (in (?P<name>\w+) of )?(?P<file>[\w/.]+)[^\n]*\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
USE = """
from families import tiny
from headtool.faults import asked, guard
kept, _ = guard.usable(tiny("llama"), asked.detectors("negative"), kv_equal=False)
assert kept["negative"].QUANTITIES == ("weight",)
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the tree with what CONTRIBUTING.md says to write."""
    copy = tmp_path_factory.mktemp("copy")
    for name in ("src", "tests"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    written = list(BLOCK.finditer((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")))
    assert len(written) == 8
    for block in written:
        file = copy / block["file"]
        if block["name"] is None:
            assert not file.exists()
            file.write_text(block["text"])
        else:  # after the bracket that opens what the name is assigned
            text, found = re.subn(
                rf"^({block['name']}\b[^=\n]*= ?[({{])\n?",
                lambda m, b=block: f"{m[1]}\n{b['text']}",
                file.read_text(),
                flags=re.MULTILINE,
            )
            assert found == 1, block["file"]
            file.write_text(text)
    return copy


@pytest.fixture(scope="module")
def warm(tree):
    made = Warm(PYTHONPATH=str(tree / "src"))
    yield made
    made.close()


def test_the_score_the_task_and_the_command(warm, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"title": f"the lion {i} is red"}) + "\n" for i in range(8)))
    out = tmp_path / "run"
    args = (
        "score",
        "demo",
        "--scores",
        "task,self_attention",
        "--task",
        "headlines",
        "--data",
        rows,
        "--query",
        "all",
        "--out",
        out,
    )
    scored = warm.run(*args)
    assert scored.code == 0, scored.err
    heads = pl.read_parquet(out / "tables" / "heads.parquet")
    assert heads["self_attention_raw"].is_between(0, 1).all()
    assert heads["task_n"].to_list() == [8] * 32
    shown = warm.run("strongest", out, "--top-k", 2)
    assert shown.out.splitlines()[0] == "layer\thead\tscore"
    assert len(shown.out.splitlines()) == 3
    assert "Print the strongest heads" in warm.run("strongest", "--help").out
    refused = warm.run("strongest", tmp_path)
    assert refused.code == 2
    assert "there is no topk_global.json" in refused.err


def test_the_detector_and_the_family(tree):
    """The detector is found; the tests of the model layer cover the family without a word more."""
    env = os.environ | {"PYTHONPATH": f"{tree / 'src'}{os.pathsep}{tree / 'tests'}"}
    used = subprocess.run([sys.executable, "-c", USE], env=env, capture_output=True, text=True, check=False)
    assert used.returncode == 0, used.stderr
    args = [
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-c",
        str(ROOT / "pyproject.toml"),
        f"--rootdir={tree}",
        "-k",
        "starcoder2",
    ]
    tested = subprocess.run(
        [sys.executable, *args, str(tree / "tests" / "models" / "test_families.py")],
        env=env,
        cwd=tree,
        capture_output=True,
        text=True,
        check=False,
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert re.search(r"[1-9]\d* passed|^\.+ ", tested.stdout, re.MULTILINE)
