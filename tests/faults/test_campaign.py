"""Which trials: every cell once, strata evenly, the same for the same seed; and how sure a rate is."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from scipy import stats

from headtool.errors import HeadtoolError
from headtool.faults import bits, campaign
from headtool.faults.fault import Fault, check_index, shape_of
from headtool.faults.intervals import clustered, leveugle, upper, wilson
from headtool.models.heads import Geometry

GEOMETRY = Geometry(layers=4, heads=6, kv_heads=2, head_dim=8, width=48)
LENGTHS = {2: 20, 3: 25, 5: 7}


def settle(**changed):
    asked = {
        "phase": "forward", "sites": "q,k,scores,out", "layers": "all", "heads": "all", "bits_asked": "all", "seeds": "1,2",
        "pattern": bits.parse("flip"),
    } | changed  # fmt: skip
    return campaign.settle(GEOMETRY, torch.float32, LENGTHS, **asked)


def test_a_sweep_has_every_cell_once():
    found = settle()
    faults = found.sweep()
    cells = Counter((f.site, f.layer, f.bit, f.seed) for f in faults)
    assert set(cells.values()) == {1}
    assert len(cells) == 4 * 4 * 32 * 2
    assert faults == settle().sweep()
    assert len({f.id for f in faults}) == len(faults)
    for f in faults:
        check_index(f, GEOMETRY, LENGTHS[f.sequence])
    per_element = Counter(f.element for f in faults)
    assert set(per_element.values()) == {32}, "the bits of a cell share its element"


def test_a_sample_covers_the_strata_evenly_and_draws_elements_evenly():
    found = settle(sites="k,scores", seeds="7")
    taken = set()
    faults = [f for number in range(60) for f in found.round(number, taken)]
    strata = Counter((f.site, f.layer, f.bit) for f in faults)
    assert set(strata.values()) == {60}
    assert len(strata) == found.strata
    one = [f for f in faults if f.bit == 0]
    assert len({f.element for f in one}) == len(one), "without replacement"
    share = Counter(f.sequence for f in one)
    assert stats.chisquare(list(share.values())).pvalue > 1e-3
    heads = Counter(f.head for f in one if f.site == "scores")
    assert len(heads) == GEOMETRY.heads
    assert stats.chisquare(list(heads.values())).pvalue > 1e-3
    assert {f.head for f in one if f.site == "k"} == {0, 1}


def test_the_population_is_counted():
    found = settle(heads="0,5", bits_asked="3,4", layers="1-2")
    total = 0
    for site in ("q", "k", "scores", "out"):
        for length in LENGTHS.values():
            _, rows, columns = shape_of(site, GEOMETRY, length)
            total += 2 * rows * columns  # query heads 0 and 5 read both key/value heads
    assert found.population == total * 2 * 2
    assert {f.head for f in found.sweep() if f.site == "q"} <= {0, 5}


def test_a_small_population_is_drawn_to_its_end():
    found = settle(sites="out", layers="0", heads="1", bits_asked="3,30")
    every = found.every()
    assert len(every) == found.population == (20 + 25 + 7) * 8 * 2
    assert len({f.id for f in every}) == len(every)
    taken, drawn, number = set(), [], 0
    while new := found.round(number, taken):
        drawn, number = drawn + new, number + 1
    assert len({f.element for f in drawn}) == len(drawn) / 2
    assert len(drawn) > 0.9 * len(every), "the last few may not be found by chance"


def test_what_is_drawn_does_not_depend_on_what_else_is_asked_for():
    multi = bits.parse("multi:3")
    alone = {f.id for f in settle(pattern=multi, bits_asked="30", sites="k").sweep()}
    assert alone <= {f.id for f in settle(pattern=multi, sites="q,k,out").sweep()}
    few = {f.id for f in settle(layers="random", sites="out", seeds="5").sweep()}
    assert few <= {f.id for f in settle(layers="random", seeds="5").sweep()}


def test_a_burst_fits_its_row():
    faults = settle(pattern=bits.parse("burst:5"), sites="v,weights", bits_asked="3", seeds="1-9").sweep()
    for f in faults:
        assert f.width == 5
        assert f.column + f.width <= shape_of(f.site, GEOMETRY, LENGTHS[f.sequence])[2]
    assert {f.width for f in settle(pattern=bits.parse("burst"), sites="v", bits_asked="3").sweep()} == {8}, (
        "a row has 8"
    )


def test_layers_drawn_at_random_differ_by_seed_and_site():
    faults = settle(layers="random", seeds="1-12").sweep()
    assert len({(f.site, f.layer) for f in faults}) > 8
    assert len(faults) == 12 * 4 * 32


def test_parts_are_of_one_sequence_and_lose_nothing():
    faults = settle().sweep()
    parts = campaign.deal(faults)
    assert sorted(i for part in parts for i in part) == list(range(len(faults)))
    for part in parts:
        assert len({faults[i].sequence for i in part}) == 1
        assert len(part) <= campaign.CHUNK["forward"]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"sites": "q,z"}, "no site named 'z'"),
        ({"sites": ""}, "--sites is empty"),
        ({"layers": "4"}, "--layers 4: the model has 4"),
        ({"layers": "one"}, "'one' is neither a number nor a range"),
        ({"heads": "0,6"}, "--heads 6: the model has 6"),
        ({"bits_asked": "30-32"}, "bits 0 to 31"),
        ({"bits_asked": "5-2"}, "neither a number nor a range"),
        ({"pattern": bits.parse("multi:33")}, "there are 32"),
        ({"pattern": bits.parse("burst:33")}, "burst:33: a row has"),
        ({"pattern": bits.parse("random"), "bits_asked": "3"}, "the pattern random has no bit"),
    ],
)
def test_what_there_is_not_is_refused(changed, words):
    with pytest.raises(HeadtoolError, match=words):
        settle(**changed)


def test_an_index_beyond_its_site_is_refused():
    place = {"phase": "forward", "site": "v", "layer": 0, "sequence": 2, "head": 0, "row": 0, "column": 0}
    more = {"pattern": "flip", "bit": 0, "keep": 0, "flip": 1, "seed": 0}
    check_index(Fault(**place, **more), GEOMETRY, 20)
    for name, index in (("layer", 4), ("head", 2), ("row", 20), ("column", 8)):
        with pytest.raises(HeadtoolError, match=f"{name} {index} at site v"):
            check_index(Fault(**(place | {name: index}), **more), GEOMETRY, 20)


def test_wilson_is_scipys():
    for hits, n in ((0, 7), (3, 10), (50, 50), (123, 1000)):
        theirs = stats.binomtest(hits, n).proportion_ci(method="wilson")
        assert wilson(hits, n) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert wilson(0, 0) == (0.0, 1.0)


def test_leveugle_and_the_rule_of_three():
    assert leveugle(10**12, 0.01, 0.95) == 9604
    assert leveugle(100, 0.01, 0.95) == 99
    assert leveugle(10**12, 0.05, 0.99) == 664
    assert upper(0, 960) == pytest.approx(3 / 960, rel=5e-3)
    assert upper(5, 5) == 1.0
    assert stats.binom.cdf(4, 50, upper(4, 50)) == pytest.approx(0.05)


def test_clustered_intervals_hold_the_truth_and_plain_ones_do_not():
    """Elements whose bits are alike: 95% intervals hold the rate in 92 to 98% of 600 draws, Wilson's without clusters in fewer."""
    rng = np.random.default_rng(0)
    cluster, truth = np.repeat(np.arange(60), 16), 0.2
    held = plain = 0
    for _ in range(600):
        rate = rng.beta(0.5, 2, 60)  # mean 0.2, as different as they come
        hits = rng.random(960) < rate[cluster]
        low, high = clustered(hits, cluster)
        held += low <= truth <= high
        low, high = wilson(hits.sum(), 960)
        plain += low <= truth <= high
    assert 0.92 <= held / 600 <= 0.98
    assert plain / 600 < 0.8


def test_rates_of_nothing_and_of_everything():
    cluster = np.repeat(np.arange(8), 32)
    assert clustered(np.zeros(256, bool), cluster) == wilson(0, 8), "256 bits of 8 elements are not 256 trials"
    one_each = np.arange(256) % 32 == 0
    assert clustered(one_each, cluster) == wilson(8, 256)
    assert clustered(one_each, np.arange(256)) == pytest.approx(wilson(8, 256), rel=5e-3)
    assert clustered(one_each, cluster, of=np.zeros(256, bool)) == (0.0, 1.0)
