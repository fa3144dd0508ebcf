"""The rounds of a sampled sweep on effects that are known: parts on disk as in a run, no model.

What stands in for the sweep writes each part as the real one does, with the seconds that its ablations are said to take: one
each. Round, budget, stop and resume are the product's.
"""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import numpy as np
import pytest
from test_adaptive import EXAMPLES, population

from headtool.record.files import read_part, write_part
from headtool.scores.ablation import Losses
from headtool.scores.adaptive import allotted, estimate
from headtool.scores.rounds import sampled

GROUP = 20  # examples a part


class Killed(BaseException):
    """What kill -9 is to the parts that are there."""


class Stub:
    """Ablation: some heads on some examples of known effects; base losses are 0. left: parts to go before it is killed."""

    name = "ablation"

    def __init__(self, exact, left):
        self.exact, self.left = exact, left
        self.examples = range(exact.shape[-1])

    def of(self, name, some, active):
        share = Stub(self.exact, self.left)
        share.name, share.active, share.phase = name, active, "ablation"
        some = np.sort(some)  # by place, as the real one goes by length
        share.groups = [some[i : i + GROUP] for i in range(0, len(some), GROUP)]
        return share

    def part(self, group):
        return f"{self.name}-{group:04d}.part"

    def work(self, adapter, group, parts):
        if self.left[0] == 0:
            raise Killed
        self.left[0] -= 1
        index = self.groups[group]
        found = np.where(self.active[..., None], self.exact[..., index], np.nan).astype(np.float32)
        write_part(
            parts / self.part(group), {"index": index, "found": found, "seconds": self.active.sum() * len(index)}
        )
        return {}

    def merge(self, parts):
        loss = np.full(self.exact.shape, np.nan, np.float32)
        for group in range(len(self.groups)):
            part = read_part(parts / self.part(group))
            loss[..., part["index"]] = part["found"]
        return Losses(np.zeros(len(self.examples)), np.zeros(len(self.examples)), loss, np.zeros_like(loss))


def go(parts, first, exact, *, left=-1, shares=1, seed=0, **ask):
    """sampled() with these parts, by one process or as one of several."""
    said = []
    parts.mkdir(exist_ok=True)
    first_pass = SimpleNamespace(groups=[], part=str, merge=lambda _: (first, np.zeros((2, first.shape[-1]))))
    whole = Stub(exact, [left])
    run = SimpleNamespace(
        share=SimpleNamespace(count=shares, owns=lambda _: True),  # as if others had made theirs meanwhile
        every_part=lambda *_, **__: True,
        console=SimpleNamespace(
            note=said.append, warn=said.append, progress=lambda *_: contextlib.nullcontext(lambda _: None)
        ),
        clock=SimpleNamespace(phase=lambda _: contextlib.nullcontext(), count=lambda **_: None),
    )
    asked = {"seed": seed, "ablate_error": None, "ablate_budget": None, "ablate_until": "error", "top_k": 3}
    return sampled(run, None, whole, first_pass, parts, SimpleNamespace(**asked | ask)), said


def of_many_kinds(seed):
    """A population whose first layer first order tells well."""
    first, exact = population(seed, "normal")
    exact[0] = 0.8 * first[0] + 0.1 * (exact[0] - 0.8 * first[0])
    return first, exact


def holes(found, seed=0):
    """Heads whose known examples are not the first ones of the random order."""
    known = np.isfinite(found.losses.loss)[..., np.random.default_rng(seed).permutation(EXAMPLES)]
    return int((np.diff(known.astype(int), axis=-1) > 0).any(-1).sum())


def test_a_budget_is_shared_by_what_first_order_leaves_open(tmp_path):
    """The widest intervals are narrower than with as many examples for every head, at no more ablations; 95% still hold."""
    held, wider, used = [], {True: [], False: []}, []
    for seed in range(60):
        first, exact = of_many_kinds(seed)
        truth, exhaustive = exact.mean(-1), exact.std(-1, ddof=1) / EXAMPLES**0.5
        budget = 0.3 * exact.size
        for even in (True, False):
            more = {"ablate_error": 1e-9} if even else {}  # an error that is never reached: all go on
            found, _ = go(tmp_path / f"{seed}-{even}", first, exact, seed=1000 + seed, ablate_budget=budget, **more)
            e = found.estimate
            assert e.n.sum() <= budget
            assert holes(found, 1000 + seed) == 0
            wider[even].append((e.se / exhaustive).max())
            if even:
                assert np.ptp(e.n) == 0
            else:
                held.append((e.low <= truth) & (truth <= e.high))
                used.append(e.n.sum() / budget)
                assert e.n[0].mean() < e.n[1:].mean()
    assert 0.93 <= np.mean(held) <= 0.97
    assert np.mean(wider[False]) < 0.9 * np.mean(wider[True])
    assert np.mean(used) > 0.9


def test_as_many_heads_and_examples_as_the_budget_allows(tmp_path):
    first, exact = of_many_kinds(1)
    for budget, n in ((1e-6, 64), (exact.size, EXAMPLES), (1e308, EXAMPLES)):
        found, _ = go(tmp_path / str(budget), first, exact, ablate_budget=budget)
        assert (found.estimate.n == n).all()
        np.testing.assert_allclose(found.losses.loss[np.isfinite(found.losses.loss)].std(), exact.std(), rtol=0.2)


@pytest.mark.parametrize("left", range(1, 40, 3))
def test_killed_and_called_again(tmp_path, left):
    """As undisturbed, where as many processes go on; without holes in any head's sample, where there are others."""
    first, exact = of_many_kinds(2)
    budget = 0.3 * exact.size
    whole, _ = go(tmp_path / "whole", first, exact, ablate_budget=budget)
    with contextlib.suppress(Killed):
        go(tmp_path / "run", first, exact, left=left, ablate_budget=budget)
    again, _ = go(tmp_path / "run", first, exact, ablate_budget=budget)
    np.testing.assert_array_equal(again.losses.loss, whole.losses.loss)
    with contextlib.suppress(Killed):
        go(tmp_path / "other", first, exact, left=left, shares=2, ablate_budget=budget)
    other, _ = go(tmp_path / "other", first, exact, ablate_budget=budget)
    assert holes(other) == 0
    assert (other.estimate.n >= 64).all()


def test_a_lost_part_of_an_early_round_is_made_again_and_decides_anew(tmp_path):
    first, exact = of_many_kinds(3)
    go(tmp_path / "run", first, exact, ablate_budget=0.3 * exact.size)
    gone = sorted((tmp_path / "run").glob("*-round-00-*"))[0]
    held = read_part(gone)
    write_part(gone, held | {"seconds": held["seconds"] * 30})  # on a machine that was busy
    again, _ = go(tmp_path / "run", first, exact, ablate_budget=0.3 * exact.size)
    assert holes(again) == 0
    assert again.estimate.n.sum() < 0.3 * exact.size


def test_few_examples_with_all_of_an_effect_are_warned_of(tmp_path):
    first, exact = of_many_kinds(4)
    exact[2, 1] = np.where(np.arange(EXAMPLES) % 40 == 0, 20.0, 0.0)
    first[2, 1] = 0.1 * first[2, 1]
    _, said = go(tmp_path / "run", first, exact, ablate_budget=0.2 * exact.size)
    assert any(text.startswith("1 of 15 heads have effects that sit in a few examples") for text in said)
    _, said = go(tmp_path / "whole", first, exact, ablate_budget=exact.size)
    assert not any("sit in a few" in text for text in said)


def test_the_best_allotment():
    """In proportion to what is left open, never fewer than there are, nor more than all; no other of as many does better."""
    first, exact = population(0, "normal")
    found = estimate(first, np.where(np.arange(EXAMPLES) < 64, exact, np.nan), np.arange(EXAMPLES))
    best = allotted(found, EXAMPLES, 0.3 * exact.size)
    assert best.sum() == pytest.approx(0.3 * exact.size)
    assert (best >= 64).all()
    assert (best <= EXAMPLES).all()
    rng = np.random.default_rng(0)
    least = (found.unexplained**2 / best).sum()
    for _ in range(200):  # ablations moved from one head to another
        other = best.ravel().copy()
        a, b = rng.choice(other.size, 2, replace=False)
        moved = rng.uniform(0, min(other[a] - 64, EXAMPLES - other[b]))
        other[a], other[b] = other[a] - moved, other[b] + moved
        assert (found.unexplained.ravel() ** 2 / other).sum() >= least * (1 - 1e-9)
    assert (allotted(found, EXAMPLES, 0) == 64).all()
    assert (allotted(found, EXAMPLES, 2 * exact.size) == EXAMPLES).all()


def test_a_place_is_decided_by_intervals_that_can_be_relied_on(tmp_path):
    """A head whose effect sits in a few examples is not put outside the top k by a sample that has none of them."""
    first, exact = of_many_kinds(4)
    exact[2, 1] = np.where(np.arange(EXAMPLES) % 40 == 0, 200.0, 0.0)
    first[2, 1] = 0.1 * first[2, 1]
    found, said = go(tmp_path / "run", first, exact, ablate_error=0.05, ablate_until="top-k")
    assert (found.estimate.n >= found.estimate.enough).all()
    assert found.estimate.n[2, 1] == EXAMPLES
    assert found.estimate.n.min() < EXAMPLES
    close = int(((found.estimate.high - found.estimate.low) / 2 <= 0.05).sum())
    made = f"{found.estimate.n.sum():,} of 9,000 ablations"
    assert (
        said[-1]
        == f"I is known to +-0.05 (95%), as all these examples would give it, of {close} of 15 heads, by {made}"
    )
