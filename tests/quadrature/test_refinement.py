"""The refinement: where it looks, what it believes, what it admits."""

from __future__ import annotations

import pytest
import torch
from rounds import bisect, columns

from segattr.quadrature.errors import SAFETY
from segattr.quadrature.refinement import BISECTED, Refinement, refine


def test_before_the_first_round_nothing_is_known_and_nothing_believed():
    path = Refinement()
    attributes = set(vars(path))
    for known in (path.alphas, path.value, path.error, path.errors, path.missed):
        assert known.shape[0] == 0
    assert path.samples().shape == (33, 0)
    assert not path.is_plausible()
    path.add(None, path.wanted[:, None])
    assert set(vars(path)) == attributes


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


def test_intervals_have_a_smallest_width():
    """A singular start: bisected towards 0 until no float32 model could tell the difference."""
    path = Refinement(max_evaluations=400)
    while len(path.wanted):
        path.add(None, (path.wanted == 0).double()[:, None])
    assert 2.0**-32 < path.alphas.diff().min() < 2.0**-28


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


@pytest.mark.parametrize(("bump", "plausible"), [(0.05, True), (0.2, False)])
def test_no_error_is_believed_while_the_potential_shows_much_to_be_missed(bump, plausible):
    """A smooth integrand and a bump between two nodes, which has 5 or 17 % of all changes."""
    path = bisect(columns(torch.ones_like), 1, lambda x: x + bump * (x > 0.31))
    assert path.smooth
    assert path.error.sum() < 0.5 * path.value.sum()
    assert path.is_plausible() == plausible


def test_an_error_as_large_as_the_integral_is_not_believed():
    """A peak at the start whose components cancel in the potential, which then shows nothing."""
    path = bisect(lambda x: torch.stack([1e4 * (x == 0), 1 - 1e4 * (x == 0)], 1), 5, lambda x: x)
    assert path.missed.sum() < 1e-9
    assert not path.is_plausible()


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
