"""Fitting rules: optimal where that is known, judged on traces that were held out."""

from __future__ import annotations

import itertools

import pytest
import torch
from conftest import make_trace

from segattr import FastIG, fit_rule
from segattr.calibration import GRID, Sampled, fit_sampled, sample_trace

pytestmark = pytest.mark.usefixtures("exact_norms")
GRID_ALPHAS = torch.linspace(0, 1, GRID, dtype=torch.float64)


def polynomials(seed, degree):
    """A pretended trace whose integrands are random polynomials."""
    generator = torch.Generator().manual_seed(seed)
    factors = torch.randn(degree + 1, 37, generator=generator).double()
    powers = torch.arange(degree + 1)
    values = (GRID_ALPHAS[:, None] ** powers) @ factors
    reference = (1 / (powers + 1).double()) @ factors
    return Sampled(make_trace(), values, reference, float(reference.sum()))


def test_linear_integrands_need_one_point_in_the_middle(model):
    rule = fit_sampled(FastIG(model), [polynomials(seed, 1) for seed in range(8)], 1)
    assert rule.alphas.tolist() == [0.5]
    assert rule.weights.item() == pytest.approx(1, abs=1e-6)
    assert rule.largest_gap < 1e-6
    assert rule.validation["worst_error"] < 1e-6
    assert rule.validation["kept_agreement"] == 1
    assert rule.validation["traces"] == 2


def test_cubics_need_two_points_near_those_of_gauss(model):
    rule = fit_sampled(FastIG(model), [polynomials(seed, 3) for seed in range(12)], 2)
    assert rule.alphas.tolist() == pytest.approx([0.2113, 0.7887], abs=1 / (GRID - 1))
    assert rule.weights.tolist() == pytest.approx([0.5, 0.5], abs=0.02)


def test_weights_are_never_negative_and_points_ascend(model):
    for points in (3, 7):
        rule = fit_sampled(FastIG(model), [polynomials(seed, 9) for seed in range(8)], points)
        assert len(rule.alphas) == points
        assert (rule.weights >= 0).all()
        assert all(a < b for a, b in itertools.pairwise(rule.alphas.tolist()))


def test_more_points_fit_better(model):
    sampled = [polynomials(seed, 12) for seed in range(12)]
    errors = [
        fit_sampled(FastIG(model), sampled, points).validation["median_error"]
        for points in (2, 4, 6)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] / 5


def test_a_rule_fits_the_model_it_was_fitted_to(model):
    ig = FastIG(model)
    rule = fit_rule(ig, [make_trace(seed=seed) for seed in range(8)], points=6)
    assert len(rule.alphas) == 6
    fresh = make_trace(seed=99)
    fitted = FastIG(model, rule=rule)
    got = fitted.attribute(fresh)
    exact = FastIG(model, rule="gauss-legendre", steps=60).attribute(fresh).token_scores
    midpoint = FastIG(model, rule="midpoint", steps=6).attribute(fresh).token_scores
    assert (got.token_scores - exact).norm() < (midpoint - exact).norm()


def test_a_sampled_trace_has_the_grid_and_a_converged_reference(model, trace):
    sampled = sample_trace(FastIG(model), trace)
    logprobs, values = FastIG(model).integrand(trace, GRID_ALPHAS)
    torch.testing.assert_close(sampled.values, values, rtol=1e-9, atol=1e-12)
    assert sampled.change == pytest.approx(float(logprobs[-1] - logprobs[0]))
    exact = FastIG(model, rule="gauss-legendre", steps=60).attribute(trace).token_scores
    assert (sampled.reference - exact).norm() < 0.01 * exact.norm()


def test_traces_that_do_not_converge_are_left_out(model):
    """With a baseline of zeros, no grid resolves the start of the path."""
    traces = [make_trace(seed=seed) for seed in range(4)]
    with (
        pytest.warns(UserWarning, match="4 of 4 traces are left out"),
        pytest.raises(ValueError, match="at least 4 that converge, got 0"),
    ):
        fit_rule(FastIG(model, baseline="zero"), traces)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"points": 0}, r"points must be in 1\.\.65, got 0"),
        ({"points": 66}, r"points must be in 1\.\.65, got 66"),
        ({"held_out": 0.0}, r"held_out must be in \(0, 1\), got 0.0"),
        ({"held_out": 1.0}, "held_out must be in"),
        ({}, "traces must be at least 4 that converge, got 3"),
    ],
)
def test_bad_arguments(model, settings, message):
    with pytest.raises(ValueError, match=message):
        fit_rule(FastIG(model), [make_trace(seed=seed) for seed in range(3)], **settings)
