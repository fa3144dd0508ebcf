"""headtool report from end to end, over runs with made-up numbers and over real ones."""

from __future__ import annotations

import json
import math
import os
import shutil

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import headtool
import runs
from headtool.reporting.statistics import NAMES
from shell import call

K = ("--top-k", "10")
ONE_PAIR = {
    "heads.csv", "stats.json", "cases.json", "importance_pre.jsonl", "importance_post.jsonl", "gradfisher_pre.jsonl",
    "update.jsonl", "fig_I_vs_U.png", "fig_I_vs_G.png", "fig_stats.png", "fig_Ipre_vs_Ipost.png", "report.md",
    "report.html", "manifest.json", "config.yaml", "run.log", "summary.txt", "tables", "figures",
}  # fmt: skip


def names(folder):
    return {entry.name for entry in folder.iterdir() if not entry.name.startswith(".")}


def load(folder, name):
    """JSON without NaN or infinity, which Python would read without a word."""

    def refuse(word):
        raise AssertionError(word)

    return json.loads((folder / name).read_text(), parse_constant=refuse)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return {seed: runs.pair(folder, seed) for seed in (1, 2)}


@pytest.fixture(scope="module")
def one(pairs, tmp_path_factory):
    return headtool.report(pairs[1], top_k=10, out=tmp_path_factory.mktemp("one") / "report", quiet=True)


@pytest.fixture(scope="module")
def several(pairs, tmp_path_factory):
    everything = [*pairs[1], *pairs[2]]
    return headtool.report(everything, top_k=10, out=tmp_path_factory.mktemp("several") / "report", quiet=True)


def test_a_report_leaves_what_the_docs_say(one):
    assert names(one) == ONE_PAIR
    for name in ("fig_I_vs_U", "fig_I_vs_G", "fig_stats", "fig_Ipre_vs_Ipost", "heads"):
        for suffix in ("png", "svg"):
            assert (one / "figures" / f"{name}.{suffix}").stat().st_size > 0
    assert load(one, "manifest.json")["status"] == "done"


def test_the_keys_of_stats(one):
    stats = load(one, "stats.json")
    counts = ["topk", "n_heads", "n_important_but_static", "n_plastic_but_unimportant"]
    assert list(stats) == [*NAMES, *counts]
    for name in NAMES:
        assert list(stats[name]) == ["value", "n", "chance", "p", "ci_low", "ci_high"]
        assert -1 <= stats[name]["ci_low"] <= stats[name]["ci_high"] <= 1
    assert (stats["topk"], stats["n_heads"]) == (10, 48)
    cases = load(one, "cases.json")
    for kind in ("important_but_static", "plastic_but_unimportant"):
        assert len(cases[kind]) == stats[f"n_{kind}"]
    assert {"p_high", "p_low", "I_pre_high", "I_pre_low", "Urel_high", "Urel_low"} == set(cases["thresholds"])


def test_the_lines_are_the_tables(one, pairs):
    pre, grad, post = pairs[1]
    for name, run, table, columns in (
        ("importance_pre", pre, "importance", ["I", "loss_base", "loss_ablate", "n"]),
        ("importance_post", post, "importance", ["I", "loss_base", "loss_ablate", "n"]),
        ("gradfisher_pre", grad, "gradfisher", ["G", "F", "Ppred", "n"]),
        ("update", post, "update", ["U", "Urel", "Uq", "Uk", "Uv", "Uo"]),
    ):
        lines = [json.loads(line) for line in (one / f"{name}.jsonl").read_text().splitlines()]
        frame = pl.read_parquet(run / "tables" / f"{table}.parquet").select("layer", "head", *columns)
        assert [list(line.values()) for line in lines] == [list(row) for row in frame.rows()]
        assert list(lines[0]) == frame.columns


def test_the_tables_are_the_files(one):
    heads = pl.read_csv(one / "heads.csv")
    table = pl.read_parquet(one / "tables" / "report.parquet")
    assert_frame_equal(table.drop("label", "seed"), heads, check_dtypes=False)
    statistics = pl.read_parquet(one / "tables" / "statistics.parquet")
    stats = load(one, "stats.json")
    assert {row["statistic"]: row["value"] for row in statistics.iter_rows(named=True)} == {
        name: stats[name]["value"] for name in NAMES
    }


def test_several_seeds(several, pairs):
    stats = load(several, "stats.json")
    assert list(stats["seeds"]) == ["1", "2"]
    values = [stats["seeds"][seed]["spearman_rho_Ipre_Ipost"]["value"] for seed in ("1", "2")]
    assert stats["spearman_rho_Ipre_Ipost"]["value"] == pytest.approx(np.mean(values))
    assert stats["spread"]["spearman_rho_Ipre_Ipost"]["sd"] == pytest.approx(np.std(values, ddof=1))
    assert set(stats["rank_stability"]) == {"I_pre", "I_post", "Urel"}
    assert pl.read_csv(several / "heads.csv").height == 48
    assert pl.read_parquet(several / "tables" / "report.parquet")["seed"].unique().sort().to_list() == [1, 2]
    first = json.loads((several / "update.jsonl").read_text().splitlines()[0])
    assert list(first)[0] == "seed"
    assert set(load(several, "cases.json")["seeds"]) == {"1", "2"}


def test_a_comparison(pairs, tmp_path, capsys):
    rng, n = np.random.default_rng(9), 48
    tables = {"importance": runs.importance(rng.normal(size=n)), "update": runs.update(rng.normal(size=n) / 9)}
    lora = runs.make(tmp_path / "lora", tables, model="lora", init="init-1", seed=1)
    out = tmp_path / "report"
    pre, grad, post = pairs[1]
    labels = ("--compare", f"FULL={post}", "--compare", f"LORA={pre},{lora}")
    said = call(capsys, "report", pre, grad, *labels, "--out", out, *K)
    assert said.code == 0, said.err
    made = {"compare_metrics.json", "compare_I_vs_U.png", "compare_stats.png", "compare_update_dist.png"}
    assert made | {"compare_headwise.png", "compare_summary.txt", "labels", "report.html"} <= names(out)
    metrics = load(out, "compare_metrics.json")
    assert list(metrics["labels"]) == ["FULL", "LORA"]
    gap = metrics["differences"][0]["spearman_rho_Ipre_Urel"]
    values = [metrics["labels"][label]["spearman_rho_Ipre_Urel"]["value"] for label in ("FULL", "LORA")]
    assert gap["value"] == pytest.approx(values[0] - values[1])
    assert gap["ci_low"] <= gap["ci_high"]
    shared = "spearman_rho_Ipre_G"  # of the same two runs in both
    assert metrics["labels"]["FULL"][shared]["value"] == metrics["labels"]["LORA"][shared]["value"] is not None
    assert metrics["differences"][0][shared]["value"] is None
    for label in ("FULL", "LORA"):
        assert load(out / "labels" / label, "stats.json") == metrics["labels"][label]
        assert pl.read_csv(out / "labels" / label / "heads.csv").height == 48
    median = pl.read_csv(out / "labels" / "LORA" / "heads.csv")["Urel"].median()
    assert metrics["updates"]["LORA"]["Urel"]["median"] == pytest.approx(median)
    assert "FULL minus LORA" in (out / "compare_summary.txt").read_text()


def test_real_runs_of_forward_scores(tmp_path, capsys, monkeypatch):
    """No importance: the scores are columns, and the statistics say why they are not there."""
    monkeypatch.chdir(tmp_path)
    given = [headtool.score("demo", scores="out,ent", limit=4, quiet=True)]
    said = call(capsys, "report", *given)
    assert said.code == 0
    assert said.out.startswith("runs/report-demo-")
    assert said.err.splitlines()[-2:] == [" report  demo  4 x 8 heads", " page     report.html"]
    out = tmp_path / said.out.strip()
    heads = pl.read_csv(out / "heads.csv")
    raw = pl.read_parquet(tmp_path / given[0] / "tables" / "scores_raw.parquet")
    assert heads.columns == ["layer", "head", "out", "ent"]
    np.testing.assert_allclose(heads["out"].to_numpy(), raw["out_raw"].to_numpy(), rtol=1e-12)
    stats = load(out, "stats.json")
    assert stats["spearman_rho_Ipre_U"] == {
        "value": None, "n": 0, "chance": None, "p": None, "ci_low": None, "ci_high": None,
        "note": "no run gives I_pre and U",
    }  # fmt: skip
    assert stats["n_important_but_static"] is None
    assert not list(out.glob("fig_*")) + list(out.glob("*.jsonl"))


def test_without_a_run_the_newest_are_named(pairs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call(capsys, "report").err.endswith("hint: a run directory, as 'headtool score' prints it\n")
    for name, age in (("old", 100), ("older", 1000), ("new", 0)):
        shutil.copytree(pairs[1][0], tmp_path / "runs" / name)
        manifest = tmp_path / "runs" / name / "manifest.json"
        os.utime(manifest, (manifest.stat().st_atime, manifest.stat().st_mtime - age))
    said = call(capsys, "report")
    assert said.code == 2
    assert said.err.endswith("; the newest in runs: runs/new runs/old runs/older\n")


def test_runs_of_other_rows_and_of_one_side_are_told(pairs, tmp_path, capsys):
    pre, _, post = pairs[1]
    other = runs.make(
        tmp_path / "other", {"importance": runs.importance(np.arange(48) / 48)}, model="init-1", seed=1, rows="others"
    )
    said = call(capsys, "report", other, post, *K, "--out", tmp_path / "both")
    assert (
        f"warning: {other} and {post} are scores of different rows (--data, --task, --field, --limit or --subset)"
        in said.err
    )
    written = [path for path in (tmp_path).glob("*/report.*") if "different rows" in path.read_text(encoding="utf-8")]
    assert {path.name for path in written} == {"report.md", "report.html"}
    assert "different rows" in (written[0].parent / "run.log").read_text()
    assert "different rows" not in call(capsys, "report", pre, post, *K, "--out", tmp_path / "alike").err
    said = call(capsys, "report", pre, *K, "--out", tmp_path / "one")
    assert "no run has --init: nothing is said of what fine-tuning moved" in said.err


def test_scores_of_other_queries_are_told(tmp_path, capsys):
    given = [
        headtool.score("demo", scores="ent", limit=4, quiet=True, out=tmp_path / "last"),
        headtool.score("demo", scores="task", query="all", exclude_bos=True, limit=4, quiet=True, out=tmp_path / "all"),
    ]
    said = call(capsys, "report", *given, "--out", tmp_path / "both")
    assert f"{given[0]} of --query last and {given[1]} of --query all --exclude-bos" in said.err
    assert "read elsewhere" not in call(capsys, "report", given[0], "--out", tmp_path / "one").err


def test_a_case_that_may_be_none_has_a_question_mark(tmp_path, capsys):
    values = np.arange(48) / 48
    known = runs.importance(values) | {"differs": [i == 46 for i in range(48)]}
    pre = runs.make(tmp_path / "pre", {"importance": known}, model="before")
    after = {"importance": known, "update": runs.update(1 - values)}
    post = runs.make(tmp_path / "post", after, model="after", init="before")
    said = call(capsys, "report", pre, post, *K, "--out", tmp_path / "report")
    assert "(L5H7? L5H6 L5H5? " in said.err
    assert " ?        whose I_pre is not known to differ from 0" in said.err
    found = load(tmp_path / "report", "cases.json")["important_but_static"]
    assert [row["I_pre_differs"] for row in found[:3]] == [False, True, False]


def test_a_report_is_named_after_the_run_that_a_checkpoint_is_of(tmp_path, capsys):
    run = runs.make(
        tmp_path / "run", {"importance": runs.importance(np.arange(48) / 48)}, label="finetune-toy/ckpt_init"
    )
    assert " report  finetune-toy  6 x 8 heads" in call(capsys, "report", run, "--out", tmp_path / "report").err
    assert "<h1>finetune-toy" in (tmp_path / "report" / "report.html").read_text()


def test_a_report_of_several_models_says_so(several, tmp_path, capsys):
    """Seeds have checkpoints of their own: the first gives the name, and how many others there are is said."""
    given = [
        runs.make(
            tmp_path / name, {"importance": runs.importance(np.arange(48) / 48)}, label=name, model=name, seed=seed
        )
        for seed, name in enumerate(("one", "two", "three"))
    ]
    said = call(capsys, "report", *given, "--out", tmp_path / "report")
    assert " report  one and 2 more  6 x 8 heads" in said.err
    assert "<h1>one and 2 more</h1>" in (tmp_path / "report" / "report.html").read_text()
    assert "<h1>toy</h1>" in (several / "report.html").read_text()


def test_stdout_is_the_directory_and_done_is_done(pairs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = call(capsys, "report", *pairs[1], *K)
    assert (said.code, said.out.count("\n")) == (0, 1)
    out = tmp_path / said.out.strip()
    assert " page     report.html\n" in said.err
    assert "spearman_rho_Ipre_U" in said.err
    assert "columns of random numbers, too, have rho < 0.5 in " in said.err
    before = (out / "report.html").stat().st_mtime_ns
    again = call(capsys, "report", *pairs[1], *K)
    assert again.out == said.out
    assert "done already" in again.err
    assert again.err.count("spearman_rho_Ipre_U ") == said.err.count("spearman_rho_Ipre_U ") == 1  # the words are kept
    assert (out / "report.html").stat().st_mtime_ns == before
    as_json = call(capsys, "report", *pairs[1], *K, "--json")
    assert json.loads(as_json.out)["status"] == "done"
    assert as_json.err == ""


def test_content_names_the_run_and_not_its_path(pairs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for run in pairs[1]:
        shutil.copytree(run, tmp_path / run.name)
    there = call(capsys, "report", *pairs[1], *K, "--dry-run", "--json")
    here = call(capsys, "report", *[tmp_path / run.name for run in pairs[1]], *K, "--dry-run", "--json")
    assert json.loads(there.out)["run"] == json.loads(here.out)["run"]
    other = call(capsys, "report", *pairs[2], *K, "--dry-run", "--json")
    assert json.loads(other.out)["run"] != json.loads(here.out)["run"]
    assert not (tmp_path / "runs").exists()


def test_the_same_call_makes_the_same_files(one, pairs, tmp_path):
    again = headtool.report(pairs[1], top_k=10, out=tmp_path / "again", quiet=True, jsonl=True, html=False)
    for name in ("heads.csv", "stats.json", "cases.json", "report.md"):
        assert (again / name).read_bytes() == (one / name).read_bytes()
    assert not (again / "report.html").exists()
    assert (again / "tables" / "report.jsonl").is_file()


def test_force_leaves_nothing_of_an_earlier_report(several, pairs, tmp_path, capsys):
    out = tmp_path / "report"
    shutil.copytree(several, out)
    assert call(capsys, "report", pairs[1][0], *K, "--out", out).code == 2
    assert call(capsys, "report", pairs[1][0], *K, "--out", out, "--force").code == 0
    assert not (out / "fig_I_vs_U.png").exists()
    assert not (out / "update.jsonl").exists()


def test_a_config_names_the_runs(pairs, tmp_path, capsys):
    config = tmp_path / "report.yaml"
    config.write_text(json.dumps({"runs": [str(run) for run in pairs[1]], "top-k": 10}))
    said = call(capsys, "report", "--config", config, "--dry-run", "--json")
    assert json.loads(said.out)["runs"] == 3


def test_runs_complete_to_directories(pairs, tmp_path):
    from headtool.completion import complete_causal, complete_runs, complete_scored

    (tmp_path / "other").mkdir()
    (tmp_path / "file").write_text("")
    shutil.copytree(pairs[1][0], tmp_path / "run")
    for name, change in (("injected", {"command": "inject"}), ("begun", {"status": "running"}), ("broken", [])):
        manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text(json.dumps(manifest | change if change else change))
    assert complete_scored(f"{tmp_path}/") == [f"{tmp_path}/other/", f"{tmp_path}/run"]
    assert complete_scored(f"{tmp_path}/r") == [f"{tmp_path}/run"]
    assert complete_causal(f"{tmp_path}/") == [f"{tmp_path}/other/"]
    assert complete_runs(f"{tmp_path}/") == [f"{tmp_path}/injected", f"{tmp_path}/other/", f"{tmp_path}/run"]


def test_constant_columns_and_few_heads_are_null(tmp_path):
    flat = {"importance": runs.importance(np.zeros(48)), "update": runs.update(np.ones(48))}
    few = {"importance": runs.importance(np.arange(2.0)), "update": runs.update(np.arange(2.0) + 1)}
    for name, tables, shape in (("flat", flat, {}), ("few", few, {"layers": 1, "heads": 2})):
        before = {"importance": tables["importance"]}
        pre = runs.make(tmp_path / f"{name}-pre", before, model="a", **shape)
        post = runs.make(tmp_path / f"{name}-post", tables, model="b", init="a", **shape)
        out = headtool.report([pre, post], top_k=1, out=tmp_path / name, quiet=True)
        stats = load(out, "stats.json")
        assert all(stats[key]["value"] is None and stats[key]["note"] for key in NAMES)
        assert load(out, "cases.json")["note"]
        assert not any(isinstance(v, float) and math.isnan(v) for v in stats.values())


# -- bad input ------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(pairs, tmp_path):
    """A copy of a run, to be broken."""
    return shutil.copytree(pairs[1][0], tmp_path / "run")


def test_out_at_one_of_the_runs(capsys, run):
    before = (run / "manifest.json").read_bytes()
    said = call(capsys, "report", run, *K, "--out", run, "--force")
    assert said.code == 2
    assert "one of the runs to report" in said.error
    assert (run / "manifest.json").read_bytes() == before


def test_a_run_given_twice_is_noted(capsys, tmp_path, pairs):
    said = call(capsys, "report", pairs[1][0], pairs[1][0], *K, "--dry-run")
    assert said.code == 0
    assert "runs\t1" in said.out
