"""The closed forms against mpmath, the linear rule against samples, derivatives against finite arithmetic."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import torch

from headtool.causal import cauchy, normal
from headtool.causal.laws import LAWS
from headtool.errors import HeadtoolError

mpmath.mp.dps = 60
EXACT = 1e-10


def draws(n=400, seed=0):
    """Positions and scales over 1e-8..1e8, of both signs, and the places where formulas break."""
    rng = np.random.default_rng(seed)
    x = 10 ** rng.uniform(-8, 8, n) * rng.choice([-1, 1], n)
    s = 10 ** rng.uniform(-8, 8, n)
    hard = [(0, 1), (1e8, 1e-8), (-1e8, 1e-8), (1e-8, 1e8), (1, 1), (-1, 1), (1 + 1e-9, 1), (3, 1), (-3, 1)]
    return np.array([*zip(x, s, strict=True), *hard]).T


def close(ours, theirs):
    """Relative to 1e-10, wherever the true value is."""
    for a, b in zip(ours.tolist(), theirs, strict=True):
        assert abs(mpmath.mpf(a) - b) <= EXACT * abs(b), (a, b)


def graded(function, *numbers):
    tensors = [torch.tensor(n, dtype=torch.float64, requires_grad=True) for n in numbers]
    out = function(*tensors)
    out.sum().backward()
    return out.detach(), [t.grad for t in tensors]


def test_log_probabilities_and_their_gradients_are_mpmaths():
    x, s = draws()
    pairs = [(mpmath.mpf(a), mpmath.mpf(b)) for a, b in zip(x, s, strict=True)]
    for sign in (1, -1):
        p = [mpmath.atan2(b, -sign * a) / mpmath.pi for a, b in pairs]
        ours, (by_x, by_s) = graded(lambda x, s, sign=sign: cauchy.log_tails(x, s)[0 if sign == 1 else 1], x, s)
        close(ours, [mpmath.log(q) for q in p])
        close(by_x, [sign * b / (mpmath.pi * (a * a + b * b) * q) for (a, b), q in zip(pairs, p, strict=True)])
        close(by_s, [-sign * a / (mpmath.pi * (a * a + b * b) * q) for (a, b), q in zip(pairs, p, strict=True)])
        close(cauchy.probability(torch.tensor(sign * x), torch.tensor(s)), p)


def test_the_density_and_its_gradients_are_mpmaths():
    """By loc and by scale, also where the derivative by the scale passes through zero (|value - loc| = scale)."""
    x, s = draws(seed=1)
    pairs = [(mpmath.mpf(a), mpmath.mpf(b)) for a, b in zip(x, s, strict=True)]
    ours, (_, by_loc, by_s) = graded(cauchy.nll, x, np.zeros_like(x), s)
    close(ours, [mpmath.log(mpmath.pi * b * (1 + (a / b) ** 2)) for a, b in pairs])
    close(by_loc, [-2 * a / (a * a + b * b) for a, b in pairs])
    close(by_s, [(b - a) * (b + a) / (b * (a * a + b * b)) for a, b in pairs])


def test_the_density_stays_finite_in_float32():
    """Where r^2 overflows a float32 the log does not."""
    loss = cauchy.nll(torch.tensor(1e30), torch.tensor(0.0), torch.tensor(1e-8))
    assert loss.item() == pytest.approx(math.log(math.pi * 1e-8) + 2 * math.log(1e38), rel=1e-6)


def test_normal_tails_and_hazards_are_mpmaths():
    """Over the range in which a normal is used: 30 standard deviations; float64's log_ndtr has 1e-13 there."""
    z = np.concatenate([np.linspace(-30, 5, 36), [0.0]])
    s = np.full_like(z, 2.25)
    ours, (by_x, by_s) = graded(lambda x, s: normal.log_tails(x, s)[0], z * 1.5, s)
    p = [mpmath.ncdf(mpmath.mpf(a)) for a in z]
    density = [mpmath.npdf(mpmath.mpf(a)) for a in z]
    close(ours, [mpmath.log(q) for q in p])
    close(by_x, [d / q / mpmath.mpf(1.5) for d, q in zip(density, p, strict=True)])
    close(by_s, [-d / q * mpmath.mpf(a) / mpmath.mpf(4.5) for a, d, q in zip(z, density, p, strict=True)])


@pytest.mark.parametrize("name", LAWS)
def test_surprise_is_log_tails_and_its_derivatives_are_autograds(name):
    law = LAWS[name]
    x = torch.linspace(-4, 4, 41, dtype=torch.float64)
    s = torch.linspace(1.0, 3, 41, dtype=torch.float64)
    loss, by_x, by_s = law.surprise(x, s)
    torch.testing.assert_close(loss, -law.probability(x, s).log())
    assert torch.autograd.gradcheck(lambda x, s: law.log_tails(x, s)[1], (x.requires_grad_(), s.requires_grad_()))
    (-law.probability(x, s).log()).sum().backward()
    torch.testing.assert_close(x.grad, by_x)
    torch.testing.assert_close(s.grad, by_s)
    assert torch.autograd.gradcheck(lambda v, m, s: law.nll(v, m, s), (x, x.detach().flip(0).requires_grad_(), s))


@pytest.mark.parametrize("name", LAWS)
def test_a_linear_map_of_samples_has_the_quantiles_of_the_rule(name):
    """sum a_i X_i + b by a million draws: quantiles within four standard errors of those of the closed form."""
    law, n = LAWS[name], 1_000_000
    generator = torch.Generator().manual_seed(7)
    loc = torch.tensor([3.0, -1.0, 0.5, 10.0], dtype=torch.float64)
    scale = torch.tensor([0.2, 2.0, 0.01, 1.0], dtype=torch.float64)
    weight, bias = torch.tensor([2.0, -0.7, 5.0, 0.3], dtype=torch.float64), -4.0
    e = torch.rand(n, 4, generator=generator, dtype=torch.float64)
    seen = ((loc + scale * law.quantile(e)) @ weight + bias).sort().values
    mean = loc @ weight + bias
    width = law.scale(law.spread(scale) @ law.weigh(weight))
    for q in (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99):
        slack = 4 * math.sqrt(q * (1 - q) / n)
        low, high = (law.quantile(torch.tensor(q + d, dtype=torch.float64)) for d in (-slack, slack))
        assert mean + width * low <= seen[int(q * n)] <= mean + width * high


@pytest.mark.parametrize(("name", "known"), [("cauchy", 12.706204736), ("normal", 1.959963985)])
def test_quantiles_and_half_widths_agree(name, known):
    law = LAWS[name]
    assert law.half_width(0.95) == pytest.approx(known, rel=1e-9)
    e = torch.tensor([1e-9, 1e-3, 0.3, 0.5, 0.7, 0.999], dtype=torch.float64)
    back = law.probability(law.quantile(e), torch.ones_like(e))
    torch.testing.assert_close(back, e, rtol=1e-9, atol=0)


def test_an_unknown_law_is_named():
    from headtool.causal.laws import law

    with pytest.raises(HeadtoolError, match="there is no distribution named 'caucy'"):
        law("caucy")
