"""Rules fitted to a model: files, refusals, and what FastIG does with them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from tiny import make_model, make_trace

from segattr import FastIG, Rule
from segattr.ig.rules import describe_baseline, fingerprint
from segattr.quadrature.fixed import nodes_and_weights

pytestmark = pytest.mark.usefixtures("exact_norms")


def make_rule(model, points=8, **changes):
    """Gauss-Legendre under another name."""
    rule = Rule(
        *nodes_and_weights("gauss-legendre", points), fingerprint(model), "token 0", "all", 1.0
    )
    return replace(rule, **changes)


def test_a_rule_is_the_points_and_weights_it_says(model, trace):
    got = FastIG(model, rule=make_rule(model)).attribute(trace)
    expected = FastIG(model, rule="gauss-legendre", steps=8).attribute(trace)
    torch.testing.assert_close(got.token_scores, expected.token_scores)
    assert got.completeness_gap == pytest.approx(expected.completeness_gap)
    assert (got.evaluations, got.settings["rule"]) == (8, "calibrated")
    assert got.settings["steps"] == 8


def test_a_trace_unlike_those_of_the_validation_is_refined(model, trace):
    own = FastIG(model, rule=make_rule(model)).attribute(trace)
    strict = make_rule(model, largest_gap=own.completeness_gap * 0.99)
    got = FastIG(model, rule=strict).attribute(trace)
    auto = FastIG(model).attribute(trace)
    assert torch.equal(got.token_scores, auto.token_scores)
    assert got.evaluations == auto.evaluations + 8
    assert got.settings["rule"] == "auto"
    lax = make_rule(model, largest_gap=own.completeness_gap * 1.01)
    assert FastIG(model, rule=lax).attribute(trace).settings["rule"] == "calibrated"


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
        FastIG(model, rule=make_rule(model, **change), **settings)


def test_what_does_not_go_with_a_rule(model, tmp_path):
    with pytest.raises(ValueError, match="steps must be None with a fitted rule, got 5"):
        FastIG(model, rule=make_rule(model), steps=5)
    with pytest.raises(TypeError, match=r"rule must be a name or a Rule, got .*Rule\.load"):
        FastIG(model, rule=tmp_path / "rule.json")
    assert FastIG(model, rule=make_rule(model), baseline=0).baseline == 0  # the same token


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
    ],
)
def test_damaged_files_are_refused(model, tmp_path, damage):
    path = tmp_path / "rule.json"
    make_rule(model).save(path)
    facts = json.loads(path.read_text())
    path.write_text(damage(facts))
    with pytest.raises(ValueError, match="must hold a rule that segattr wrote, got something"):
        Rule.load(path)


def test_a_fingerprint_is_the_model_in_every_dtype():
    model = make_model("llama", torch.float32)
    own = fingerprint(model)
    assert fingerprint(make_model("llama", torch.float32)) == own
    assert fingerprint(make_model("llama", torch.float32).to(torch.bfloat16)) == own
    assert fingerprint(make_model("llama", torch.float32).double()) == own
    assert fingerprint(make_model("llama", torch.float32, num_hidden_layers=2)) != own
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[-1] += 0.01  # one row of one weight
    assert fingerprint(model) != own


def test_a_fingerprint_knows_names_and_shapes():
    torch.manual_seed(0)
    one, other = torch.nn.Linear(4, 6, bias=False), torch.nn.Linear(6, 4, bias=False)
    with torch.no_grad():
        other.weight.copy_(one.weight.reshape(4, 6))
    assert fingerprint(one) != fingerprint(other)
    assert fingerprint(torch.nn.Sequential(one)) != fingerprint(one)
    assert fingerprint(one.to("meta")) == fingerprint(torch.nn.Linear(4, 6, bias=False).to("meta"))


def test_baselines_as_text():
    row = torch.arange(4.0)
    assert describe_baseline("pad", 17) == describe_baseline(17, 17) == "token 17"
    assert describe_baseline("mean", None) == "mean"
    assert describe_baseline(row, None) == describe_baseline(row.double(), None)
    assert describe_baseline(row, None) != describe_baseline(row + 1, None)


def test_the_gap_is_measured_at_both_ends(model):
    """None of the rule's points is an end of the path: two forward passes tell."""
    trace = make_trace(num_targets=1, tail=0)
    got = FastIG(model, rule=make_rule(model)).attribute(trace)
    ends = FastIG(model, rule="trapezoid", steps=2).attribute(trace)
    assert got.target_logprob == pytest.approx(ends.target_logprob, rel=1e-12)
    assert got.baseline_logprob == pytest.approx(ends.baseline_logprob, rel=1e-12)
