"""Scores to training rows, rows to batches, and weights in trainers that know none."""

from segattr.training.collator import LossMaskCollator
from segattr.training.rows import training_row
from segattr.training.trainers import (
    GRPOTokenMaskMixin,
    GRPOTokenWeightMixin,
    TokenWeightMixin,
)
from segattr.training.weights import strength_weights, top_tokens

__all__ = [
    "GRPOTokenMaskMixin",
    "GRPOTokenWeightMixin",
    "LossMaskCollator",
    "TokenWeightMixin",
    "strength_weights",
    "top_tokens",
    "training_row",
]
