"""Rules fitted to a model: files, refusals, and what FastIG does with them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from tiny import make_trace

from segattr import FastIG, Rule
from segattr.engine.fingerprint import fingerprint
from segattr.ig import Adaptive
from segattr.ig.rules import AGREEMENT
from segattr.quadrature.fixed import nodes_and_weights
from segattr.quadrature.refinement import MAX_EVALUATIONS

pytestmark = pytest.mark.usefixtures("exact_norms")
ALL = {"scope": "all"}


def make_rule(model, points=8, **changes):
    """Gauss-Legendre under another name."""
    rule = Rule(
        *nodes_and_weights("gauss-legendre", points), fingerprint(model), "token 0", "all", 1.0
    )
    return replace(rule, **changes)


def test_a_rule_is_the_points_and_weights_it_says(model, trace):
    got = FastIG(model, rule=make_rule(model), **ALL).attribute(trace)
    expected = FastIG(model, rule="gauss-legendre", steps=8, **ALL).attribute(trace)
    torch.testing.assert_close(got.token_scores, expected.token_scores)
    assert got.completeness_gap == pytest.approx(expected.completeness_gap)
    assert (got.evaluations, got.settings["rule"]) == (8, "fitted")
    assert got.settings["steps"] == 8


def test_a_trace_unlike_those_of_the_validation_is_refined(model, trace):
    own = FastIG(model, rule=make_rule(model), **ALL).attribute(trace)
    strict = make_rule(model, largest_gap=own.completeness_gap * 0.99)
    got = FastIG(model, rule=strict, **ALL).attribute(trace)
    auto = FastIG(model, rule="auto", **ALL).attribute(trace)
    assert torch.equal(got.token_scores, auto.token_scores)
    assert got.evaluations == auto.evaluations + 8
    assert (got.settings["rule"], got.settings["gave_way"]) == ("auto", "fitted")
    assert got.settings["steps"] == 8
    assert got.settings["max_evaluations"] == MAX_EVALUATIONS
    assert got.settings["agreement"] == AGREEMENT
    assert auto.settings["gave_way"] is None
    lax = make_rule(model, largest_gap=own.completeness_gap * 1.01)
    assert FastIG(model, rule=lax, **ALL).attribute(trace).settings["rule"] == "fitted"


def test_what_it_gives_way_to_can_be_set(model, trace):
    """In the rule, or with the words of FastIG, which then come first."""
    for settings in (
        {"rule": make_rule(model, largest_gap=0.0, otherwise=Adaptive(max_evaluations=12))},
        {"rule": make_rule(model, largest_gap=0.0), "max_evaluations": 12},
        {"rule": make_rule(model, largest_gap=0.0), "max_evaluations": 12, "agreement": 1},
    ):
        got = FastIG(model, **settings, **ALL).attribute(trace)
        assert got.settings["max_evaluations"] == 12
        assert got.settings["agreement"] == settings.get("agreement", AGREEMENT)
        assert got.evaluations <= 8 + 12
        limits = {"max_evaluations": 12, "agreement": settings.get("agreement")}
        auto = FastIG(model, rule="auto", **limits, **ALL)
        assert torch.equal(got.token_scores, auto.attribute(trace).token_scores)


def test_a_rule_says_what_it_is(model):
    rule = make_rule(model)
    assert str(rule) == "fitted, 8 points"
    assert rule.cost == (
        f"8 gradient evaluations a trace; where it gives way, 9 to {MAX_EVALUATIONS} gradient "
        "evaluations more"
    )
    assert rule.scorer == Adaptive().scorer


def test_a_saved_rule_comes_back_whole(model, tmp_path):
    rule = make_rule(model, validation={"traces": 3, "worst_error": 0.25})
    rule.save(tmp_path / "rule.json")
    loaded = Rule.load(tmp_path / "rule.json")
    assert torch.equal(loaded.alphas, rule.alphas)
    assert torch.equal(loaded.weights, rule.weights)
    for name in ("fingerprint", "baseline", "scope", "largest_gap", "validation"):
        assert getattr(loaded, name) == getattr(rule, name)


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        ({"fingerprint": "0" * 16}, {}, "to this model, got one for 0000000000000000"),
        ({}, {"baseline": "mean"}, "to this baseline, got one for token 0 instead of mean"),
        ({}, {"baseline": 7}, "to this baseline, got one for token 0 instead of token 7"),
        ({}, {"scope": "reasoning"}, "to this scope, got one for all instead of reasoning"),
    ],
)
def test_a_rule_for_something_else_is_refused(model, change, settings, message):
    with pytest.raises(ValueError, match=f"must have been fitted {message}.*segattr calibrate"):
        FastIG(model, rule=make_rule(model, **change), **{**ALL, **settings})


def test_the_scope_that_a_rule_was_fitted_to_is_said(model):
    """The default is another than that of older rules."""
    with pytest.raises(ValueError, match="Pass scope='all', or fit another with fit_rule or"):
        FastIG(model, rule=make_rule(model))


def test_what_does_not_go_with_a_rule(model, tmp_path):
    with pytest.raises(ValueError, match="steps must be None with a fitted rule, got 5"):
        FastIG(model, rule=make_rule(model), steps=5)
    with pytest.raises(TypeError, match=r"rule must be a name or a Rule, got .*Rule\.load"):
        FastIG(model, rule=tmp_path / "rule.json")
    named = FastIG(model, rule=make_rule(model), baseline=0, **ALL)
    assert named.baseline.token_id == 0  # the pad token


def damaged(**changes):
    def damage(facts):
        return json.dumps({**facts, **changes})

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        lambda facts: json.dumps(facts)[:50],
        lambda facts: "[]",
        lambda facts: json.dumps({k: v for k, v in facts.items() if k != "weights"}),
        damaged(format="segattr rule 99"),
        damaged(weights=[0.5]),
        damaged(weights=[-0.1] * 8),
        damaged(weights=[float("nan")] * 8),
        damaged(alphas=[0.5] * 8),
        damaged(alphas=[i / 4 for i in range(8)]),
        damaged(alphas=[], weights=[]),
        damaged(alphas="all"),
        lambda facts: "[" * 100_000,
        damaged(largest_gap="wide"),
        damaged(largest_gap=float("inf")),
        damaged(largest_gap=-0.1),
        damaged(validation=5),
        damaged(fingerprint=None),
        damaged(surprise=1),
        damaged(otherwise={"max_evaluations": 9}),
    ],
)
def test_damaged_files_are_refused(model, tmp_path, damage):
    path = tmp_path / "rule.json"
    make_rule(model).save(path)
    facts = json.loads(path.read_text())
    path.write_text(damage(facts))
    with pytest.raises(ValueError, match="must hold a rule that segattr wrote, got something"):
        Rule.load(path)


def test_the_gap_is_measured_at_both_ends(model):
    """None of the rule's points is an end of the path: two forward passes tell."""
    trace = make_trace(num_targets=1, tail=0)
    got = FastIG(model, rule=make_rule(model), **ALL).attribute(trace)
    ends = FastIG(model, rule="trapezoid", steps=2, **ALL).attribute(trace)
    assert got.target_logprob == pytest.approx(ends.target_logprob, rel=1e-12)
    assert got.baseline_logprob == pytest.approx(ends.baseline_logprob, rel=1e-12)
