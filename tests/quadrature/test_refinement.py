"""The refinement: its integral by definition, where it looks, what it admits."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from segattr.quadrature.refinement import (
    BISECTED,
    SAFETY,
    Refinement,
    _parabolic,
    refine,
)


def slope_by_definition(x, y, k):
    """Fritsch & Butland's slope at node k, for scalars."""
    h = [b - a for a, b in pairwise(x)]
    d = [(b - a) / w for (a, b), w in zip(pairwise(y), h, strict=True)]
    if 0 < k < len(x) - 1:
        if d[k - 1] * d[k] <= 0:
            return 0.0
        left, right = h[k - 1] + 2 * h[k], 2 * h[k - 1] + h[k]
        return (left + right) / (left / d[k - 1] + right / d[k])
    near, far = (0, 1) if k == 0 else (-1, -2)
    slope = ((2 * h[near] + h[far]) * d[near] - h[near] * d[far]) / (h[near] + h[far])
    if slope * d[near] <= 0:
        return 0.0
    if d[near] * d[far] <= 0 and abs(slope) > 3 * abs(d[near]):
        return 3 * d[near]
    return slope


def integral_by_definition(x, y):
    """Of the Hermite cubics with these slopes, by Simpson's rule, which is exact for cubics."""
    slopes = [slope_by_definition(x, y, k) for k in range(len(x))]
    total = 0.0
    for k in range(len(x) - 1):
        width = x[k + 1] - x[k]
        middle = (y[k] + y[k + 1]) / 2 + width / 8 * (slopes[k] - slopes[k + 1])
        total += width / 6 * (y[k] + 4 * middle + y[k + 1])
    return total


def bisect(function, rounds, potential=None, **settings):
    """A refinement after so many rounds, whatever it says."""
    path = Refinement(**settings)
    for _ in range(rounds):
        nodes = path.wanted
        path.add(None if potential is None else potential(nodes), function(nodes))
    return path


def columns(*functions):
    return lambda x: torch.stack([function(x) for function in functions], -1)


def test_the_integral_is_that_of_a_monotone_cubic():
    """Over random values, so that signs change, ends are steep and extrema occur."""
    generator = torch.Generator().manual_seed(0)
    path = bisect(lambda x: torch.randn(len(x), 40, generator=generator), rounds=4)
    assert path.alphas.diff().unique().numel() == 2
    for column in range(40):
        expected = integral_by_definition(path.alphas.tolist(), path.values[:, column].tolist())
        assert path.value[column].item() == pytest.approx(expected, abs=1e-12)


def test_equally_spaced_nodes_give_the_trapezoid_with_end_slopes():
    path = bisect(columns(lambda x: torch.sin(5 * x)), rounds=1)
    trapezoid = torch.trapezoid(path.values, path.alphas, dim=0)
    x, y = path.alphas.tolist(), path.values[:, 0].tolist()
    ends = slope_by_definition(x, y, 8) - slope_by_definition(x, y, 0)
    torch.testing.assert_close(path.value, trapezoid - ends / (12 * 64))


def test_a_smooth_integrand_is_bisected_everywhere():
    path = bisect(columns(lambda x: torch.exp(-(((x - 0.5) / 0.2) ** 2))), rounds=3)
    torch.testing.assert_close(path.alphas, torch.linspace(0, 1, 33).double())


def test_a_peak_is_bisected_where_it_is():
    path = bisect(columns(lambda x: 1 / torch.cosh(30 * (x - 0.3)) ** 2), rounds=5)
    assert len(path.alphas) == 9 + 4 * BISECTED
    added = path.alphas[(8 * path.alphas) % 1 != 0]
    assert ((added - 0.3).abs() < 0.2).all()
    assert (path.value - 2 / 30).abs() < 0.01 * 2 / 30


@pytest.mark.parametrize("potential", [None, lambda x: torch.tanh(40 * (x - 0.6)) / 40])
def test_no_place_is_evaluated_twice(potential):
    seen = []

    def function(x):
        seen.extend(x.tolist())
        return 1 / torch.cosh(40 * (x[:, None] - 0.6)) ** 2

    path = bisect(function, 12, potential)
    assert len(seen) == len(set(seen)) == len(path.alphas)
    assert path.alphas.tolist() == sorted(seen)


def test_the_budget_is_kept_to_the_point():
    path = bisect(columns(lambda x: torch.tanh(50 * (x - 0.3))), 5, max_evaluations=20)
    assert len(path.alphas) == 20
    assert len(path.wanted) == 0


def test_the_potential_shows_what_the_nodes_missed():
    """A bump between two nodes: invisible to the values, not to the potential."""
    bump = columns(lambda x: torch.exp(-(((x - 0.31) / 0.004) ** 2) / 2), torch.ones_like)

    def potential(x):
        return 0.004 * 2.5066 * torch.special.ndtr((x - 0.31) / 0.004) + x

    blind, seeing = bisect(bump, 1), bisect(bump, 1, potential)
    assert blind.error.max() < 1e-12
    assert seeing.error.sum() == pytest.approx(SAFETY * 0.004 * 2.5066, rel=1e-3)
    assert ((seeing.wanted - 0.31).abs() < 0.125).any()


def test_what_f_shows_to_be_missing_is_never_scaled_away():
    """A smooth integrand and a bump between two nodes, which only the potential shows."""

    def potential(x):
        return 0.05 * torch.special.ndtr((x - 0.31) / 1e-3) + x + x**2 / 2

    path = bisect(lambda x: torch.stack([1 + x / 2, x / 2], 1), 1, potential)
    assert path.smooth
    assert path.error.sum() >= 0.05 * SAFETY * 0.999


def test_parabolic_slopes_are_exact_for_parabolas():
    x = torch.tensor([0.0, 0.1, 0.3, 0.35, 1.0]).double()
    values = torch.stack([x**2, 3 - x + 2 * x**2], 1)
    widths = x.diff()[:, None]
    slopes = _parabolic(widths, values.diff(dim=0) / widths)
    torch.testing.assert_close(slopes, torch.stack([2 * x, 4 * x - 1], 1))


def steps():
    """Steps of three widths at many places on a smooth function, and their integrals."""
    softplus = torch.nn.functional.softplus
    for place in (0.013, 0.2, 0.377, 0.5123, 0.62, 0.81, 0.991):
        for wave in (0.0, 0.02, 0.1, 0.5):
            for width in (1e-6, 3e-3, 2e-2):
                ends = (torch.tensor([1.0, 0.0]).double() - place) / width
                step = width * softplus(ends).diff().neg().item()

                def function(x, place=place, wave=wave, width=width):
                    return (torch.sigmoid((x - place) / width) + wave * torch.sin(5 * x))[:, None]

                yield function, step + wave * (1 - math.cos(5)) / 5


def test_the_error_of_steps_is_seldom_too_small():
    """Even without a potential, and after every round: rounds that bisect what was not in doubt
    must not lower the estimate."""
    too_small, rounds = 0, 0
    for function, exact in steps():
        path = Refinement()
        while len(path.wanted):
            path.add(None, function(path.wanted))
            if len(path.alphas) > 15:
                rounds += 1
                too_small += path.error.item() < abs(path.value.item() - exact)
    assert too_small <= 0.1 * rounds


def test_intervals_have_a_smallest_width():
    """A singular start: bisected towards 0 until no float32 model could tell the difference."""
    path = Refinement(max_evaluations=400)
    while len(path.wanted):
        path.add(None, (path.wanted == 0).double()[:, None])
    assert 2.0**-32 < path.alphas.diff().min() < 2.0**-28


def test_what_is_missed_altogether_is_still_an_error():
    """Values of zero have no shape to follow; the error goes to all components evenly."""
    path = bisect(lambda x: torch.zeros(len(x), 4), 1, lambda x: (x > 0.9).double())
    torch.testing.assert_close(path.error, torch.full((4,), SAFETY / 4).double())
    assert not path.is_plausible()


def test_nothing_is_believed_on_the_coarsest_level_unless_smooth():
    smooth = bisect(columns(lambda x: torch.exp(x)), 1)
    sharp = bisect(columns(lambda x: torch.tanh(100 * (x - 0.4))), 1)
    assert smooth.is_plausible()
    assert not sharp.is_plausible()
    assert refine(lambda x: (None, torch.exp(x)[:, None]), lambda _: True, Refinement()).converged
    path = refine(
        lambda x: (None, torch.tanh(100 * (x - 0.4))[:, None]), lambda _: True, Refinement()
    )
    assert (len(path.alphas), path.converged) == (9 + BISECTED, True)


def test_an_error_as_large_as_the_integral_is_not_believed():
    """A peak at the start whose components cancel in the potential, which then shows nothing."""
    path = bisect(lambda x: torch.stack([1e4 * (x == 0), 1 - 1e4 * (x == 0)], 1), 5, lambda x: x)
    assert path.missed.sum() < 1e-9
    assert not path.is_plausible()


def test_rounding_of_the_potential_is_not_an_error():
    """As in bfloat16: the potential is off by one rounding, the integral is right."""
    generator = torch.Generator().manual_seed(0)

    def potential(x):
        return -8 + 4 * x + 8 * 2**-8 * (torch.rand(len(x), generator=generator) - 0.5)

    def run(resolution):
        path = Refinement(resolution=resolution)
        evaluate = lambda x: (potential(x), torch.full((len(x), 2), 2.0))  # noqa: E731
        return refine(evaluate, lambda p: bool(p.error.sum() < 1e-3), path)

    assert len(run(2**-8).alphas) == 9
    assert not run(2**-24).converged


def test_samples_are_seeded_and_spread_as_the_error():
    path = bisect(columns(torch.exp, lambda x: torch.tanh(30 * (x - 0.5))), rounds=3)
    samples = path.samples(400)
    assert torch.equal(samples, path.samples(400))
    assert torch.equal(samples[0], path.value)
    spread = (samples[1:] - samples[0]).square().mean(0).sqrt()
    torch.testing.assert_close(spread, path.errors.square().sum(0).sqrt(), rtol=0.1, atol=0)
    assert ((samples - samples[0]).abs().amax(0) <= path.error * (1 + 1e-9)).all()


def test_too_few_evaluations():
    for wrong in (8, 20.5):
        with pytest.raises(
            ValueError, match=f"must be at least the 9 nodes of the coarsest level, got {wrong}"
        ):
            Refinement(max_evaluations=wrong)
