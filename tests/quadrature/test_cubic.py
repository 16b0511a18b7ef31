"""The monotone cubic: its slopes and its integral by definition."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from rounds import bisect, columns

from segattr.quadrature.cubic import corrections, monotone_slopes, parabolic_slopes, trapezoids

UNEQUAL = torch.tensor([0.0, 0.1, 0.3, 0.35, 1.0], dtype=torch.float64)


def secants(values):
    """Of values at these nodes: the widths of the intervals, and the slopes of the lines."""
    widths = UNEQUAL.diff()[:, None]
    return widths, values.diff(dim=0) / widths


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


def test_parabolic_slopes_are_exact_for_parabolas():
    x = UNEQUAL
    values = torch.stack([x**2, 3 - x + 2 * x**2], 1)
    slopes = parabolic_slopes(*secants(values))
    torch.testing.assert_close(slopes, torch.stack([2 * x, 4 * x - 1], 1))


def test_slopes_of_unequal_intervals_are_those_of_the_definition():
    values = torch.randn(len(UNEQUAL), 40, generator=torch.Generator().manual_seed(0)).double()
    slopes = monotone_slopes(*secants(values))
    expected = [
        [slope_by_definition(UNEQUAL.tolist(), column.tolist(), k) for k in range(len(UNEQUAL))]
        for column in values.T
    ]
    torch.testing.assert_close(slopes, torch.tensor(expected).double().T)


def test_monotone_slopes_are_0_at_extrema_and_where_nothing_changes():
    values = torch.tensor([0.0, 2.0, 1.0, 1.0, 3.0]).double()[:, None]
    slopes = monotone_slopes(*secants(values)).flatten()
    assert (slopes == 0).tolist() == [False, True, True, True, False]


def test_monotone_slopes_keep_every_cubic_within_the_range_of_its_nodes():
    """No steeper than three times either secant, and of its sign: Fritsch & Carlson, 1980."""
    values = torch.randn(len(UNEQUAL), 400, generator=torch.Generator().manual_seed(1)).double()
    widths, steepness = secants(values)
    slopes = monotone_slopes(widths, steepness)
    for at_nodes in (slopes[:-1], slopes[1:]):
        shares = at_nodes / steepness
        assert 0 <= shares.min() <= shares.max() <= 3 + 1e-12


@pytest.mark.parametrize("slopes", [monotone_slopes, parabolic_slopes])
def test_lines_are_integrated_exactly_without_corrections(slopes):
    values = torch.stack([3 - 2 * UNEQUAL, torch.ones_like(UNEQUAL)], 1)
    widths, steepness = secants(values)
    added = corrections(widths, slopes(widths, steepness))
    torch.testing.assert_close(added, torch.zeros_like(added), rtol=0, atol=1e-15)
    torch.testing.assert_close(trapezoids(widths, values).sum(0), torch.tensor([2.0, 1.0]).double())


def test_parabolas_are_integrated_exactly_with_the_slopes_of_parabolas():
    values = torch.stack([UNEQUAL**2, 3 - UNEQUAL + 2 * UNEQUAL**2], 1)
    widths, steepness = secants(values)
    found = trapezoids(widths, values) + corrections(widths, parabolic_slopes(widths, steepness))
    antiderivatives = [UNEQUAL**3 / 3, 3 * UNEQUAL - UNEQUAL**2 / 2 + 2 * UNEQUAL**3 / 3]
    torch.testing.assert_close(found, torch.stack(antiderivatives, 1).diff(dim=0))
