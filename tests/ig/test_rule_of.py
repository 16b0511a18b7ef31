"""Which rule the settings of FastIG stand for, and which of them contradict each other."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from segattr import FastIG, Rule, SegmentScorer
from segattr.ig import Adaptive, Fixed, Secant
from segattr.ig.choice import rule_of
from segattr.ig.rules import AGREEMENT
from segattr.quadrature.fixed import RULES
from segattr.quadrature.refinement import MAX_EVALUATIONS

OWN = SegmentScorer(tau=0.4)
FITTED = Rule(torch.tensor([0.25, 0.75]), torch.tensor([0.5, 0.5]), "0" * 16, "zero", "all", 1.0)


@pytest.mark.parametrize("name", RULES)
def test_a_name_is_a_fixed_rule(name):
    assert rule_of(name) == Fixed(name, 50)
    assert rule_of(name, steps=7, scorer=OWN) == Fixed(name, 7)  # which needs no scorer
    assert rule_of(name, steps=7, scorer=None) == Fixed(name, 7)


def test_auto_is_adaptive():
    assert rule_of("auto") == Adaptive()
    assert rule_of("auto", scorer=OWN, tolerance=0.1, max_evaluations=9) == Adaptive(OWN, 0.1, 9)
    assert rule_of("auto", scorer=None, tolerance=0.1) == Adaptive(None, 0.1, MAX_EVALUATIONS)
    assert rule_of("auto", agreement=0.9) == Adaptive(agreement=0.9)
    assert Adaptive().asked == AGREEMENT
    assert Adaptive(None, 0.1).asked is None


def test_secant_is_one_piece_unless_more_are_wanted():
    assert rule_of("secant", scorer=OWN) == Secant(1)
    assert rule_of("secant", steps=4) == Secant(4)


def test_the_default_is_secant_in_one_piece():
    assert rule_of() == rule_of(None) == rule_of(None, scorer=OWN) == rule_of("secant") == Secant()


def test_an_object_is_itself():
    for rule in (Fixed("midpoint", 3), Adaptive(OWN), Secant(2, "content"), FITTED):
        assert rule_of(rule) is rule
    assert rule_of(Fixed("midpoint"), scorer=OWN) == Fixed("midpoint")
    assert rule_of(Adaptive(OWN), scorer=OWN) == Adaptive(OWN)


def test_settings_beside_a_fitted_rule_are_of_what_it_gives_way_to():
    rule = rule_of(FITTED, scorer=OWN, tolerance=0.2, max_evaluations=17, agreement=0.9)
    assert rule.otherwise == Adaptive(OWN, 0.2, 17, 0.9)
    assert rule.scorer == OWN
    for name in ("alphas", "weights", "fingerprint", "baseline", "scope", "largest_gap"):
        assert getattr(rule, name) is getattr(FITTED, name)
    careful = replace(FITTED, otherwise=Adaptive(OWN))
    assert rule_of(careful).otherwise == Adaptive(OWN)


AUTO = {"rule": "auto"}
BAD = [
    ({"agreement": 0.9}, "agreement must be None with rule='secant', the default, got 0.9. It bel"),
    (
        {"tolerance": 0.1},
        "with rule='secant', the default, .* Integrated Gradients. Pass rule='auto'.",
    ),
    (
        {"max_evaluations": 65},
        "max_evaluations must be None with rule='secant', the default, got 65",
    ),
    ({"steps": 50}, "steps must be None with no rule named, got 50. Name one: rule='secant' takes"),
    ({**AUTO, "tolerance": 0.0}, "tolerance must be above 0, got 0.0"),
    ({**AUTO, "tolerance": -1.0}, "tolerance must be above 0"),
    ({**AUTO, "max_evaluations": 8}, "must be at least the 9 nodes of the coarsest level, got 8"),
    ({**AUTO, "steps": 20}, "steps must be None with rule='auto', got 20. Set max_evaluations"),
    ({**AUTO, "scorer": None}, "tolerance must be given with scorer=None"),
    ({**AUTO, "agreement": 0.0}, r"agreement must be in \(0, 1\], got 0.0"),
    ({**AUTO, "agreement": 1.01}, r"agreement must be in \(0, 1\], got 1.01"),
    ({**AUTO, "agreement": float("nan")}, r"agreement must be in \(0, 1\], got nan"),
    (
        {**AUTO, "agreement": 0.9, "scorer": None, "tolerance": 0.1},
        "agreement must be None with scorer=None, got 0.9. Pass the scorer whose",
    ),
    ({"rule": "midpoint", "agreement": 0.9}, "agreement must be None with rule='midpoint'"),
    ({"rule": "secant", "agreement": 0.9}, "agreement must be None with rule='secant', got 0.9"),
    ({"rule": Adaptive(), "agreement": 0.9}, "agreement must be None.*Set it in the rule"),
    ({"rule": FITTED, "agreement": 2}, r"agreement must be in \(0, 1\], got 2"),
    ({"rule": "midpoint", "tolerance": 0.1}, "tolerance must be None with rule='midpoint'"),
    ({"rule": "midpoint", "max_evaluations": 90}, "max_evaluations must be None with rule='m"),
    ({"rule": "secant", "tolerance": 0.1}, "tolerance must be None with rule='secant', got 0.1"),
    ({"rule": "secant", "max_evaluations": 9}, "max_evaluations must be None with rule='secant'"),
    ({"rule": "secant", "steps": 0}, "steps must be at least 1 with rule='secant', got 0"),
    ({"rule": "midpoint", "steps": 0}, "needs at least 1 points, got 0"),
    ({"rule": "midpoint", "steps": -1}, "needs at least 1 points, got -1"),
    ({"rule": "midpoint", "steps": 1.5}, "needs at least 1 points, got 1.5"),
    ({"rule": "trapezoid", "steps": 1}, "needs at least 2 points, got 1"),
    ({"rule": "simpson"}, "rule must be one of 'auto', 'riemann'.*or a Rule, got 'simpson'"),
    ({"rule": FITTED, "steps": 5}, "steps must be None with a fitted rule, got 5"),
    ({"rule": FITTED, "scorer": None}, "tolerance must be given with scorer=None"),
    ({"rule": FITTED, "max_evaluations": 3}, "max_evaluations must be at least"),
    ({"rule": Fixed("midpoint"), "steps": 5}, "steps must be None with a rule of type Fixed"),
    ({"rule": Fixed("midpoint"), "tolerance": 0.1}, "tolerance must be None.*Set it in the rule"),
    ({"rule": Adaptive(), "max_evaluations": 9}, "max_evaluations must be None.*type Adaptive"),
    ({"rule": Adaptive(), "steps": 9}, "steps must be None with a rule of type Adaptive, got 9"),
    ({"rule": Adaptive(), "scorer": OWN}, "scorer must be None with a rule of type Adaptive"),
]


@pytest.mark.parametrize(("settings", "message"), BAD)
def test_contradictions_need_no_model(settings, message):
    with pytest.raises(ValueError, match=message):
        rule_of(**settings)


@pytest.mark.parametrize(("settings", "message"), BAD)
def test_they_are_found_before_the_model_is_looked_at(settings, message):
    with pytest.raises(ValueError, match=message):
        FastIG(None, **settings)


@pytest.mark.parametrize("rule", [5, ["midpoint"], Fixed, object()])
def test_what_is_no_rule_is_refused(rule):
    with pytest.raises(TypeError, match=r"rule must be a name or a Rule, got .*Rule\.load"):
        rule_of(rule)
