"""The rules with a fixed number of nodes, on integrals that are known."""

from __future__ import annotations

import math

import pytest
import torch

from segattr import integrate
from segattr.quadrature.fixed import RULES, nodes_and_weights


def value(function, rule, points):
    found = integrate(lambda x: function(torch.tensor(x, dtype=torch.float64)), rule, points=points)
    assert (found.error, found.converged, found.evaluations) == (None, None, points)
    return found.value.item()


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
    coarse, fine = (abs(value(lambda a: (3 * a).exp(), rule, n) - exact) for n in (40, 80))
    assert coarse / fine == pytest.approx(2**order, rel=0.1)


def test_gauss_legendre_is_exact_for_polynomials():
    assert value(lambda a: 10 * a**9, "gauss-legendre", 5) == pytest.approx(1, abs=1e-13)


@pytest.mark.parametrize(("rule", "points"), [("linspace", 1), ("trapezoid", 1), ("midpoint", 0)])
def test_too_few_points(rule, points):
    with pytest.raises(ValueError, match=f"{rule} needs at least"):
        nodes_and_weights(rule, points)


@pytest.mark.parametrize(
    ("rule", "bias"),
    [
        ("riemann", lambda g, _: (g(1) - g(0)) / 2),
        ("linspace", lambda g, exact: (g(0) + g(1)) / 2 - exact),
    ],
)
def test_the_biases_of_first_order_rules(rule, bias):
    """To first order in 1 / K, as `nodes_and_weights` says."""
    exact = (math.exp(3) - 1) / 3
    off = value(lambda a: (3 * a).exp(), rule, 1000) - exact
    assert 1000 * off == pytest.approx(bias(lambda x: math.exp(3 * x), exact), rel=0.01)
