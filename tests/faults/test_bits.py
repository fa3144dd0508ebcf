"""Bit patterns: what a fault does to a number, in every dtype."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from headtool.errors import HeadtoolError
from headtool.faults import asked, bits

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def hit(values, pattern, bit, seed=0):
    keep, flip = bits.masks(bits.parse(pattern), bit, values.dtype, np.random.default_rng(seed))
    keep, flip = (bits.signed([each], values.dtype).expand(len(values)) for each in (keep, flip))
    return bits.apply(values, keep, flip)


def patterns(values):
    """The bits as Python integers, by struct of the standard library where it knows the format."""
    return [bits.stored(value)[0] for value in values]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_flipping_twice_is_the_identity_and_once_changes_that_bit(dtype):
    values = torch.cat(
        [torch.randn(50, dtype=torch.float64), torch.tensor([0.0, -0.0, 1e30, float("inf"), float("nan")])]
    ).to(dtype)
    for bit in range(bits.bits_of(dtype)):
        once = hit(values, "flip", bit)
        assert [a ^ b for a, b in zip(patterns(values), patterns(once), strict=True)] == [1 << bit] * len(values)
        assert patterns(hit(once, "flip", bit)) == patterns(values)


@pytest.mark.parametrize(
    ("dtype", "sign", "exponent", "mantissa"),
    [
        (torch.float32, 31, (23, 30), (0, 22)),
        (torch.float16, 15, (10, 14), (0, 9)),
        (torch.bfloat16, 15, (7, 14), (0, 6)),
    ],
    ids=str,
)
def test_fields_do_what_their_names_say(dtype, sign, exponent, mantissa):
    one = torch.tensor([1.5], dtype=dtype)
    assert bits.field(sign, dtype) == "sign"
    assert hit(one, "flip", sign).item() == -1.5
    for bit in range(*exponent):  # the highest makes infinity or NaN of 1.5
        assert bits.field(bit, dtype) == "exponent"
        ratio = abs(hit(one, "flip", bit).double().item() / 1.5)
        assert np.log2(ratio) == -(2 ** (bit - exponent[0]))
    assert not torch.isfinite(hit(one, "flip", exponent[1]))
    for bit in range(mantissa[0], mantissa[1] + 1):
        assert bits.field(bit, dtype) == "mantissa"
        assert abs(hit(one, "flip", bit).double().item() - 1.5) == 2.0 ** (bit - exponent[0])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_other_patterns(dtype):
    values, width = torch.randn(40, dtype=torch.float64).to(dtype), bits.bits_of(dtype)
    for bit in (0, 5, width - 1):
        assert all(not p >> bit & 1 for p in patterns(hit(values, "stuck0", bit)))
        assert all(p >> bit & 1 for p in patterns(hit(values, "stuck1", bit)))
        assert patterns(hit(hit(values, "stuck1", bit), "stuck1", bit)) == patterns(hit(values, "stuck1", bit))
        for count in (1, 2, 7):
            changed = [
                a ^ b for a, b in zip(patterns(values), patterns(hit(values, f"multi:{count}", bit)), strict=True)
            ]
            assert all(c.bit_count() == count for c in changed)
            assert all(c >> bit & 1 for c in changed)
    assert set(hit(values, "value:-2.5", -1).tolist()) == {-2.5}
    drawn = [patterns(hit(values[:1], "random", -1, seed))[0] for seed in range(400)]
    shares = [np.mean([p >> bit & 1 for p in drawn]) for bit in range(width)]
    assert 0.38 < min(shares) <= max(shares) < 0.62
    assert bits.parse("burst").width == 32
    assert bits.parse("burst:5").width == 5


@pytest.mark.parametrize("text", ["flop", "flip:2", "multi:0", "multi:x", "value:", "value:x", "burst:-1", ""])
def test_patterns_that_there_are_not(text):
    with pytest.raises(HeadtoolError, match="there is no such pattern"):
        bits.parse(text)


def test_bits_beyond_the_width_are_refused():
    for short, (kind, width) in asked.TYPES.items():
        assert bits.bits_of(getattr(torch, kind)) == width
        asked.numbers(short, bits=f"0,{width - 1}")
        with pytest.raises(HeadtoolError, match=f"--bits {width}: a {kind} has bits 0 to {width - 1}"):
            asked.numbers(short, bits=f"0-{width}")
    asked.numbers("auto", bits="31")
    with pytest.raises(HeadtoolError, match="there are 16"):
        bits.masks(bits.parse("multi:17"), 0, torch.bfloat16, np.random.default_rng(0))
