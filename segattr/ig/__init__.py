"""Finite propagation and Integrated Gradients of an answer's log-probability, and their rules."""

from segattr.ig.calibration import fit_rule
from segattr.ig.fast_ig import FastIG
from segattr.ig.fitted import Rule
from segattr.ig.rules import Adaptive, Fixed
from segattr.ig.secant import Secant

__all__ = ["Adaptive", "FastIG", "Fixed", "Rule", "Secant", "fit_rule"]
