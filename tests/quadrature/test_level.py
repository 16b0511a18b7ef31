"""The level: its doubts, and what two of them tell about the integrand."""

from __future__ import annotations

import pytest
import torch

from segattr.quadrature.level import Level, better_of, is_smooth


def levels(*functions, nodes=9):
    """The levels of every other node and of all nodes, and the values there."""
    alphas = torch.linspace(0, 1, nodes, dtype=torch.float64)
    values = torch.stack([function(alphas) for function in functions], 1)
    return Level.through(alphas[::2], values[::2]), Level.through(alphas, values), values


def test_a_lone_peak_has_doubts_without_corrections():
    _, now, _ = levels(lambda x: (x == 0.5).double())
    assert not now.corrections.any()
    assert now.doubts[2:6].all()
    assert torch.equal(now.cubics, now.trapezoids)


def test_doubts_fall_with_the_cube_of_the_width():
    """Where slopes change, as the error of a trapezoid does."""
    coarse, fine, _ = levels(torch.exp, nodes=65)
    assert (coarse.doubts[16] / fine.doubts[32]).item() == pytest.approx(8, rel=0.1)


@pytest.mark.parametrize(
    ("function", "smooth"),
    [
        (torch.exp, True),
        (lambda x: torch.cos(40 * x), False),
        (lambda x: torch.exp(-(((x - 0.4) / 0.14) ** 2)), True),  # the trapezoids move by 7 %
        (lambda x: torch.exp(-(((x - 0.4) / 0.12) ** 2)), False),  # by 17 %
        (lambda x: (x > 0.013).double(), False),  # the trapezoids hardly move
        (torch.ones_like, True),
        (torch.zeros_like, True),
    ],
)
def test_what_is_smooth_hardly_moves_and_changes_in_more_than_one_interval(function, smooth):
    assert is_smooth(*levels(function)) == smooth


def test_trapezoids_are_better_for_a_function_that_is_flat_at_both_ends():
    """Which shows in that they moved less."""
    before, now, _ = levels(lambda x: torch.sin(torch.pi * x) ** 2)
    assert better_of(before, now) is now.trapezoids
    before, now, _ = levels(torch.exp)
    assert torch.equal(better_of(before, now), now.cubics)
