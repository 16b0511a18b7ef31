"""Which rule a user's settings stand for; needs no model, so mistakes show before one is read."""

from __future__ import annotations

from dataclasses import replace

from segattr.ig.fitted import Rule
from segattr.ig.rules import PAPER, Adaptive, Fixed, IntegrationRule
from segattr.ig.secant import Secant
from segattr.quadrature.fixed import RULES
from segattr.quadrature.refinement import MAX_EVALUATIONS
from segattr.scores import SegmentScorer

RULE_NAMES = ("auto", *RULES, "secant")
DEFAULT = "secant"
STEPS = 50


def rule_of(
    rule: str | IntegrationRule | None = None,
    *,
    steps: int | None = None,
    scorer: SegmentScorer | None = PAPER,
    tolerance: float | None = None,
    max_evaluations: int | None = None,
    agreement: float | None = None,
) -> IntegrationRule:
    """Return the rule that these settings of `FastIG` stand for.

    Args:
        rule: ``"auto"``, the name of a fixed rule, ``"secant"``, or a rule as an object; ``None``
            means ``"secant"`` in one piece.
        steps: Path points of a fixed rule given by name, ``None``: 50; or pieces of ``"secant"``
            given by name, ``None``: 1.
        scorer: For ``"auto"``, or for the `Adaptive` that a fitted rule gives way to; the others
            do without.
        tolerance: For the same rules.
        max_evaluations: For the same rules; ``None`` means `MAX_EVALUATIONS`.
        agreement: For the same rules; ``None`` means `AGREEMENT`, if there is a scorer.

    Raises:
        ValueError: If a word is unknown, a number is out of range, or two settings contradict.
        TypeError: If ``rule`` is neither a name nor a rule.
    """
    limits: dict[str, object] = {
        "tolerance": tolerance,
        "max_evaluations": max_evaluations,
        "agreement": agreement,
    }
    if isinstance(rule, (Fixed, Adaptive, Secant)):
        if isinstance(rule, Adaptive) and scorer not in (PAPER, rule.scorer):
            limits["scorer"] = scorer
        kind = f"a rule of type {type(rule).__name__}"
        _require_none(kind, {"steps": steps, **limits}, "Set it in the rule.")
        return rule
    if isinstance(rule, str) and rule in RULES:
        _require_none(f"rule={rule!r}", limits, "Pass rule='auto'.")
        return Fixed(rule, STEPS if steps is None else steps)
    if rule is None or rule == DEFAULT:
        return _secant(rule is not None, steps, limits)
    _require_auto_or_fitted(rule)
    kind = "a fitted rule" if isinstance(rule, Rule) else "rule='auto'"
    remedy = "Set max_evaluations, or name a rule such as rule='midpoint'."
    _require_none(kind, {"steps": steps}, remedy)
    most = MAX_EVALUATIONS if max_evaluations is None else max_evaluations
    adaptive = Adaptive(scorer, tolerance, most, agreement)
    if not isinstance(rule, Rule):
        return adaptive
    return rule if adaptive == Adaptive() else replace(rule, otherwise=adaptive)


def _secant(named: bool, steps: int | None, limits: dict[str, object]) -> Secant:
    """Finite propagation; a number of steps could mean another rule's unless it was named."""
    remedy = "It belongs to Integrated Gradients. Pass rule='auto'."
    _require_none("rule='secant'" + ", the default" * (not named), limits, remedy)
    if not named:
        remedy = "Name one: rule='secant' takes pieces, rule='midpoint' and others path points."
        _require_none("no rule named", {"steps": steps}, remedy)
    return Secant() if steps is None else Secant(steps)


def _require_auto_or_fitted(rule: object) -> None:
    """Raise if what is no other rule is not one of these either."""
    if isinstance(rule, str) and rule != "auto":
        names = ", ".join(map(repr, RULE_NAMES))
        raise ValueError(f"rule must be one of {names}, or a Rule, got {rule!r}.")
    if not isinstance(rule, (str, Rule)):
        raise TypeError(
            f"rule must be a name or a Rule, got {rule!r}. Load files with Rule.load; Fixed, "
            "Adaptive and Secant are rules too."
        )


def _require_none(kind: str, settings: dict[str, object], remedy: str) -> None:
    """Raise if a setting was given that such a rule does not have."""
    for name, value in settings.items():
        if value is not None:
            raise ValueError(f"{name} must be None with {kind}, got {value}. {remedy}")
