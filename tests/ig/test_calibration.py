"""Fitting rules: optimal where that is known, judged on traces that were held out."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
from tiny import make_trace

from segattr import EncodedTrace, FastIG, SegmentScorer, fit_rule
from segattr.ig.calibration import (
    GRID,
    Sampled,
    _exchange,
    _fit,
    _greedy,
    _loss,
    _normal_equations,
    _weights,
    fit_sampled,
    sample_trace,
)

pytestmark = pytest.mark.usefixtures("exact_norms")
GRID_ALPHAS = torch.linspace(0, 1, GRID, dtype=torch.float64)


def auto(model, **settings):
    return FastIG(model, rule="auto", scope="all", **settings)


def polynomials(seed, degree):
    """A pretended trace whose integrands are random polynomials."""
    generator = torch.Generator().manual_seed(seed)
    factors = torch.randn(degree + 1, 37, generator=generator).double()
    powers = torch.arange(degree + 1)
    values = (GRID_ALPHAS[:, None] ** powers) @ factors
    reference = (1 / (powers + 1).double()) @ factors
    return Sampled(make_trace(), values, reference, float(reference.sum()))


def test_linear_integrands_need_one_point_in_the_middle(model):
    rule = fit_sampled(auto(model), [polynomials(seed, 1) for seed in range(8)], 1)
    assert rule.alphas.tolist() == [0.5]
    assert rule.weights.item() == pytest.approx(1, abs=1e-6)
    assert rule.largest_gap < 1e-6
    assert rule.validation["worst_error"] < 1e-6
    assert rule.validation["kept_agreement"] == 1
    assert rule.validation["traces"] == 2


def test_cubics_need_two_points_near_those_of_gauss(model):
    rule = fit_sampled(auto(model), [polynomials(seed, 3) for seed in range(12)], 2)
    assert rule.alphas.tolist() == pytest.approx([0.2113, 0.7887], abs=1 / (GRID - 1))
    assert rule.weights.tolist() == pytest.approx([0.5, 0.5], abs=0.02)


def test_points_ascend(model):
    for points in (3, 7):
        rule = fit_sampled(auto(model), [polynomials(seed, 9) for seed in range(8)], points)
        assert len(rule.alphas) == points
        assert all(a < b for a, b in itertools.pairwise(rule.alphas.tolist()))


def test_weights_are_the_best_of_those_that_are_not_negative():
    """Karush-Kuhn-Tucker: no slope where a weight is used, none downwards where it is 0."""
    pruned = 0
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        factors = torch.randn(5, 8, generator=generator).double()
        gram, target = factors @ factors.T, torch.randn(5, generator=generator).double()
        chosen = [0, 2, 3, 4]
        weights = _weights(gram, target, chosen)
        slope = (gram[chosen][:, chosen] @ weights - target[chosen]) / gram.diagonal().mean()
        assert (weights >= 0).all()
        assert slope[weights > 0].abs().max() < 1e-8
        pruned += int((weights == 0).sum())
    assert pruned >= 10
    gram, target = torch.tensor([[2.0, 1], [1, 2]]).double(), torch.tensor([3.0, -1]).double()
    only = _weights(gram, target, [0, 1])
    assert only.tolist() == pytest.approx([1.5, 0])


def test_points_are_chosen_one_by_one_and_exchanged():
    gram, target = _normal_equations([polynomials(seed, 3) for seed in range(12)])
    (first,) = _greedy(gram, target, 1)
    assert _loss(gram, target, [first]) == min(_loss(gram, target, [c]) for c in range(GRID))
    poor = _loss(gram, target, [1, 2])
    one, other = exchanged = _exchange(gram, target, [1, 2])
    best = _loss(gram, target, exchanged)
    assert 12 + best < 0.01 * (12 + poor)  # the sum of 12 relative squares
    chosen, weights = _fit([polynomials(seed, 3) for seed in range(12)], 2)
    assert _loss(gram, target, chosen.tolist()) <= best
    assert torch.equal(weights, _weights(gram, target, chosen.tolist()))
    for c in set(range(GRID)) - {one, other}:  # nothing better in either place
        assert min(_loss(gram, target, [c, other]), _loss(gram, target, [one, c])) >= best


def peaked(place, seed):
    """A pretended trace whose integrands have a peak at this grid point and little elsewhere."""
    values = 1e-6 * torch.randn(GRID, 37, generator=torch.Generator().manual_seed(99)).double()
    values[place] = torch.randn(37, generator=torch.Generator().manual_seed(seed)).double()
    return Sampled(make_trace(), values, values[place] / 64, float(values[place].sum() / 64))


def test_held_out_traces_are_not_fitted(model):
    """The last quarter has its peaks elsewhere: two points would do if they were looked at."""
    sampled = [*(peaked(16, seed) for seed in range(6)), *(peaked(48, seed) for seed in (6, 7))]
    rule = fit_sampled(auto(model), sampled, 2)
    assert rule.validation["worst_error"] == pytest.approx(1, abs=1e-3)
    assert rule.largest_gap == pytest.approx(1, abs=1e-3)
    both = fit_sampled(auto(model), [*sampled, peaked(16, 8), peaked(48, 9)], 2, held_out=0.2)
    assert both.validation["worst_error"] < 1e-3


def test_the_largest_gap_is_that_of_the_held_out_traces(model):
    sampled = [polynomials(seed, 5) for seed in range(8)]
    rule = fit_sampled(auto(model), sampled, 2)
    places = (rule.alphas * (GRID - 1)).round().long()
    gaps = [
        abs(float((rule.weights @ trace.values[places]).sum()) - trace.change) / abs(trace.change)
        for trace in sampled[-2:]
    ]
    assert rule.largest_gap == pytest.approx(max(gaps))
    assert 0 < rule.largest_gap < 1
    still = dataclasses.replace(sampled[-1], change=1e-9)  # F hardly changes: any gap is huge
    assert fit_sampled(auto(model), [*sampled[:-1], still], 2).largest_gap == 1


def test_agreement_is_that_of_the_scorer_of_the_ig(model):
    sampled = [*(peaked(16, seed) for seed in range(6)), *(peaked(48, seed) for seed in (6, 7))]
    scorer = SegmentScorer(tau=1.0, beta=1.0)
    everything = auto(model, scorer=scorer)
    fixed = FastIG(model, rule="midpoint", steps=3, scope="all", scorer=scorer)
    noise = 1e-3 * polynomials(9, 2).values
    mixed = [dataclasses.replace(trace, values=trace.values + noise) for trace in sampled]
    for ig in (everything, fixed):
        assert fit_sampled(ig, mixed, 2).validation["kept_agreement"] == 1
    assert fit_sampled(auto(model), mixed, 2).validation["kept_agreement"] < 1


def test_more_points_fit_better(model):
    sampled = [polynomials(seed, 12) for seed in range(12)]
    errors = [
        fit_sampled(auto(model), sampled, points).validation["median_error"] for points in (2, 4, 6)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] / 5


def test_a_rule_fits_the_model_it_was_fitted_to(model):
    ig = auto(model)
    rule = fit_rule(ig, [make_trace(seed=seed) for seed in range(8)], points=6)
    assert len(rule.alphas) == 6
    fresh = make_trace(seed=99)
    fitted = FastIG(model, rule=rule, scope="all")
    got = fitted.attribute(fresh)
    exact, midpoint = (
        FastIG(model, rule=name, steps=steps, scope="all").attribute(fresh).token_scores
        for name, steps in (("gauss-legendre", 60), ("midpoint", 6))
    )
    assert (got.token_scores - exact).norm() < (midpoint - exact).norm()


def test_a_sampled_trace_has_the_grid_and_a_converged_reference(model, trace):
    sampled = sample_trace(auto(model), trace)
    logprobs, values = auto(model).integrand(trace, GRID_ALPHAS)
    torch.testing.assert_close(sampled.values, values, rtol=1e-9, atol=1e-12)
    assert sampled.change == pytest.approx(float(logprobs[-1] - logprobs[0]))
    exact = FastIG(model, rule="gauss-legendre", steps=60, scope="all")
    exact = exact.attribute(trace).token_scores
    assert (sampled.reference - exact).norm() < 0.01 * exact.norm()


def test_traces_that_do_not_converge_are_left_out(model):
    """With a baseline of zeros, no grid resolves the start of the path."""
    traces = [make_trace(seed=seed) for seed in range(4)]
    with (
        pytest.warns(UserWarning, match="4 traces are left out: 0: the integral must converge"),
        pytest.raises(ValueError, match="at least 4 that converge, got 0"),
    ):
        fit_rule(auto(model, baseline="zero"), traces)


def test_a_trace_that_cannot_be_attributed_is_left_out_and_named(model):
    """Too long for the model; or without any attribution, being all pad tokens."""
    traces = [make_trace(seed=seed) for seed in range(5)]
    long = EncodedTrace(torch.full((135,), 3), (0, 5), [(5, 120)], (130, 134), id="long")
    still = dataclasses.replace(
        traces[0], input_ids=torch.zeros_like(traces[0].input_ids), id="still"
    )
    with pytest.warns(UserWarning, match="2 traces are left out: long: .*7 too many.*; still: the"):
        rule = fit_rule(auto(model), [*traces, long, still], points=2)
    assert rule.weights.isfinite().all()
    assert rule.validation["traces"] == 1


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
        fit_rule(auto(model), [make_trace(seed=seed) for seed in range(3)], **settings)
