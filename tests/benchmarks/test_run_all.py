"""benchmarks/run.py: every script is run, what it prints is kept, and the pages are made from that."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GOOD = "print('a 1.0')\nprint('headline: `a`, 2 heads | the naive loop | 3 times as fast | 1 against 2 GB')\nx = bytearray(50_000_000)"
BAD = "import sys\nprint('half')\nsys.exit('no such peer')"


@pytest.fixture
def bench():
    spec = importlib.util.spec_from_file_location("bench_run", ROOT / "benchmarks" / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folder(tmp_path):
    for name, text in (("a", GOOD), ("b", BAD)):
        (tmp_path / f"bench_{name}.py").write_text(text)
    (tmp_path / "RESULTS.md").write_text("# Results\n\nBy hand.\n\n## bench_a.py, long ago\n\nIt did not help.\n")
    (tmp_path / "README.md").write_text("before\n<!-- bench -->\nold\n<!-- /bench -->\nafter\n")
    (tmp_path / "results").mkdir()
    return tmp_path


def test_what_is_kept_and_what_is_made_of_it(bench, folder):
    assert bench.names(folder) == ["a", "b"]
    for name in bench.names(folder):
        kept = bench.run(name, folder)
        (folder / "results" / f"{name}.json").write_text(json.dumps(kept))
    a, b = bench.results(folder)
    assert (a["code"], a["output"]) == (0, ["a 1.0"])
    assert a["headlines"] == [["`a`, 2 heads", "the naive loop", "3 times as fast", "1 against 2 GB"]]
    assert a["peak_mb"] > 50
    assert (b["code"], b["output"], b["errors"]) == (1, ["half"], ["no such peer"])
    for _ in range(2):  # writing again changes nothing
        bench.write(folder, folder / "README.md")
        page = (folder / "RESULTS.md").read_text()
        assert page.startswith("# Results\n\nBy hand.\n")
        assert page.endswith("## bench_a.py, long ago\n\nIt did not help.\n")
        assert page.count("| `a`, 2 heads | the naive loop | 3 times as fast | 1 against 2 GB |") == 1
        assert "It failed with 1." in page
        assert "no such peer" in page
        readme = (folder / "README.md").read_text()
        assert readme.splitlines()[0] == "before"
        assert readme.splitlines()[-1] == "after"
        assert "old" not in readme
        assert "| `a`, 2 heads |" in readme


def test_one_that_takes_too_long_is_stopped(bench, folder):
    (folder / "bench_a.py").write_text("import time\nprint('begun', flush=True)\ntime.sleep(60)")
    kept = bench.run("a", folder, limit=1)
    assert kept["code"] != 0
    assert kept["output"] == ["begun"]
    assert kept["errors"] == ["stopped after 1 s"]


def test_what_was_kept_here_is_what_the_pages_show(bench, tmp_path):
    """RESULTS.md and the README are those that benchmarks/run.py --write makes."""
    kept = bench.results()
    for file, marks, made in (
        (ROOT / "benchmarks" / "RESULTS.md", bench.RUN, bench.page),
        (ROOT / "README.md", bench.BENCH, bench.table),
    ):
        if not kept or (made is bench.table and not any(each["headlines"] for each in kept)):
            continue
        copy = tmp_path / file.name
        copy.write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
        bench.put(copy, marks, made(kept))
        assert copy.read_text(encoding="utf-8") == file.read_text(encoding="utf-8"), (
            f"python benchmarks/run.py --write: {file.name}"
        )


def test_there_is_a_setting_for_nothing_else(bench):
    assert set(bench.SETTINGS) <= set(bench.names())
