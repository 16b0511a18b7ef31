"""Integrated Gradients of an answer's log-probability, and rules fitted to a model."""

from segattr.ig.calibration import fit_rule
from segattr.ig.fast_ig import FastIG
from segattr.ig.rules import Rule

__all__ = ["FastIG", "Rule", "fit_rule"]
