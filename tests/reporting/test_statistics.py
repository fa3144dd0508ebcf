"""Statistics, cases and seeds against scipy, plain loops and closed forms."""

from __future__ import annotations

import itertools
import math

import numpy as np
import polars as pl
import pytest
from scipy import stats

from headtool.reporting import cases, seeds
from headtool.reporting import statistics as st


def columns(n: int, seed: int, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=n), rng.normal(size=n)
    y = y + 0.5 * x
    return (np.round(x), np.round(y)) if ties else (x, y)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n", [3, 12, 144])
def test_rho_is_scipys(n, ties):
    x, y = columns(n, seed=n, ties=ties)
    made = st.spearman(x, y, seed=1)
    assert made.value == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    assert made.n == n
    assert made.chance == 0


def test_heads_of_which_one_column_is_unknown_are_dropped():
    x, y = columns(40, seed=3)
    holed = x.copy()
    holed[[1, 7]] = np.nan
    keep = np.isfinite(holed)
    assert st.spearman(holed, y, seed=1).value == st.spearman(x[keep], y[keep], seed=1).value
    assert st.spearman(holed, y, seed=1).n == 38
    assert st.overlap(holed, y, 5, seed=1).chance == 5 / 38


def test_p_of_rho_counts_permutations_as_a_plain_loop_does():
    x, y = columns(11, seed=5, ties=True)
    rho = stats.spearmanr(x, y).statistic
    orders = st.permutations(11, 9)
    count = sum(abs(stats.pearsonr(stats.rankdata(x)[order], stats.rankdata(y)).statistic) >= abs(rho) - 1e-12
                for order in orders[:400])  # fmt: skip
    null = st.spearman(x, y, seed=9).null[:400]
    assert st.tail(np.abs(null), abs(rho)) == (count + 1) / 401
    assert (np.sort(orders, axis=1) == np.arange(11)).all()


def test_p_of_rho_is_near_the_exact_one():
    """All 7! orders: the share with |rho| as large is what the sampled permutations estimate."""
    x, y = columns(7, seed=8)
    a, b = stats.rankdata(x), stats.rankdata(y)
    rho = abs(np.corrcoef(a, b)[0, 1])
    a0, b0 = a - 4, b - 4
    exact = np.mean([abs(a0[list(o)] @ b0) / 28 >= rho - 1e-12 for o in itertools.permutations(range(7))])
    assert st.spearman(x, y, seed=2).p == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 9999))


def test_ranks_of_bootstrap_samples_are_those_of_the_samples_written_out():
    x, y = columns(20, seed=6, ties=True)
    made, counts = st.spearman(x, y, seed=4), st.draws(20, 4).astype(int)
    assert (counts.sum(1) == 20).all()
    for row, found in list(zip(counts, made.boot, strict=True))[:60]:
        drawn = np.repeat(np.arange(20), row)
        assert found == pytest.approx(stats.spearmanr(x[drawn], y[drawn]).statistic, abs=1e-10)
    low, high = np.percentile(made.boot, [2.5, 97.5])
    assert (made.ci_low, made.ci_high) == (low, high)


def top(x, k):
    return {i for _, i in sorted((-v, i) for i, v in enumerate(x))[:k]}


@pytest.mark.parametrize("k", [1, 4, 20])
def test_overlap_is_that_of_sorted_lists(k):
    x, y = columns(20, seed=7, ties=True)
    made = st.overlap(x, y, k, seed=4)
    common = len(top(x, k) & top(y, k))
    assert made.value == pytest.approx(common / k)
    assert made.chance == pytest.approx(k / 20)
    tail = sum(math.comb(k, i) * math.comb(20 - k, k - i) for i in range(common, k + 1) if k - i <= 20 - k)
    assert made.p == pytest.approx(tail / math.comb(20, k))


def test_overlap_of_bootstrap_samples_is_that_of_the_samples_written_out():
    """Copies of a head are heads of their own, in their order: the j-th copy is the same on both sides."""
    x, y = columns(15, seed=2, ties=True)
    made, counts = st.overlap(x, y, 4, seed=3), st.draws(15, 3).astype(int)
    for row, found in list(zip(counts, made.boot, strict=True))[:60]:
        drawn = np.repeat(np.arange(15), row)
        assert found == pytest.approx(len(top(x[drawn], 4) & top(y[drawn], 4)) / 4)


def test_chance_is_the_mean_over_permutations():
    x, y = columns(30, seed=1)
    made = st.overlap(x, y, 6, seed=1)
    assert made.null.mean() == pytest.approx(made.chance, abs=0.01)
    assert st.spearman(x, y, seed=1).null.mean() == pytest.approx(0, abs=0.01)


def test_ties_go_to_the_lower_layer_and_head():
    assert st.overlap(np.zeros(6), np.arange(6.0), 2, seed=0).value is None  # constant: no top
    x = np.array([1.0, 2, 2, 2, 0, 0])
    assert st.overlap(x, np.array([0.0, 9, 8, 1, 0, 0]), 2, seed=0).value == 1


@pytest.mark.parametrize(
    ("x", "y"), [(np.arange(2.0), np.arange(2.0)), (np.ones(9), np.arange(9.0)), (np.full(9, np.nan), np.arange(9.0))]
)
def test_what_is_not_defined_is_none_with_a_reason(x, y):
    for made in (st.spearman(x, y, seed=1), st.overlap(x, y, 1, seed=1)):
        assert (made.value, made.p, made.ci_low, made.ci_high) == (None, None, None, None)
        assert made.as_dict()["note"]
    assert "are known" in st.overlap(np.arange(5.0), np.arange(5.0), 6, seed=1).note


def test_the_mean_over_seeds():
    """Of one seed twice it is that seed; its p comes from the mean of the permuted values."""
    x, y = columns(25, seed=1)
    one, other = st.spearman(x, y, seed=6), st.spearman(x, -y, seed=6)
    twice = st.averaged([one, one], "spearman_rho")
    assert (twice.value, twice.p, twice.ci_low) == (one.value, one.p, one.ci_low)
    assert st.averaged([one, other], "spearman_rho").value == pytest.approx(0)
    null = (one.null + other.null) / 2
    assert st.averaged([one, other], "spearman_rho").p == (np.sum(np.abs(null) >= -1e-12) + 1) / 10000
    spread = seeds.spread({1: dict.fromkeys(st.NAMES, one), 2: dict.fromkeys(st.NAMES, other)})
    assert spread["spearman_rho_Ipre_U"]["sd"] == pytest.approx(np.std([one.value, other.value], ddof=1))


def frame(i_pre, urel) -> pl.DataFrame:
    n = len(i_pre)
    return pl.DataFrame({"layer": np.arange(n) // 4, "head": np.arange(n) % 4, "I_pre": i_pre, "Urel": urel})


def test_cases_are_those_of_a_plain_loop():
    rng = np.random.default_rng(1)
    heads = frame(np.round(rng.normal(size=80), 1), np.round(rng.normal(size=80), 1))

    def percentile(values, p):
        ordered = sorted(values)
        at = (len(ordered) - 1) * p / 100
        low = math.floor(at)
        return ordered[low] + (at - low) * (ordered[min(low + 1, len(ordered) - 1)] - ordered[low])

    found = cases.find(heads, 80, 40)
    i, u = heads["I_pre"].to_list(), heads["Urel"].to_list()
    rows = list(zip(heads["layer"], heads["head"], i, u, strict=True))
    static = [r for r in rows if r[2] >= percentile(i, 80) and r[3] <= percentile(u, 40)]
    expected = [r[:2] for r in sorted(static, key=lambda r: (-r[2], r[0], r[1]))]
    assert [(r["layer"], r["head"]) for r in found.found["important_but_static"]] == expected
    assert expected
    plastic = {r[:2] for r in rows if r[3] >= percentile(u, 80) and r[2] <= percentile(i, 40)}
    assert {(r["layer"], r["head"]) for r in found.found["plastic_but_unimportant"]} == plastic
    assert found.thresholds["I_pre_high"] == pytest.approx(percentile(i, 80))
    a, b = (sum(v >= percentile(i, 80) for v in i), sum(v <= percentile(u, 40) for v in u))
    assert found.expected["important_but_static"] == a * b / 80


def test_cases_without_columns_or_of_constant_ones_are_none():
    assert cases.find(frame(np.ones(8), np.arange(8.0)), 90, 30).count("important_but_static") is None
    assert cases.find(frame(np.ones(8), np.arange(8.0)).drop("Urel"), 90, 30).as_dict()["note"] == "no run gives Urel"


def test_random_columns_meet_the_published_criteria_as_often_as_is_said():
    """Drawn 2,000 times: the shares are the probabilities that the report prints."""
    rng, n, k = np.random.default_rng(0), 48, 10
    said = cases.criteria(n, k, 90, 30)
    x, y = rng.permuted(np.tile(np.arange(n), (2, 2000, 1)), axis=-1)
    rho = 1 - 6 * ((x - y) ** 2).sum(1) / (n * (n * n - 1))
    common = ((x >= n - k) & (y >= n - k)).sum(1)
    high, low = np.percentile(np.arange(n), [90, 30])
    both = ((x >= high) & (y <= low)).sum(1)
    for name, met in zip(said, (rho < 0.5, common / k < 0.3, both >= 3), strict=True):
        assert said[name] == pytest.approx(met.mean(), abs=0.04)


def test_rank_stability():
    x, y = columns(40, seed=1)
    heads = {seed: frame(v, v) for seed, v in ((1, x), (2, y), (3, x))}
    told = seeds.stability(heads, 5, seed=1)["I_pre"]
    assert told["pairs_sharing_a_run"] == 1  # seeds 1 and 3
    assert [pair["seeds"] for pair in told["pairs"]] == [[1, 2], [2, 3]]
    assert told["pairs"][0]["kendall"]["value"] == pytest.approx(stats.kendalltau(x, y).statistic)
    assert told["mean"]["spearman"] == pytest.approx(stats.spearmanr(x, y).statistic)
    assert told["mean"]["overlap_chance"] == pytest.approx(5 / 40)
