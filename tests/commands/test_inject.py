"""headtool inject from end to end on the models that ship with it: tables, resume, shards, samples, wrong input."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal

import headtool
from headtool.faults.fault import Fault, editing
from headtool.models import sites
from headtool.models.locate import locate
from headtool.models.open import open_model
from shell import call

# Of the encoder, whose rows are the shortest; a whole run of it takes a second.
SMALL = {
    "sites": "q,scores,out",
    "bits": "28-31",
    "layers": "0-1",
    "sequences": 6,
    "calibrate": 6,
    "runs": 1,
    "quiet": True,
}
OTHERS = {name: value for name, value in SMALL.items() if name != "calibrate"}
FLAGS = [
    "--sites", "q,scores,out", "--bits", "28-31", "--layers", "0-1", "--sequences", 6, "--calibrate", 6, "--runs", 1, "-q",
]  # fmt: skip


def table(run, name="trials"):
    return pl.read_parquet(run / "tables" / f"{name}.parquet")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return headtool.inject("demo", out=tmp_path_factory.mktemp("whole") / "run", **SMALL)


def test_every_table_and_figure_is_there(whole):
    manifest = json.loads((whole / "manifest.json").read_text())
    assert set(manifest["tables"]) == {
        "trials", "sequences", "summary", "detectors", "bounds", "kv_check", "performance",
    }  # fmt: skip
    assert {file.name for file in (whole / "figures").iterdir()} == {
        f"{name}.{suffix}" for name in ("fault_rates", "bounds", "overheads") for suffix in ("png", "svg")
    }
    assert manifest["verified"]["largest_difference"] < 1e-5
    assert manifest["trials"] == 3 * 4 * 2 * 2
    assert not (whole / "parts").exists()


def test_the_tables_agree_with_each_other(whole):
    trials, summary, detectors = table(whole), table(whole, "summary"), table(whole, "detectors")
    bad = pl.col("outcome").is_in(["harmful", "nonfinite"])
    assert trials["fault_id"].n_unique() == trials.height
    for row in summary.iter_rows(named=True):
        site, _, which = row["site"].partition(":")
        some = trials.filter(
            (pl.lit(row["site"]) == "all") | (pl.col("site") == site),
            (pl.col("masked") == (which == "hidden")) if which else True,
            (pl.lit(row["layer"]) == -1) | (pl.col("layer") == row["layer"]),
            (pl.lit(row["bit"]) == -1) | (pl.col("bit") == row["bit"]),
        )
        assert row["n"] == some.height
        assert row["harmful"] == some.filter(bad).height
        assert row["caught"] == some.filter(bad, pl.col("detected")).height
        assert row["needless"] == some.filter(~bad, pl.col("detected")).height
        assert row["harmful_low"] <= row["harmful_rate"] <= row["harmful_high"]
    for row in detectors.iter_rows(named=True):
        name = row["detector"]
        alarm = {"all": "detected", "bounds:self": "bounds_violated"}.get(name)
        raised = pl.col(alarm) if alarm else pl.col(f"{name}_ratio") > 1
        assert row["caught"] == trials.filter(bad, raised).height
        assert row["clean"] == 6 * 4
        assert row["false_positives"] == 0
        assert row["false_positive_high"] == pytest.approx(1 - 0.05 ** (1 / 24))
        assert (row["clean_sequences"], row["flagged_sequences"]) == (6, 0)
        assert row["flagged_high"] == pytest.approx(1 - 0.05 ** (1 / 6))
    finite = trials.filter(~pl.col("nonfinite"))
    np.testing.assert_allclose(finite["loss_injected"] - finite["loss_base"], finite["loss_diff"], atol=1e-9)
    for row in finite.iter_rows(named=True):
        change = abs(row["loss_diff"])
        assert (row["outcome"] == "harmful") == (change > 0.01 * abs(row["loss_base"]) and change > 1e-4)
    for row in trials.iter_rows(named=True):
        assert int(row["before_bits"], 16) ^ int(row["after_bits"], 16) == 1 << row["bit"]
        if row["before"] is not None:
            assert np.array([row["before"]], np.float32).view(np.uint32)[0] == int(row["before_bits"], 16)
        assert row["field"] == ("sign" if row["bit"] == 31 else "exponent")
    bounds = table(whole, "bounds")
    assert bounds.filter(kind="clean", violated=True).is_empty()
    assert set(bounds.filter(kind="injected")["fault_id"]) <= set(trials["fault_id"])
    assert not table(whole, "kv_check")["kv_equal"].any()
    performance = {row["metric"]: row for row in table(whole, "performance").iter_rows(named=True)}
    size, length = performance["batch"]["mean"], performance["tokens_a_sequence"]["mean"]
    assert performance["attention_gflop"]["mean"] == pytest.approx(
        4 * size * 8 * length**2 * 16 * 4 / 1e9
    )  # 8 heads of 16
    assert table(whole, "sequences")["loss"].null_count() == 0


@torch.inference_mode()
def test_whoever_has_the_tables_can_repeat_any_trial(whole):
    """From tokens, place and bits alone, with the whole model run twice: the losses that the table holds."""
    adapter = open_model(locate("demo"))
    trials, sequences = table(whole), table(whole, "sequences")
    tokens = dict(zip(sequences["sequence"], sequences["tokens"], strict=True))
    g = adapter.geometry
    repeated = 0
    for row in trials.sample(8, seed=1).iter_rows(named=True):
        ids = torch.tensor([json.loads(tokens[row["sequence"]])])
        told = []
        for keep in (True, False):
            place = (
                row["phase"], row["site"], row["layer"], 0, row["head"], row["row"], row["column"], "flip", row["bit"],
                (1 << 32) - 1, 0 if keep else 1 << row["bit"], row["seed"],
            )  # fmt: skip
            edit = editing([Fault(*place)], range(g.heads), range(g.kv_heads), range(ids.shape[1]))
            with sites.opened(adapter, row["layer"], edit):
                told.append(adapter.model(input_ids=ids).logits[0, -1].double())
        if row["nonfinite"]:
            assert not torch.isfinite(told[1]).all()
            continue
        a, b = (x.log_softmax(-1) for x in told)
        assert row["logit_kl"] == pytest.approx(float((a.exp() * (a - b)).sum()), rel=1e-2, abs=1e-6)
        assert row["logit_max_abs"] == pytest.approx(float((told[0] - told[1]).abs().max()), rel=1e-3, abs=1e-4)
        repeated += 1
    assert repeated


def test_shards_are_the_whole(whole, tmp_path, capsys):
    out = tmp_path / "run"
    for shard in ("2/3", "1/3", "3/3"):
        said = call(capsys, "inject", "demo", *FLAGS, "--out", out, "--shard", shard)
        assert said.code == 0
        assert said.out.strip() == str(out)
    for name in ("trials", "sequences", "summary", "detectors", "bounds", "kv_check"):
        assert_frame_equal(table(out, name), table(whole, name))


def test_done_is_done(whole, capsys):
    said = call(capsys, "inject", "demo", *FLAGS[:-1], "--out", whole)
    assert said.code == 0
    assert "done already" in said.err


def test_lists_and_numbers_from_python_are_those_of_the_command_line(tmp_path, capsys, monkeypatch):
    few = {"layers": "first", "sequences": 2, "calibrate": 2, "runs": 1, "verify": 0, "out": tmp_path / "run"}
    headtool.inject("demo", sites=["v", "q"], bits=[30, 31], seeds=7, **few)
    capsys.readouterr()
    headtool.inject("demo", sites="v,q", bits="30,31", seeds="7", **few)
    assert "done already; --force does it again" in capsys.readouterr().err
    monkeypatch.setattr("headtool.record.manifest.versions", lambda: {"torch": "0.1"})
    headtool.inject("demo", sites="v,q", bits="30,31", seeds="7", **few)
    assert f"done already, by torch {torch.__version__}" in capsys.readouterr().err


def test_a_sample_prints_its_size_first_and_stops_when_it_is_sure(tmp_path, capsys):
    args = [
        "demo-encoder",
        "--sample",
        "--bits",
        "20-31",
        "--layers",
        "first",
        "--sequences",
        6,
        "--calibrate",
        6,
        "--runs",
        1,
    ]
    said = call(capsys, "inject", *args, "--margin", 0.1, "--out", tmp_path / "run")
    assert said.code == 0, said.err
    trials = table(tmp_path / "run")
    strata = trials.group_by("site", "layer", "bit").len()
    assert strata.height == 6 * 12
    assert strata["len"].n_unique() == 1
    from headtool.faults.intervals import leveugle

    first = next(line for line in said.err.splitlines() if "faults are possible" in line)
    population = int(first.split()[1].replace(",", ""))
    most = -(-leveugle(population, 0.1, 0.95) // 72) * 72
    assert f"asks for {most:,} of them at most" in first
    assert trials.height <= most
    row = table(tmp_path / "run", "summary").filter(site="all", layer=-1, bit=-1).row(0, named=True)
    assert (row["harmful_high"] - row["harmful_low"]) / 2 <= 0.1 or trials.height == most


def test_patterns_and_dtypes(tmp_path):
    for i, (pattern, dtype, bits) in enumerate(
        [
            ("burst:4", "bf16", "14"),
            ("stuck1", "fp16", "13"),
            ("value:0.5", "fp32", "all"),
        ]
    ):
        run = headtool.inject(
            "demo",
            out=tmp_path / f"{i}",
            **SMALL | {"pattern": pattern, "dtype": dtype, "bits": bits, "layers": "first"},
        )
        trials = table(run)
        assert trials.height == 6
        assert set(trials["pattern"]) == {pattern}
        assert trials["bit"].to_list() == ([-1] * 6 if bits == "all" else [int(bits)] * 6)
        if pattern.startswith("value"):
            assert set(trials["after"]) == {0.5}
        digits = {"fp32": 8}.get(dtype, 4)
        assert {len(each) for each in trials["after_bits"]} == {digits}


def test_limits_are_saved_and_read_again(whole, tmp_path, capsys):
    file = whole / "calibration.json"
    run = headtool.inject("demo", out=tmp_path / "again", **OTHERS, calibration=file)
    by = ["site", "layer", "bit", "seed"]
    again, first = (table(each).drop("fault_id", "sequence").sort(by) for each in (run, whole))
    assert_frame_equal(again, first)
    assert set(table(run, "sequences")["part"]) == {"trial"}
    mine, theirs = table(run, "sequences"), table(whole, "sequences").filter(part="trial")
    assert mine["tokens"].to_list() == theirs["tokens"].to_list(), "the sequences that calibrated are passed over"
    held = json.loads(file.read_text())
    for name, value, says in (
        ("model", "other", "it is for model other"),
        ("dtype", "bfloat16", "it is for dtype bfloat16"),
        ("length", 7, "it is for length 7"),
        ("detectors", {}, "knows nothing of the detector range"),
        ("detectors", held["detectors"] | {"range": [[1.0]]}, "limits of range are damaged"),
    ):
        broken = tmp_path / "broken.json"
        broken.write_text(json.dumps(held | {name: value}))
        said = call(capsys, "inject", "demo", "-q", "--calibration", broken, "--out", tmp_path / "no")
        assert said.code == 2
        assert says in said.error
    broken.write_text("[]")
    said = call(capsys, "inject", "demo", "-q", "--calibration", broken, "--out", tmp_path / "no")
    assert "it holds no calibration" in said.error
    assert not (tmp_path / "no").exists()


def test_a_permanent_fault_is_not_corrected_by_doing_it_again(whole, tmp_path):
    run = headtool.inject("demo", out=tmp_path / "run", **SMALL | {"duration": "permanent"})
    for made, corrected in ((table(run), False), (table(whole), True)):
        assert set(made.filter(pl.col("detected"))["corrected"]) == {corrected}
        assert made.filter(~pl.col("detected"))["corrected"].null_count() == made.filter(~pl.col("detected")).height


def test_gradients(tmp_path):
    settings = {"phase": "backward", "sites": "v,out", "bits": "30", "layers": "first", "seeds": "1", "steps": "1,3"}
    run = headtool.inject(
        "demo", out=tmp_path / "run", batch_size=3, **{k: v for k, v in SMALL.items() if k not in settings} | settings
    )
    trials = table(run)
    assert trials.height == 2
    assert {"loss_after_1", "loss_after_3", "clean_after_1", "clean_after_3", "grad_norm_ratio"} <= set(trials.columns)
    assert not {"detected", "bounds_violated", "logit_kl"} & set(trials.columns)
    assert trials["clean_after_3"].n_unique() == 1
    diff = trials["loss_after_3"] - trials["clean_after_3"]
    np.testing.assert_allclose(trials["loss_diff"], diff, atol=1e-12)
    np.testing.assert_allclose(trials["loss_rel"], diff / trials["clean_after_3"].abs(), atol=1e-12)
    assert (trials["clean_after_3"] < trials["loss_base"]).all(), "three steps learn something"
    assert (trials["grad_rel_error"] > 0).all()


def test_text_is_joined_and_cut(tmp_path, capsys):
    rows = tmp_path / "rows.txt"
    rows.write_text("\n".join(["the red cup is on the table", "", "a dog ran over the hill"] * 60))
    said = call(capsys, "inject", "demo", *FLAGS, "--data", rows, "--max-length", 24, "--out", tmp_path / "run")
    assert said.code == 0, said.err
    sequences = table(tmp_path / "run", "sequences")
    assert set(sequences["length"]) == {24}
    ids = [json.loads(each) for each in sequences["tokens"]]
    adapter = open_model(locate("demo"))
    text = " ".join(adapter.tokenizer.decode(each, skip_special_tokens=True) for each in ids)
    assert text.count("table") > 5
    assert sequences["source_row"].is_sorted()
    assert sequences["part"].to_list() == ["calibration"] * 6 + ["trial"] * 6


def test_bounds_golden_and_none(whole, tmp_path):
    golden = headtool.inject("demo", out=tmp_path / "golden", **SMALL | {"bounds": "golden"})
    assert "bounds:golden" in table(golden, "detectors")["detector"].to_list()
    ours, theirs = table(golden), table(whole)
    both = ours.join(theirs, on="fault_id", suffix="_self")
    assert both.height == ours.height
    violated = table(whole, "bounds").filter(kind="injected", violated=True).join(theirs, on="fault_id")
    of_scores = violated.filter(pl.col("site").is_in(["q", "scores"]), ~pl.col("masked"))
    assert of_scores["margin"].null_count() == of_scores.height, (
        "visible scores give their own bounds, if they are finite"
    )
    none = headtool.inject("demo", out=tmp_path / "none", **SMALL | {"bounds": "none", "detect": "none"})
    assert not (none / "tables" / "bounds.parquet").exists()
    assert not (none / "tables" / "detectors.parquet").exists()
    assert not {"bounds_violated", "detected"} & set(table(none).columns)


def test_rows_of_unequal_length_and_a_small_batch(tmp_path):
    rows = tmp_path / "rows.jsonl"
    pairs = [{"premise": "red " * n, "hypothesis": "red", "label": n % 3} for n in (1, 2, 1, 2, 1, 60, 70, 80)]
    rows.write_text("\n".join(json.dumps(row) for row in pairs))
    for seed in range(3):
        run = headtool.inject(
            "demo-encoder", data=str(rows), out=tmp_path / str(seed), seed=seed, batch_size=2, bits="30", layers="first",
            sequences=4, calibrate=4, runs=1, quiet=True,
        )  # fmt: skip
        assert table(run).height == 12


def test_a_population_that_is_smaller_than_its_sample(tmp_path, capsys):
    said = call(
        capsys, "inject", "demo", "--sample", "--margin", 0.001, "--sites", "out", "--heads", 0, "--bits", "29,30", "--layers",
        "first", "--sequences", 1, "--calibrate", 2, "--runs", 1, "--out", tmp_path / "run",
    )  # fmt: skip
    assert said.code == 0, said.err
    assert "that is every one of the" in said.err
    trials = table(tmp_path / "run")
    assert trials["fault_id"].n_unique() == trials.height
    assert trials.height == 2 * 16 * table(tmp_path / "run", "sequences").filter(part="trial")["length"].sum()


def test_a_small_text_leaves_few_to_test(tmp_path, capsys):
    said = call(
        capsys, "inject", "demo", *FLAGS[:-1], "--limit", 8, "--bits", 30, "--sites", "out", "--out", tmp_path / "run"
    )
    assert (
        "warning: the rows make 8 sequences, 12 were asked for: 6 calibrate, 2 are tested; more rows, or a smaller --calibrate"
        in said.err
    )
    performance = table(tmp_path / "run", "performance")
    assert performance.filter(runs=1)["std"].null_count() == performance.height
    assert "% of the plain pass (one run; less in a larger model)" in " ".join(said.err.split())


def test_harm_has_a_floor_in_nats(whole, tmp_path):
    """The demo model knows its rows: of a loss of 0.0004 nats a hundredth is nothing."""
    without = headtool.inject("demo", out=tmp_path / "run", harm_floor=0, **SMALL)
    drop = pl.exclude("ms")
    assert_frame_equal(table(without).select(drop).drop("outcome"), table(whole).select(drop).drop("outcome"))
    was, now = table(without)["outcome"], table(whole)["outcome"]
    changed = table(whole).filter(was != now)
    assert changed.height > 0
    assert (changed["loss_diff"].abs() <= 1e-4).all()
    assert set(was.filter(was != now)) == {"harmful"}
    assert set(changed["outcome"]) == {"benign"}


WRONG = [
    (["--sites", "q,z"], "there is no site named 'z'"),
    (["--bits", "32"], "a float32 has bits 0 to 31"),
    (["--bits", "16", "--dtype", "bf16"], "a bfloat16 has bits 0 to 15"),
    (["--bits", "x"], "'x' is neither a number nor a range"),
    (["--layers", "9"], "--layers 9: the model has 4"),
    (["--heads", "8"], "--heads 8: the model has 8"),
    (["--pattern", "flap"], "there is no such pattern"),
    (["--detect", "rang"], "there is no detector named 'rang'"),
    (["--epsilon", "q@o"], "needs K = V, and they differ"),
    (["--harm", "0"], "--harm 0.0: not above 0"),
    (["--harm-floor", "-1"], "--harm-floor -1.0: not a number from 0"),
    (["--sample", "--margin", "0.7"], "--margin 0.7: not above 0 and below 0.5"),
    (["--phase", "backward", "--lr", "-1"], "--lr -1.0: not a number above 0"),
    (["--phase", "backward", "--steps", "0"], "the loss before the first step is there anyway"),
    (["--tolerance", "-1"], "--tolerance -1.0: not a number from 0"),
    (["--calibration", "nowhere.json"], "there is no such file"),
    (["--phase", "backward", "--detect", "strict"], "detectors watch the forward phase"),
    (["--phase", "backward", "--epsilon", "q@o"], "bounds are of the forward phase"),
    (["--steps", "1"], "--steps and --lr are of a training"),
    (["--margin", "0.1"], "--margin and --confidence are of a sample"),
    (["--bounds", "none", "--tolerance", "0.1"], "--epsilon and --tolerance without bounds"),
    (["--pattern", "value:3", "--bits", "2"], "the pattern value:3.0 has no bit"),
    (["--pattern", "burst:900"], "burst:900: a row has"),
    (["--sample", "--shard", "1/2"], "--sample decides after each round"),
    (["--sequences", "300"], None),
    (["--calibrate", "400"], "400 are to calibrate"),
    (["--data", "nowhere.txt"], "nowhere.txt"),
]


@pytest.mark.parametrize(("flags", "says"), WRONG, ids=lambda x: " ".join(x) if isinstance(x, list) else "")
def test_wrong_input_is_one_line(flags, says, tmp_path, capsys):
    said = call(capsys, "inject", "demo", "-q", "--dry-run", *flags, "--out", tmp_path / "run")
    if says is None:
        assert said.code == 0
    else:
        assert said.code == 2
        assert says in said.error
        assert said.out == ""
    assert not (tmp_path / "run").exists()


def test_a_plan_says_what_the_run_does(whole, tmp_path, capsys):
    said = call(capsys, "inject", "demo", *FLAGS, "--dry-run", "--json", "--out", tmp_path / "run")
    plan = json.loads(said.out)
    assert plan["faults"] == table(whole).height
    assert plan["sequences"] == 6
