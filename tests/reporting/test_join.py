"""Which run is what."""

from __future__ import annotations

import numpy as np
import pytest

import runs
from headtool.console import Console
from headtool.errors import HeadtoolError
from headtool.reporting import join
from headtool.reporting.source import read


def grouped(*paths, offered=()):
    return join.group("all", [read(p) for p in paths], Console(quiet=True), [read(p) for p in offered])


def parts(group):
    return {p.seed: (sorted(s.path.name for s in p.pre), sorted(s.path.name for s in p.post)) for p in group.pairs}


def test_pairs_are_found_by_hash_and_seed_in_any_order(tmp_path):
    given = [path for seed in (1, 2) for path in runs.pair(tmp_path, seed)]
    expected = {seed: ([f"grad-{seed}", f"pre-{seed}"], [f"post-{seed}"]) for seed in (1, 2)}
    assert parts(grouped(*given)) == expected
    assert parts(grouped(*reversed(given))) == expected


def test_the_columns_are_those_of_the_tables(tmp_path):
    given = runs.pair(tmp_path, 3)
    pair = grouped(*given).pairs[0]
    pre, grad, post = (read(path).tables for path in given)
    for column, frame, name in (
        ("I_pre", pre["importance"], "I"), ("I_post", post["importance"], "I"), ("G", grad["gradfisher"], "G"),
        ("Urel", post["update"], "Urel"), ("out", grad["scores_raw"], "out_raw"),
        ("I_pre_low", pre["importance"], "I_low"), ("I_post_rank_high", post["importance"], "rank_high"),
    ):  # fmt: skip
        assert pair.heads[column].to_list() == frame[name].to_list()
    assert pair.heads.columns[:13] == "layer head I_pre I_post U Urel G F Ppred Uq Uk Uv Uo".split()  # noqa: SIM905
    assert pair.heads.columns[-1] == "out"


def test_means_over_seeds(tmp_path):
    group = grouped(*[path for seed in (1, 2, 3) for path in runs.pair(tmp_path, seed)])
    each = np.array([pair.heads["Urel"].to_numpy() for pair in group.pairs])
    np.testing.assert_allclose(group.heads["Urel"].to_numpy(), each.mean(0))
    np.testing.assert_allclose(group.heads["Urel_sd"].to_numpy(), each.std(0, ddof=1))
    assert "I_pre_low" not in group.heads.columns  # the interval over examples of one seed


def test_one_run_before_serves_the_seeds_after(tmp_path):
    """Of the model before there is one run, of another seed: every post run takes it."""
    n = runs.LAYERS * runs.HEADS
    pre = runs.make(tmp_path / "pre", {"importance": runs.importance(np.arange(n) / n)}, model="base", seed=42)
    posts = [
        runs.make(
            tmp_path / f"post-{seed}",
            {"update": runs.update(np.arange(n) + seed)},
            model=f"m{seed}",
            init="base",
            seed=seed,
        )
        for seed in (1, 2)
    ]
    assert parts(grouped(pre, *posts)) == {1: (["pre"], ["post-1"]), 2: (["pre"], ["post-2"])}


def test_a_plain_run_of_the_model_after_joins_it(tmp_path):
    n = runs.LAYERS * runs.HEADS
    given = runs.pair(tmp_path, 1)
    forward = {"out_raw": [1.0 * i for i in range(n)], "out_se": [0.1] * n, "out_n": [9] * n}
    plain = runs.make(tmp_path / "plain", {"scores_raw": forward}, model="final-1", seed=1, scores=("out",))
    pair = grouped(*given, plain).pairs[0]
    assert pair.heads["out_post"].to_list() == forward["out_raw"]
    assert pair.heads["out"].to_list() != forward["out_raw"]


def test_runs_without_a_pair_are_reported(tmp_path):
    pre, grad, post = runs.pair(tmp_path, 1)
    assert parts(grouped(pre, grad)) == {1: (["grad-1", "pre-1"], [])}
    assert "U" not in grouped(pre, grad).heads.columns
    alone = grouped(post)
    assert parts(alone) == {1: ([], ["post-1"])}
    assert {"I_post", "U"} <= set(alone.heads.columns)


def test_of_two_runs_that_know_the_same_the_first_is_taken(tmp_path, capsys):
    n = runs.LAYERS * runs.HEADS
    one, other = (
        runs.make(tmp_path / name, {"importance": runs.importance(np.arange(n) * sign)}, model="m")
        for name, sign in (("a", 1.0), ("b", -1.0))
    )
    assert grouped(other, one).heads["I_pre"][1] == -1
    assert "the first is taken" in capsys.readouterr().err


def test_what_is_offered_joins_only_where_it_fits(tmp_path):
    pre, grad, post = runs.pair(tmp_path, 1)
    stranger = runs.pair(tmp_path, 2)[0]
    assert parts(grouped(post, offered=[pre, grad, stranger])) == {1: (["grad-1", "pre-1"], ["post-1"])}


def test_two_models_of_one_seed_are_refused(tmp_path):
    first, second = runs.pair(tmp_path, 1), runs.pair(tmp_path, 1, name="lora")
    with pytest.raises(HeadtoolError, match="both of seed 1"):
        grouped(*first, second[2])


def test_a_run_given_twice_counts_once(tmp_path, capsys):
    pre = runs.pair(tmp_path, 1)[0]
    kept = join.distinct([read(pre), read(tmp_path / "." / pre.name)], Console())
    assert len(kept) == 1
    assert "counts once" in capsys.readouterr().err
