"""Detectors: exactly zero where arithmetic is exact, silent on clean data, loud where they say they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_trial import COVERED, sequence

from families import tiny
from headtool import folder
from headtool.errors import HeadtoolError
from headtool.faults import asked, calibration, guard
from headtool.models import sites
from headtool.models.attention import Call

ALL = folder.names(asked.DETECTORS)


def integers(causal=True, heads=4, kv_heads=2, length=8, equal=False) -> Call:
    """A call whose q, k, v are small integers: every product and sum of them is exact in float32."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randint(-3, 4, (2, n, length, 4), generator=generator).float() for n in (heads, kv_heads, kv_heads)
    )
    return Call(torch.nn.Identity(), q, k, k if equal else v, None, causal, 1.0, None, None)


@pytest.mark.parametrize("causal", [True, False])
def test_sums_of_integers_leave_no_residual(causal):
    """q, k, v in integers: what is added up of them agrees to the bit; a weight's own rounding is what is left."""
    detectors = {name: guard.detector(name) for name in ALL if name not in ("range", "kv-identity", "bounds")}
    _, found = guard.guarded(integers(causal), detectors)
    for name in ("masked", "scores-row", "bit-sum", "hull"):
        for residual in found[name]:
            assert float(residual.max()) == 0, name
    for name in ("rowsum", "out-checksum"):
        assert float(found[name][0].max()) < 1e-5
    _, found = guard.guarded(integers(causal, equal=True), {"kv-identity": guard.detector("kv-identity")})
    assert float(found["kv-identity"][0].max()) < 1e-4


# What each detector must see: (site, what is done to the element).
SEEN = [
    ("range", "q", lambda x: x * 0 + 1e30),
    ("range", "k", lambda x: x * torch.nan),
    ("range", "v", lambda x: x * 0 - 1e9),
    ("range", "scores", lambda x: x * torch.inf),
    ("range", "out", lambda x: x * 0 + 100),
    ("masked", "weights", None),
    ("rowsum", "weights", lambda x: x + 0.5),
    ("scores-row", "q", lambda x: x + 1),
    ("scores-row", "k", lambda x: x + 1),
    ("scores-row", "scores", lambda x: x + 1),
    ("out-checksum", "v", lambda x: x + 10),
    ("out-checksum", "out", lambda x: x + 1),
    ("bit-sum", "q", lambda x: x + 1),
    ("bit-sum", "k", lambda x: -x - 1),
    ("bit-sum", "v", lambda x: x + 1e-3),
    ("hull", "out", lambda x: x + 50),
    ("bounds", "weights", lambda x: x + 3),
    ("kv-identity", "out", lambda x: x + 2),
]


@pytest.mark.parametrize(("name", "site", "change"), SEEN, ids=lambda x: x if isinstance(x, str) else "")
def test_each_detector_sees_its_faults_and_names_the_row(name, site, change):
    call = integers(equal=name == "kv-identity")
    module = {name: guard.detector(name)}
    _, clean = guard.guarded(call, module)
    column = 7 if name == "masked" else 1  # of row 5 the keys 6 and 7 are hidden

    def edit(here, tensor):
        if here != site:
            return tensor
        tensor = tensor.clone()
        at = (1, 1, 5, column)
        tensor[at] = 0.25 if change is None else change(tensor[at])
        return tensor

    _, found = guard.guarded(call, module, edit)
    over = [~(after <= before.max() * 1.01 + 1e-4) for after, before in zip(found[name], clean[name], strict=True)]
    assert any(o.any() for o in over)
    for o in over:
        assert not o[0].any(), "the other sequence is clean"


def test_sets_and_names():
    assert asked.detectors("cheap,hull,range") == ("range", "masked", "rowsum", "hull")
    assert set(asked.detectors("strict")) == set(asked.detectors("standard")) | {"rowsum", "out-checksum", "bit-sum"}
    with pytest.raises(HeadtoolError, match="no detector named 'rang'") as raised:
        asked.detectors("rang")
    assert "did you mean 'range'" in raised.value.hint


@pytest.mark.parametrize("name", COVERED)
def test_clean_data_stays_within_its_limits(name):
    """Limits of some sequences, other sequences: no alarm, in every family."""
    adapter = tiny(name)
    detectors, left_out = guard.usable(adapter, ALL, kv_equal=False)
    assert "kv-identity" in left_out
    seen = [
        calibration.clean(adapter, sequence(adapter, seed), detectors, method="s@w", tolerance=None)
        for seed in range(6)
    ]
    limits = calibration.limits(detectors, seen[:4])
    for each in seen[4:]:
        for detector, limit in limits.limits.items():
            if (
                detector != "range"
            ):  # random models of a few tokens: the largest of the largest moves more than 1.5 times
                assert (each.largest[detector] <= limit.numpy() + 1e-5).all(), detector
        assert each.violated.sum() == 0
        known = each.rows[each.rows[..., 0] >= 2]
        assert np.isfinite(known).all()


def test_forcing_keys_to_be_values(tmp_path):
    """Where nothing is done to keys after their projection they are then the values; a rotation undoes it."""
    for name, equal in (("gpt2", True), ("opt", True), ("bert", True), ("llama", False)):
        adapter = tiny.__wrapped__(name)
        batch = sequence(adapter)
        before = calibration.clean(adapter, batch, {}, method=None, tolerance=None).apart
        assert not calibration.kv_equal(before, adapter.dtype).any()
        calibration.force_kv_equal(adapter)
        after = calibration.clean(adapter, batch, {}, method=None, tolerance=None).apart
        assert calibration.kv_equal(after, adapter.dtype).all() == equal
        kept, _ = guard.usable(adapter, ("kv-identity",), kv_equal=equal)
        if equal:
            seen = calibration.clean(adapter, batch, kept, method="q@o", tolerance=None)
            assert seen.largest["kv-identity"].max() < 1e-3
            assert seen.violated.sum() == 0


def test_alarms_are_ratios_over_the_limit():
    limits = guard.Limits({"hull": torch.tensor([[0.0], [2.0]])})
    residual = (torch.tensor([[[0.0, 0.0]], [[1.0, 3.0]], [[torch.nan, 0.0]]]),)
    assert limits.ratio("hull", 0, residual).tolist() == [0.0, torch.inf, torch.inf]
    assert limits.ratio("hull", 1, residual).tolist() == [0.0, 1.5, torch.inf]


def test_the_sites_are_named_alike():
    assert asked.SITES == sites.SITES
