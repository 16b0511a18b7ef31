"""Fixed and Adaptive as objects: what they check, what they say, and that they are the words."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from tiny import make_engine, make_model

from segattr import FastIG, SegmentScorer
from segattr.engine.planner import Planner
from segattr.ig import Adaptive, Fixed, Secant
from segattr.ig.path import Path
from segattr.ig.rules import AGREEMENT
from segattr.quadrature.refinement import MAX_EVALUATIONS

pytestmark = pytest.mark.usefixtures("exact_norms")
OWN = SegmentScorer(tau=0.4, beta=1.0)
WORDS = [
    (Fixed("midpoint", 5), {"rule": "midpoint", "steps": 5}),
    (Fixed("linspace"), {"rule": "linspace"}),
    (Adaptive(), {"rule": "auto"}),
    (Adaptive(OWN, max_evaluations=33), {"rule": "auto", "scorer": OWN, "max_evaluations": 33}),
    (Adaptive(None, 1e-2), {"rule": "auto", "scorer": None, "tolerance": 1e-2}),
    (Adaptive(agreement=1), {"rule": "auto", "agreement": 1}),
    (Secant(), {}),
    (Secant(), {"rule": None, "scorer": OWN}),
    (Secant(3), {"rule": "secant", "steps": 3}),
]


@pytest.mark.parametrize(("rule", "words"), WORDS, ids=str)
def test_an_object_is_what_the_words_say(model, trace, rule, words):
    got, expected = FastIG(model, rule=rule, scope="all"), FastIG(model, **words, scope="all")
    assert got.rule == expected.rule
    ours, theirs = got.attribute(trace), expected.attribute(trace)
    assert torch.equal(ours.token_scores, theirs.token_scores)
    assert ours.settings == theirs.settings
    assert ours.converged is theirs.converged


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Fixed("simpson"), "rule must be one of 'riemann', 'linspace'"),
        (lambda: Fixed("auto"), "rule must be one of 'riemann', 'linspace'"),
        (lambda: Fixed("midpoint", 0), "midpoint needs at least 1 points, got 0"),
        (lambda: Fixed("linspace", 1), "linspace needs at least 2 points, got 1"),
        (lambda: Adaptive(tolerance=0), "tolerance must be above 0, got 0"),
        (lambda: Secant(0), "steps must be at least 1 with rule='secant', got 0"),
        (lambda: Secant(1.5), "steps must be at least 1 with rule='secant', got 1.5"),
        (lambda: Secant(split="sdpa"), "split must be one of 'mean', 'content', got 'sdpa'"),
        (lambda: Adaptive(max_evaluations=8), "max_evaluations must be at least the 9"),
        (lambda: Adaptive(None), "tolerance must be given with scorer=None"),
    ],
)
def test_bad_numbers_are_refused_at_once(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_rule_in_a_few_words():
    assert str(Fixed("midpoint", 5)) == "midpoint, 5 points"
    assert str(Adaptive(agreement=0.9)) == f"auto, agreement 0.9, at most {MAX_EVALUATIONS} points"
    assert str(Secant()) == "secant, 1 piece, mean split"
    assert str(Secant(3, "content")) == "secant, 3 pieces, content split"
    assert str(Adaptive(None, 1e-2, 9)) == "auto, tolerance 0.01, at most 9 points"


@pytest.mark.parametrize(
    ("rule", "cost"),
    [
        (Fixed("linspace"), "50 gradient evaluations a trace"),
        (Fixed("midpoint", 1), "1 gradient evaluation a trace"),
        (Adaptive(), f"9 to {MAX_EVALUATIONS} gradient evaluations a trace"),
        (Adaptive(max_evaluations=9), "9 gradient evaluations a trace"),
        (Secant(), "1 piece of finite propagation a trace, about 2 to 3 gradient evaluations"),
        (
            Secant(4),
            "4 pieces of finite propagation a trace, each about 2 to 3 gradient evaluations",
        ),
    ],
    ids=str,
)
def test_a_rule_says_what_a_trace_costs(rule, cost):
    assert rule.cost == cost


def test_the_numbers_of_the_defaults_are_said():
    assert f"``None`` means {AGREEMENT}." in FastIG.__doc__
    assert f"``None`` means {MAX_EVALUATIONS}." in FastIG.__doc__


def test_they_integrate_any_path():
    """Without FastIG: an engine whose path does not move, so every integrand is 0."""
    model = make_model("qwen2")
    spans = [(5, 12), (12, 28)]
    for rule, points in ((Fixed("midpoint", 3), 3), (Adaptive(None, 0.1, 9), 9), (Secant(2), 2)):
        path = Path(make_engine(model), Planner(model), 36)
        found = rule.integrate(path, spans)
        assert path.evaluations == points
        assert torch.equal(found.token_scores, torch.zeros(36, dtype=torch.float64))
        rule.require(model, "anything", "any scope")


def test_settings_have_the_same_keys_for_every_rule(model, trace):
    fixed, auto, secant = (
        FastIG(model, rule=rule, scope="all").attribute(trace)
        for rule in (Fixed("midpoint", 2), "auto", Secant(2, "content"))
    )
    assert fixed.settings.keys() == auto.settings.keys() == secant.settings.keys()
    assert [secant.settings[name] for name in ("rule", "steps", "split")] == [
        "secant",
        2,
        "content",
    ]
    names = ("rule", "steps", "scorer", "agreement", "tolerance", "max_evaluations", "gave_way")
    assert [fixed.settings[name] for name in names] == ["midpoint", 2, *[None] * 5]
    paper = dataclasses.asdict(SegmentScorer().for_method("integrated-gradients"))
    assert (paper["tau"], paper["beta"], paper["keep_ends"]) == (0.7, 0.8, True)
    limits = [AGREEMENT, None, MAX_EVALUATIONS]
    assert [auto.settings[name] for name in names] == ["auto", None, paper, *limits, None]
    exact = FastIG(model, rule="auto", scope="all", scorer=None, tolerance=0.1)
    exact = exact.attribute(trace).settings
    assert (exact["scorer"], exact["agreement"], exact["tolerance"]) == (None, None, 0.1)
