"""Statistics and spectra of tensors against numpy and scipy in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from checkpoints import write
from headtool.weights import examine as module
from headtool.weights import spectrum
from headtool.weights.examine import Held, Wish, examine
from headtool.weights.formats import FORMATS
from headtool.weights.plan import items_of
from headtool.weights.powerlaw import exponent
from headtool.weights.source import open_checkpoint
from headtool.weights.stored import Stored

TYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2, "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


def stored(folder, tensor: torch.Tensor) -> Stored:
    checkpoint = open_checkpoint(str(write(folder, {"w": tensor})))
    return Stored(checkpoint, items_of(checkpoint, None, [], [])[0])


def reference(x: np.ndarray, zero_eps: float = 1e-8) -> dict[str, float]:
    finite = x[np.isfinite(x)]
    top = np.abs(finite).max() if finite.size else 1
    return {
        "mean": finite.mean(), "std": finite.std(), "var": finite.var(), "min": finite.min(), "max": finite.max(),
        "abs_max": np.abs(finite).max(), "sparsity": (np.abs(finite) <= zero_eps).mean(), "fro_norm": np.linalg.norm(finite),
        "kurtosis": scipy.stats.kurtosis(finite.ravel() / (top or 1)) if finite.std() else math.nan,
        "n_nan": np.isnan(x).sum(), "n_inf": np.isinf(x).sum(),
    }  # fmt: skip


@pytest.mark.parametrize("shape", [(700, 130), (601, 901), (7, 9)], ids=["large", "pieces", "small"])
@pytest.mark.parametrize("dtype", TYPES)
def test_statistics_of_every_type(tmp_path, dtype, shape):
    """Read from a file; the large one takes the way of float32 pieces where its type has one."""
    torch.manual_seed(0)
    values = torch.randn(shape, dtype=torch.float64) * 3
    values[torch.rand(shape) < 0.1] = 0
    tensor = (
        values.bool()
        if dtype == "BOOL"
        else values.clamp(0, 200).to(TYPES[dtype])
        if dtype == "U8"
        else values.to(TYPES[dtype])
    )
    seeing = examine(stored(tmp_path, tensor), Wish(spectra=False))
    told = reference(tensor.to(torch.float64).numpy())
    scale = {"mean": 1e-6 * told["std"], "kurtosis": 3e-5}
    for name, value in told.items():
        assert seeing.numbers[name] == pytest.approx(value, rel=1e-6, abs=scale.get(name, 0)), name
    assert seeing.method == "skipped:not asked for"


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "F16", "BF16"])
def test_every_code_of_the_small_types(tmp_path, dtype):
    """All values that a type has, as torch reads them, NaN and infinity among them."""
    bits = torch.arange(2 ** (8 * TYPES[dtype].itemsize))
    codes = bits.to(torch.uint8) if TYPES[dtype].itemsize == 1 else bits.to(torch.int32).to(torch.int16)
    tensor = codes.view(TYPES[dtype])
    for part in (tensor, tensor[tensor.float().isfinite()]):
        values, seen = stored(tmp_path, part), []
        np.testing.assert_array_equal(values.whole()[:, 0], part.float().numpy())
        values.each(lambda piece, seen=seen: seen.append(piece.ravel().copy()))
        np.testing.assert_array_equal(np.sort(np.concatenate(seen)), np.sort(part.float().numpy()))


@pytest.mark.parametrize(
    ("shape", "method"),
    [
        ((900, 100), "gram32"),
        ((100, 900), "gram32"),
        ((300, 300), "gram64"),
        ((330, 250), "gram32"),
        ((300, 250), "gram64"),
        ((70, 90), "gram64"),
    ],
)
@pytest.mark.parametrize("piecewise", [False, True])
def test_singular_values(monkeypatch, shape, method, piecewise):
    """Whole, and in blocks and pieces that do not divide the sides; method is the first that is tried."""
    if piecewise:
        monkeypatch.setattr(module, "PIECE", 517)
        monkeypatch.setattr(module, "BLOCK", 26_000)
        monkeypatch.setattr(module, "DEEP", 7)
        monkeypatch.setattr(module, "WHOLE", 0)
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    seeing = examine(Held(x, 2.0**-23), Wish())
    s = np.linalg.svd(x.astype(float), compute_uv=False)
    clear = (s[-1] / s[0]) ** 2 > spectrum.CLEAR
    assert seeing.method == (method if clear and x.size > module.SMALL else "gram64")
    np.testing.assert_allclose(seeing.values, s, rtol=1e-4, atol=1e-5 * s[0])
    p = s / s.sum()
    told = {
        "rank": len(s), "rank_resolved": len(s), "spectral_norm": s[0], "stable_rank": (s**2).sum() / s[0] ** 2,
        "effective_rank": np.exp(-(p * np.log(p)).sum()), "condition": s[0] / s[-1],
        "rank_90": (np.cumsum(s**2) < 0.9 * (s**2).sum()).sum() + 1,
        "rank_99": (np.cumsum(s**2) < 0.99 * (s**2).sum()).sum() + 1,
    }  # fmt: skip
    for name, value in told.items():
        assert seeing.numbers[name] == pytest.approx(value, rel=1e-4), name
    norms = [np.linalg.norm(x.astype(float), axis=axis).max() for axis in (0, 1)]
    for eps in (0.5, 1.0, 1.5):  # a coarse type, of whose rounding some singular values are above and some below
        resolved = (s > eps / 12**0.5 * sum(norms)).sum()
        assert examine(Held(x, eps), Wish()).numbers["rank_resolved"] == pytest.approx(resolved, abs=1)
    told = reference(x.astype(float))
    for name in ("std", "fro_norm", "kurtosis"):
        assert seeing.numbers[name] == pytest.approx(told[name], rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("rank", [5, 64, 130])
@pytest.mark.parametrize("shape", [(600, 140), (140, 600), (150, 150)])
@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16"])
def test_planted_ranks(tmp_path, dtype, shape, rank):
    """Rounding to the stored type fills the spectrum of a bf16 matrix; rank_resolved sees through it."""
    rng = np.random.default_rng(rank)
    u, v = (np.linalg.qr(rng.normal(size=(side, rank)))[0] for side in shape)
    x = (u * rng.uniform(1, 3, rank)) @ v.T
    seeing = examine(stored(tmp_path, torch.tensor(x).to(TYPES[dtype])), Wish())
    assert seeing.numbers["rank_resolved"] == rank
    if dtype in ("F64", "F32"):
        assert seeing.numbers["rank"] == rank
    if dtype == "BF16":
        assert seeing.numbers["rank"] > rank
    if dtype == "F64":
        assert seeing.method == "svd"


def test_a_gram_matrix_in_float32_is_taken_only_where_it_is_clear_of_rounding():
    rng = np.random.default_rng(0)
    u, v = (np.linalg.qr(rng.normal(size=(side, 100)))[0] for side in (900, 100))
    for condition, method in ((20, "gram32"), (90, "gram32"), (300, "gram64"), (1e5, "gram64")):
        s = np.geomspace(1, 1 / condition, 100)
        seeing = examine(Held(((u * s) @ v.T).astype(np.float32), 2.0**-23), Wish())
        assert seeing.method == method
        assert seeing.numbers["condition"] == pytest.approx(condition, rel=2e-3 if condition < 1e4 else 0.2)


@pytest.mark.parametrize(("tol", "method"), [(3e-4, "gram64"), (3e-7, "gram64"), (1e-9, "svd")])
def test_a_tolerance_below_what_a_gram_matrix_resolves_takes_the_matrix_itself(tol, method):
    rng = np.random.default_rng(0)
    u, v = (np.linalg.qr(rng.normal(size=(80, 8)))[0] for _ in range(2))
    s = 10.0 ** -np.arange(0, 8)
    seeing = examine(Held(((u * s) @ v.T), 2.0**-23), Wish(rank_tol=tol))
    assert seeing.method == method
    assert seeing.numbers["rank"] == (s > tol).sum()


def test_a_mean_far_from_zero_takes_a_second_pass():
    x = (1000 + np.random.default_rng(0).normal(size=(400, 300)) * 0.01).astype(np.float32)
    told, found = reference(x.astype(float)), examine(Held(x, 2.0**-23), Wish()).numbers
    for name in ("mean", "std", "kurtosis", "fro_norm"):
        assert found[name] == pytest.approx(told[name], rel=1e-9, abs=1e-9), name


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12, 1e30])
def test_scales_that_float32_sums_do_not_hold(scale):
    x = (np.random.default_rng(0).normal(size=(900, 100)) * scale).astype(np.float32)
    told, seeing = reference(x.astype(float)), examine(Held(x, 2.0**-23), Wish())
    for name in ("std", "fro_norm", "kurtosis"):
        assert seeing.numbers[name] == pytest.approx(told[name], rel=1e-5, abs=1e-5 if name == "kurtosis" else 0), name
    np.testing.assert_allclose(seeing.values, np.linalg.svd(x.astype(float), compute_uv=False), rtol=1e-5)


VALUES = st.floats(width=32) | st.sampled_from([0.0, -0.0, 1.0, 1e-44, 3e38, -3e38, math.nan, math.inf, -math.inf])


@given(
    hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=5), elements=VALUES),
    st.booleans(),
)
def test_any_matrix_of_any_values(x, double):
    x = x.astype(np.float64) ** 5 if double and np.isfinite(x).all() else x
    with np.errstate(all="ignore"):
        seeing = examine(Held(x, 2.0**-52 if x.dtype == np.float64 else 2.0**-23), Wish(alpha=True))
    numbers = seeing.numbers
    finite = x[np.isfinite(x)]
    assert numbers["n_nan"] == np.isnan(x).sum()
    assert numbers["n_inf"] == np.isinf(x).sum()
    if not finite.size:
        assert math.isnan(numbers["mean"])
        return
    exact = finite.astype(np.float64)
    top = np.abs(exact).max()
    assert (numbers["min"], numbers["max"]) == (exact.min(), exact.max())
    assert numbers["abs_max"] == top
    unit = exact / top if top else exact
    if 1e-200 < top < 1e200 or not top:
        assert numbers["mean"] == pytest.approx(unit.mean() * top, abs=1e-12 * top)
        assert numbers["std"] == pytest.approx(unit.std() * top, rel=1e-6, abs=1e-8 * top)
        assert numbers["fro_norm"] == pytest.approx(np.linalg.norm(unit) * top, rel=1e-6)
    if finite.size < x.size:
        assert seeing.method == "skipped:not finite"
        return
    s = np.linalg.svd(x.astype(np.float64) / (top or 1), compute_uv=False) * (top or 1)
    assert (np.diff(seeing.values) <= 0).all()
    np.testing.assert_allclose(seeing.values, s, rtol=1e-6, atol=1e-7 * s[0] + 1e-300)
    assert 0 <= numbers["rank_resolved"] <= numbers["rank"] <= min(x.shape)


@pytest.mark.parametrize("alpha", [2.0, 3.5])
def test_the_exponent_of_a_power_law(alpha):
    x = np.random.default_rng(0).pareto(alpha - 1, 3000) + 1
    x[:200] = np.random.default_rng(1).uniform(0.1, 1, 200)  # what lies below x_min follows no power law
    assert exponent(x) == pytest.approx(alpha, rel=0.08)


def test_the_exponent_is_that_of_the_plain_search():
    x = np.sort(np.random.default_rng(0).pareto(1.5, 60) + 0.5)
    best = None
    for start in x[: len(x) - 9]:
        tail = x[x >= start]
        alpha = 1 + len(tail) / np.log(tail / start).sum()
        gap = scipy.stats.kstest(tail, lambda t, a=alpha, m=start: 1 - (t / m) ** (1 - a)).statistic
        if best is None or gap < best[0]:
            best = gap, alpha
    assert exponent(x) == pytest.approx(best[1], rel=1e-9)
    assert math.isnan(exponent(np.ones(50)))


def test_every_format_widens():
    assert {name for name in FORMATS if name not in TYPES} == {"U64", "U32", "U16"}
