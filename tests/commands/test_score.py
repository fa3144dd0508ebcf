"""headtool score from end to end, on the models that ship with it."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import headtool
from shell import call, spawn

QUICK = ("--limit", "24", "--batch-size", "4", "-q")


def table(run, name="heads"):
    return pl.read_parquet(run / "tables" / f"{name}.parquet")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An undisturbed run, to compare others with."""
    out = tmp_path_factory.mktemp("whole") / "run"
    return headtool.score(
        "demo", scores="out,ent,task,combined,induction", limit=24, batch_size="4", out=out, quiet=True
    )


def test_a_run_leaves_what_the_docs_say(whole):
    manifest = json.loads((whole / "manifest.json").read_text())
    assert manifest["status"] == "done"
    assert set(manifest["tables"]) == {"scores_raw", "scores_norm", "scores_combined", "heads"}
    for name in manifest["tables"]:
        parquet, csv = table(whole, name), pl.read_csv(whole / "tables" / f"{name}.csv")
        assert parquet.height == 32
        assert csv.columns == parquet.columns
        assert parquet.select("layer", "head").rows() == [(layer, head) for layer in range(4) for head in range(8)]
    for file in ("figures/heads.png", "figures/heads.svg", "config.yaml", "run.log", "eval_subset.json"):
        assert (whole / file).stat().st_size > 0
    assert not (whole / "parts").exists()
    assert set(manifest["even"]) == {"ent", "task", "induction"}
    assert manifest["even"]["ent"] < table(whole, "scores_raw")["ent_raw"].min()
    metadata = pl.read_parquet_metadata(whole / "tables" / "heads.parquet")
    assert metadata["headtool.identity"] == manifest["identity"]


def test_top_heads_are_those_of_the_table(whole):
    heads = table(whole)
    by = heads.sort("combined", "layer", "head", descending=[True, False, False])
    top = json.loads((whole / "topk_global.json").read_text())
    assert [(t["layer"], t["head"], t["score"]) for t in top] == by.select("layer", "head", "combined").rows()[:8]
    layers = json.loads((whole / "topk_per_layer.json").read_text())
    assert list(layers) == ["0", "1", "2", "3"]
    assert [t["head"] for t in layers["2"]] == by.filter(pl.col("layer") == 2)["head"].to_list()[:5]
    assert ((heads["combined_low"] <= heads["combined_high"]) & heads["top_k_share"].is_between(0, 1)).all()


def test_the_columns_of_heads_are_those_of_the_other_tables(whole):
    heads = table(whole)
    assert heads["kv_head"].to_list() == [h // 2 for h in range(8)] * 4
    for name in ("scores_raw", "scores_norm", "scores_combined"):
        assert_frame_equal(heads.select(table(whole, name).columns), table(whole, name))


@pytest.mark.parametrize("size", ["1", "7", "auto"])
def test_the_batch_size_does_not_matter(whole, tmp_path, size):
    """Averages are over examples, never over batches."""
    run = headtool.score("demo", scores="out,ent,task", limit=24, batch_size=size, out=tmp_path / "run", quiet=True)
    raw = table(run, "scores_raw")
    expected = table(whole, "scores_raw").select(raw.columns)
    for column in raw.columns[2:]:
        np.testing.assert_allclose(raw[column].to_numpy(), expected[column].to_numpy(), rtol=1e-4, atol=1e-6)


def test_shards_are_the_whole_bit_for_bit(whole, tmp_path, capsys):
    scores = "out,ent,task,combined,induction"
    out = tmp_path / "run"
    for i in (2, 1, 3):
        said = call(capsys, "score", "demo", "--scores", scores, *QUICK, "--shard", f"{i}/3", "--out", out)
        assert said.code == 0
        assert said.out == f"{out}\n"
        status = json.loads((out / "manifest.json").read_text())["status"]
        assert status == ("done" if i == 3 else "running")
    for name in ("scores_raw", "scores_combined", "heads"):
        assert_frame_equal(table(out, name), table(whole, name), check_exact=True)


def test_a_damaged_part_is_made_again(whole, tmp_path, capsys, monkeypatch):
    from headtool.scores import measure

    out, work, calls = tmp_path / "run", measure.work, []

    def stop_after_two(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return work(*args)

    monkeypatch.setattr(measure, "work", stop_after_two)
    args = ("score", "demo", "--scores", "out,ent,task,combined,induction", *QUICK[:-1], "--out", out)
    said = call(capsys, *args)
    assert said.code == 130
    assert "goes on from what it has finished" in said.err
    part = sorted(out.glob("parts/*/*.part"))[0]
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    monkeypatch.setattr(measure, "work", work)
    said = call(capsys, *args)
    assert said.code == 0
    assert "1 of 10 parts are there" in said.err
    assert_frame_equal(table(out), table(whole), check_exact=True)


def test_done_is_done(whole, capsys):
    before = (whole / "manifest.json").stat().st_mtime_ns
    args = ("score", "demo", "--scores", "out,ent,task,combined,induction", *QUICK, "--out", whole)
    said = call(capsys, *args)
    assert (said.code, said.out) == (0, f"{whole}\n")
    assert (whole / "manifest.json").stat().st_mtime_ns == before
    said = call(capsys, "score", "demo", "--scores", "out", *QUICK, "--out", whole)
    assert said.code == 2
    assert "holds another run" in said.error


def test_a_changed_table_is_made_again(tmp_path, capsys):
    out = tmp_path / "run"
    args = ("score", "demo", "--scores", "out", *QUICK, "--out", out)
    assert call(capsys, *args).code == 0
    expected = table(out)
    (out / "tables" / "heads.parquet").write_bytes(b"something else")
    said = call(capsys, *args)
    assert said.code == 0
    assert "changed since the run" in said.err
    assert_frame_equal(table(out), expected)


def test_two_processes_on_one_directory(tmp_path, capsys):
    from filelock import FileLock

    out = tmp_path / "run"
    out.mkdir()
    with FileLock(out / ".lock-1-of-1"):
        said = call(capsys, "score", "demo", *QUICK, "--out", out)
    assert said.code == 1
    assert "another process is at work" in said.error


def test_a_share_and_a_whole_run_keep_out_of_each_others_way(tmp_path, capsys):
    from filelock import FileLock

    out = tmp_path / "run"
    out.mkdir()
    with FileLock(out / ".lock-1-of-2"):
        assert call(capsys, "score", "demo", *QUICK, "--out", out).code == 1
        said = call(capsys, "score", "demo", *QUICK, "--out", out, "--shard", "2/2")
        assert said.code == 0  # a neighbour of the same set


@pytest.mark.parametrize(
    "given", [["mine.txt"], ["tables/mine.csv"], ["config.yaml"], ["summary.txt"], ["figures/mine.png", "run"]]
)
@pytest.mark.parametrize("force", [[], ["--force"]])
def test_a_folder_that_is_somebodys_own_is_left_alone(tmp_path, capsys, given, force):
    for name in given:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    said = call(capsys, "score", "demo", *QUICK, "--out", tmp_path, *force)
    assert said.code == 2
    assert "is not empty and holds no run" in said.error
    assert sorted(str(f.relative_to(tmp_path)) for f in tmp_path.rglob("*") if f.is_file()) == sorted(given)


def test_a_run_that_left_nothing_gives_its_place_to_another(tmp_path, capsys):
    """One that was interrupted before its first part, or that failed; with a part it is somebody's work."""
    out = tmp_path / "run"
    failed = call(capsys, "score", "demo", "--scores", "task", "--max-length", 2, *QUICK, "--out", out)
    assert (failed.code, "hint: a larger --max-length" in failed.err) == (1, True)
    mark = json.loads((out / "manifest.json").read_text())
    (out / "parts" / "a-b").mkdir(parents=True)
    (out / "parts" / "a-b" / "data-0000.part").write_bytes(b"half of the work")
    (out / "manifest.json").write_text(json.dumps(mark | {"status": "running"}))
    held = call(capsys, "score", "demo", "--scores", "out", *QUICK, "--out", out)
    assert (held.code, held.error.endswith("holds another run (score, not finished)")) == (2, True)
    (out / "parts" / "a-b" / "data-0000.part").unlink()
    assert call(capsys, "score", "demo", "--scores", "out", *QUICK, "--out", out).code == 0
    other = call(capsys, "score", "demo", "--scores", "ent", *QUICK, "--out", out)
    assert (other.code, other.error.endswith("holds another run (score, done)")) == (2, True)


def test_one_example_is_not_said_to_be_sure(tmp_path, capsys):
    out, scores = tmp_path / "run", "out,ent,task,combined,ablation"
    said = call(capsys, "score", "demo", "--scores", scores, "--limit", 1, "--verify", 0, "--out", out)
    assert said.code == 0
    assert "one example says nothing of how sure a score is" in said.err
    assert "[95%]" not in said.err
    heads = pl.read_parquet(out / "tables" / "heads.parquet")
    for name in ("combined_low", "combined_high", "top_k_share", "I_se", "I_low", "I_high", "rank_low", "rank_high"):
        assert heads[name].null_count() == heads.height
    assert heads["I"].null_count() == heads["combined"].null_count() == 0


def test_one_example_of_a_sampled_sweep(tmp_path, capsys):
    out = tmp_path / "run"
    asked = ("--scores", "ablation", "--ablate-error", 0.01, "--limit", 1, "--verify", 0)
    assert call(capsys, "score", "demo", *asked, "--out", out).code == 0
    importance = pl.read_parquet(out / "tables" / "importance.parquet")
    assert importance["I"].null_count() == 0
    assert importance["I_low"].null_count() == importance["I_se"].null_count() == importance.height


def test_a_run_that_started_over_goes_on_without_force(tmp_path, capsys, monkeypatch):
    from headtool.scores import measure

    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(measure, "work", stop)
    args = ("score", "demo", "--scores", "out", *QUICK[:-1], "--out", tmp_path / "run")
    assert "interrupted; the same command goes on" in call(capsys, *args).err
    assert "interrupted; the same command without --force goes on" in call(capsys, *args, "--force").err


def test_a_folder_of_data_is_said_to_be_looked_through(tmp_path, capsys):
    rows = tmp_path / "rows"
    rows.mkdir()
    (rows / "train.jsonl").write_text(
        "".join(json.dumps({"text": f"the {name} is red"}) + "\n" for name in ("saw", "fig", "cow"))
    )
    said = call(capsys, "score", "demo", "--scores", "out", "--data", rows, "--out", tmp_path / "run")
    assert said.code == 0
    assert f"headtool: {rows}: the datasets library looks through this folder" in said.err


def test_few_examples_are_those_of_the_data(tmp_path, capsys):
    """The pattern scores have 16 sequences of their own, which no interval is of."""
    said = call(capsys, "score", "demo", "--scores", "combined,induction", "--limit", "40", "--out", tmp_path / "run")
    assert "are few" not in said.err
    said = call(capsys, "score", "demo", "--scores", "combined,induction", "--limit", "9", "--out", tmp_path / "few")
    assert "9 examples are few" in said.err


def test_first_without_the_first(tmp_path, capsys):
    said = call(capsys, "score", "demo", "--scores", "first", "--exclude-bos", "--out", tmp_path / "run")
    assert "'first' is 0 for every head" in said.err
    assert table(tmp_path / "run")["first_raw"].max() == 0


def test_less_memory_than_one_variant_takes_is_said(tmp_path, capsys):
    call(capsys, "score", "demo", "--scores", "ablation", "--limit", 2, "--out", tmp_path / "a")
    said = call(
        capsys, "score", "demo", "--scores", "ablation", "--limit", 2, "--memory", "1KB", "--out", tmp_path / "b"
    )
    assert "--memory 1KB is less than a pass over the longest sequence is reckoned to take" in said.err
    a, b = (pl.read_parquet(tmp_path / name / "tables" / "importance.parquet") for name in "ab")
    np.testing.assert_allclose(a["I"], b["I"], atol=1e-5)


def test_a_lost_manifest_is_no_lost_run(tmp_path, capsys):
    out = tmp_path / "run"
    assert call(capsys, "score", "demo", "--scores", "out", *QUICK, "--out", out).code == 0
    (out / "manifest.json").write_text("[1")
    assert call(capsys, "score", "demo", "--scores", "out", *QUICK, "--out", out).code == 0
    assert json.loads((out / "manifest.json").read_text())["status"] == "done"


def test_dry_run_plans_what_the_run_does(tmp_path, capsys):
    args = ("score", "demo", "--out", tmp_path / "run")
    plan = json.loads(call(capsys, *args, "--dry-run", "--json").out)
    assert f"{plan['batches']} batches" in call(capsys, *args, "-v").err


def test_dry_run_leaves_nothing(tmp_path, capsys):
    out = tmp_path / "run"
    said = call(capsys, "score", "demo", *QUICK[:-1], "--dry-run", "--json", "--out", out)
    plan = json.loads(said.out)
    assert plan["run"] == str(out)
    assert plan["parts_left"] == plan["parts"] == 6
    assert plan["examples"] == 24
    assert plan["memory_bytes"] > plan["model_bytes"] > 0
    assert not out.exists()


def test_verbose_says_more(tmp_path, capsys):
    args = ("score", "demo", "--scores", "out", *QUICK[:-1], "--out", tmp_path / "run")
    assert "batches of 4 to 4" not in call(capsys, *args).err
    assert "batches of 4 to 4" in call(capsys, *args, "--force", "-v").err


def test_json_lines_on_request(tmp_path):
    run = headtool.score("demo", scores="out", limit=8, out=tmp_path / "run", quiet=True, jsonl=True)
    assert_frame_equal(pl.read_ndjson(run / "tables" / "heads.jsonl", schema=table(run).schema), table(run))


def test_json_is_one_object(tmp_path, capsys):
    said = call(capsys, "score", "demo", "--scores", "out", *QUICK[:-1], "--json", "--out", tmp_path / "run")
    assert json.loads(said.out)["status"] == "done"
    assert said.out.count("\n") == 1
    assert said.err == ""


def test_order_of_truth(tmp_path, capsys, monkeypatch):
    """flag > variable > file > default."""
    file = tmp_path / "config.yaml"
    file.write_text("scores: [out, ent]\ntop-k: 3\ntop_k_layer: 2\nlimit: 8\n")
    monkeypatch.setenv("HEADTOOL_TOP_K_LAYER", "4")
    out = tmp_path / "run"
    assert call(capsys, "score", "demo", "--config", file, "--limit", "6", "-q", "--out", out).code == 0
    settled = json.loads((out / "manifest.json").read_text())["arguments"]
    assert (settled["scores"], settled["top_k"], settled["top_k_layer"], settled["limit"]) == ("out,ent", 3, 4, 6)
    again = tmp_path / "again"
    assert call(capsys, "score", "demo", "--config", out / "config.yaml", "--force", "--out", again).code == 0
    assert_frame_equal(table(again), table(out))
    toml = tmp_path / "config.toml"
    toml.write_text('scors = "out"\n')
    said = call(capsys, "score", "demo", "--config", toml)
    assert said.code == 2
    assert "'scors'" in said.error
    assert "did you mean 'scores'" in said.err


def test_exclude_bos_norm_and_scope_change_what_they_say(whole, tmp_path):
    plain = table(whole)
    for i, changed in enumerate(
        (
            {"exclude_bos": True},
            {"norm": "percentile"},
            {"rank_scope": "global"},
            {"lambda_task": 5.0},
            {"lambda_ent": -1.0},
            {"query": "all"},
        )
    ):
        run = headtool.score("demo", limit=24, batch_size="4", out=tmp_path / str(i), quiet=True, **changed)
        heads = table(run)
        expected = {"exclude_bos": "ent_raw", "norm": "ent_norm", "query": "out_raw"}.get(
            next(iter(changed)), "combined"
        )
        assert not np.allclose(heads[expected].to_numpy(), plain[expected].to_numpy())
    rows = table(tmp_path / "1")["out_norm"]
    assert rows.is_between(0, 1).all()
    assert rows.max() == 1


def test_text_rows_have_no_span(tmp_path, capsys):
    file = tmp_path / "some.txt"
    file.write_text("the dog is red\n\nthe cat is blue and the box is big\n")
    out = tmp_path / "run"
    said = call(capsys, "score", "demo", "--data", file, "--out", out)
    assert said.code == 0
    assert "'task' is left out" in said.err
    assert "task_raw" not in table(out).columns
    assert table(out)["out_n"].to_list() == [2] * 32
    said = call(capsys, "score", "demo", "--data", file, "--scores", "task", "--out", tmp_path / "other")
    assert said.code == 2
    assert "no score is left" in said.error


def test_an_encoder_reads_pairs(tmp_path):
    run = headtool.score(
        "demo-encoder",
        scores="out,resid,ent,ent_rel,task,combined,previous",
        limit=24,
        out=tmp_path / "run",
        quiet=True,
    )
    heads = table(run)
    assert heads.height == 16
    assert heads["task_n"].to_list() == [24] * 16
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["data"]["query"] == "first"
    assert manifest["model"]["kind"] == "classifier"


@pytest.mark.parametrize(("name", "least"), [("demo", 0.8), ("demo-encoder", 0.9)])
def test_the_demo_models_have_learnt_their_task(name, least):
    """Accuracy on held-out rows; docs/demo.md states it for 2,000 of them."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    from headtool.models.locate import locate
    from headtool.tasks import demo
    from headtool.tasks.multiple_choice import prompt

    folder, encoder = locate(name).folder, name != "demo"
    rows = [row for row, _ in zip(demo.rows(encoder, seed=1), range(200), strict=False)]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = (AutoModelForSequenceClassification if encoder else AutoModelForCausalLM).from_pretrained(folder).eval()
    right = 0
    with torch.inference_mode():
        for row in rows:
            if encoder:
                given = tokenizer(row["premise"], row["hypothesis"], return_tensors="pt", return_token_type_ids=False)
                right += model(**given).logits.argmax().item() == row["label"]
            else:
                ids = tokenizer(prompt(row), return_tensors="pt").input_ids
                right += tokenizer.decode(model(ids).logits[0, -1].argmax()).strip() == row["answerKey"]
    assert right / len(rows) > least


def test_the_top_heads_of_the_demo_matter(tmp_path):
    """Something true: the demo has an induction-like pattern of attention that random weights would not have."""
    run = headtool.score("demo", scores="task,previous,first,duplicate,induction", out=tmp_path / "run", quiet=True)
    heads = table(run)
    assert heads["task_raw"].max() > 3 * heads["task_raw"].median()
    assert heads.select(pl.col("first_raw", "previous_raw").max()).row(0) > (0.2, 0.1)


def test_a_reader_that_goes_away_is_no_traceback(tmp_path):
    run = f'"{sys.executable}" -m headtool score demo --scores out --limit 4 -q --out "{tmp_path}/run"'
    piped = subprocess.run(
        ["bash", "-c", f"{run} | true; echo ${{PIPESTATUS[0]}}"], capture_output=True, text=True, check=True
    )
    assert piped.stdout.strip() in ("0", "1")
    assert piped.stderr == ""
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["status"] == "done"


def test_without_out_the_same_call_finds_the_same_directory(tmp_path):
    first = spawn("score", "demo", "--scores", "out", *QUICK, cwd=tmp_path)
    second = spawn("score", "demo", "--scores", "out", *QUICK, cwd=tmp_path)
    assert first.stdout == second.stdout
    assert first.stdout.startswith("runs/score-demo-")
    third = spawn("score", "demo", "--scores", "out", *QUICK, cwd=tmp_path, HEADTOOL_SEED="7")
    assert third.stdout != first.stdout
