"""Fast, exact segment-level attribution of long reasoning traces, and the loss masks made from it.

trace -> segments -> attribution [T] -> segment scores [S] -> training row [T] -> collated batch
"""

from segattr.attribution import Attribution, Method
from segattr.encoding import encode
from segattr.ig.calibration import fit_rule
from segattr.ig.fast_ig import FastIG
from segattr.ig.rules import Rule
from segattr.quadrature.integral import Integral, integrate
from segattr.scores import SegmentScorer, SegmentScores, UndecidedWarning
from segattr.segments import split_segments
from segattr.trace import EncodedTrace, Trace, TraceTooLongError
from segattr.training.collator import LossMaskCollator
from segattr.training.grpo import GRPOTokenMaskMixin, GRPOTokenWeightMixin
from segattr.training.rows import training_row
from segattr.training.trainers import TokenWeightMixin
from segattr.training.weights import strength_weights, top_tokens

__version__ = "0.1.0"

__all__ = [
    "Trace",
    "split_segments",
    "encode",
    "EncodedTrace",
    "TraceTooLongError",
    "integrate",
    "Integral",
    "FastIG",
    "fit_rule",
    "Rule",
    "Attribution",
    "Method",
    "SegmentScorer",
    "SegmentScores",
    "UndecidedWarning",
    "strength_weights",
    "top_tokens",
    "training_row",
    "LossMaskCollator",
    "TokenWeightMixin",
    "GRPOTokenWeightMixin",
    "GRPOTokenMaskMixin",
]
