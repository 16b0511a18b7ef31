"""Every rule on integrals that are known."""

from __future__ import annotations

import math

import pytest
import torch

from segattr.quadrature import RULES, nodes_and_weights


def integrate(f, rule, points):
    alphas, weights = nodes_and_weights(rule, points)
    return float((weights * f(alphas)).sum())


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("points", [2, 3, 50])
def test_weights_sum_to_one_and_points_ascend(rule, points):
    alphas, weights = nodes_and_weights(rule, points)
    assert alphas.dtype == weights.dtype == torch.float64
    assert len(alphas) == len(weights) == points
    assert weights.sum().item() == pytest.approx(1, abs=1e-14)
    assert (alphas.diff() > 0).all()
    assert 0 <= alphas[0] <= alphas[-1] <= 1


def test_points_are_those_of_the_paper_and_of_its_code():
    torch.testing.assert_close(
        nodes_and_weights("riemann", 4)[0], torch.tensor([0.25, 0.5, 0.75, 1.0]).double()
    )
    torch.testing.assert_close(
        nodes_and_weights("linspace", 5)[0], torch.linspace(0, 1, 5).double()
    )
    torch.testing.assert_close(nodes_and_weights("linspace", 5)[1], torch.full((5,), 0.2).double())


@pytest.mark.parametrize(
    ("rule", "order"), [("riemann", 1), ("linspace", 1), ("midpoint", 2), ("trapezoid", 2)]
)
def test_error_falls_with_the_order_of_the_rule(rule, order):
    exact = (math.exp(3) - 1) / 3
    coarse, fine = (abs(integrate(lambda a: (3 * a).exp(), rule, n) - exact) for n in (40, 80))
    assert coarse / fine == pytest.approx(2**order, rel=0.1)


def test_gauss_legendre_is_exact_for_polynomials():
    assert integrate(lambda a: 10 * a**9, "gauss-legendre", 5) == pytest.approx(1, abs=1e-14)


@pytest.mark.parametrize(("rule", "points"), [("linspace", 1), ("trapezoid", 1), ("midpoint", 0)])
def test_too_few_points(rule, points):
    with pytest.raises(ValueError, match=f"{rule} needs at least"):
        nodes_and_weights(rule, points)
