"""The error model: what it learns from rounds, and what the potential adds."""

from __future__ import annotations

import math

import pytest
import torch
from rounds import bisect

from segattr.quadrature.errors import (
    DEVIATIONS,
    FASTEST,
    LEAST_LEFT,
    ROUNDINGS,
    SAFETY,
    TELLING,
    ErrorModel,
    admit_gap,
    missed,
)
from segattr.quadrature.level import Level
from segattr.quadrature.refinement import Refinement, refine


def column(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)[:, None]


def level(trapezoids, doubts, corrections=None):
    corrections = torch.zeros_like(trapezoids) if corrections is None else corrections
    return Level(trapezoids, corrections, doubts)


def round_of(*moves, doubts):
    """What `after` takes of a round without noise that bisected an interval for each move."""
    before = level(torch.ones(len(doubts), 1).double(), column(*doubts))
    halves = [half for move in moves for half in (0.5, 0.5 + move)]
    whole = [1.0] * (len(doubts) - len(moves))
    known = [True, *[False, True] * len(moves), *[True] * len(whole)]
    parts = column(*halves, *whole)
    return before, level(parts, parts), torch.tensor(known), torch.zeros_like(parts)


def test_the_ratio_is_how_far_integrals_moved_over_what_was_in_doubt():
    """Corrections are part of the integrals, and intervals that were not bisected are left out."""
    learnt = ErrorModel().after(*round_of(0.3, -0.1, doubts=(0.2, 0.6, 5.0)))
    assert learnt.ratio == pytest.approx(0.4 / 0.8)
    before = level(column(1.0, 2.0), column(0.5, 0.5), corrections=column(0.25, 0.0))
    now = level(column(0.5, 0.5, 2.0), column(0.0, 0.0, 0.0), corrections=column(0.0, 0.5, 0.0))
    known = torch.tensor([True, False, True, True])
    learnt = ErrorModel().after(before, now, known, torch.zeros(3, 1).double())
    assert learnt.ratio == pytest.approx(0.25 / 0.5)


@pytest.mark.parametrize(
    ("moves", "left"), [((0.3, 0.1), 1.0), ((0.3, -0.1), 0.5), ((0.1, -0.1), 0.0)]
)
def test_left_is_what_moves_leave_of_each_other(moves, left):
    assert ErrorModel().after(*round_of(*moves, doubts=(1.0, 1.0))).left == pytest.approx(left)


def test_one_round_lowers_the_ratio_by_a_limited_factor():
    assert ErrorModel(ratio=2.0).after(*round_of(0.0, doubts=(1.0,))).ratio == 2 / FASTEST
    assert ErrorModel(ratio=2.0).after(*round_of(0.9, doubts=(1.0,))).ratio == pytest.approx(0.9)
    assert ErrorModel(ratio=2.0).after(*round_of(9.0, doubts=(1.0,))).ratio == pytest.approx(9)


def test_bisecting_what_was_hardly_in_doubt_does_not_lower_the_ratio():
    hardly = TELLING / 2
    learnt = ErrorModel(ratio=2.0).after(*round_of(0.0, doubts=(hardly, 1 - hardly)))
    assert learnt.ratio == 2.0


def test_moves_and_doubts_of_rounding_give_no_ratio():
    """Over a straight line: nothing is in doubt, and integrals move by roundings."""
    assert ErrorModel().after(*round_of(1e-12, doubts=(1e-13,))).ratio < 1e-5
    assert ErrorModel().after(*round_of(0.0, doubts=(0.0,))).ratio == 0.0


def test_errors_are_doubts_in_proportion_and_at_least_what_is_missed():
    doubts = torch.tensor([[0.1, -0.3], [0.1, -0.3], [0.0, 0.0]]).double()
    missing = torch.tensor([0.5, 1.6, 0.4]).double()
    found = ErrorModel(ratio=2.0).errors(doubts, missing, torch.zeros_like(doubts))
    expected = torch.tensor([[0.2, -0.6], [0.4, -1.2], [0.2, 0.2]]).double()
    torch.testing.assert_close(found, expected)


def test_what_cancelled_cancels_again_up_to_a_limit():
    errors = column(0.5, -0.25)
    torch.testing.assert_close(ErrorModel(left=0.5).cancelled(errors), errors / 2)
    torch.testing.assert_close(ErrorModel(left=0.0).cancelled(errors), errors * LEAST_LEFT)


def test_integrals_miss_what_the_potential_has_beyond_its_rounding():
    potentials = torch.tensor([-4.0, -3.0, -1.0]).double()
    integrals = torch.tensor([[0.5, 0.5], [0.5, 1.0]]).double()
    quiet, noisy = torch.zeros(2).double(), torch.tensor([0.1, 0.02]).double()
    for resolution, noise, expected in (
        (0.0, quiet, 0.5),
        (0.01, quiet, 0.5 - ROUNDINGS * 0.04),
        (0.0, noisy, 0.5 - DEVIATIONS * 0.02),
    ):
        off = missed(potentials, integrals, resolution, noise)
        torch.testing.assert_close(off, torch.tensor([0, expected]).double())
    assert torch.equal(missed(None, integrals, 0.0, quiet), quiet)


def test_errors_are_raised_to_the_gap_and_never_lowered():
    errors = torch.tensor([[0.1, -0.1], [0.2, 0.1]]).double()
    potentials = torch.tensor([0.0, 0.7, 3.0]).double()
    quiet, noisy = torch.zeros(()).double(), torch.tensor(0.5).double()
    for value, noise, factor in ((1.0, quiet, 4.0), (3.0, quiet, 1.0), (1.0, noisy, 2.0)):
        half = torch.tensor([value / 2, value / 2]).double()
        admitted = admit_gap(errors, potentials, half, 0.0, noise)
        torch.testing.assert_close(admitted, factor * errors)
    assert torch.equal(admit_gap(errors, None, half, 0.0, quiet), errors)


def test_what_f_shows_to_be_missing_is_never_scaled_away():
    """A smooth integrand and a bump between two nodes, which only the potential shows."""

    def potential(x):
        return 0.05 * torch.special.ndtr((x - 0.31) / 1e-3) + x + x**2 / 2

    path = bisect(lambda x: torch.stack([1 + x / 2, x / 2], 1), 1, potential)
    assert path.smooth
    assert path.error.sum() >= 0.05 * SAFETY * 0.999


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


def test_what_is_missed_altogether_is_still_an_error():
    """Values of zero have no shape to follow; the error goes to all components evenly."""
    path = bisect(lambda x: torch.zeros(len(x), 4), 1, lambda x: (x > 0.9).double())
    torch.testing.assert_close(path.error, torch.full((4,), SAFETY / 4).double())
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
