"""Scores to training rows, rows to batches, and weights in trainers that have none."""

from segattr.training.collator import LossMaskCollator
from segattr.training.grpo import GRPOTokenMaskMixin, GRPOTokenWeightMixin
from segattr.training.rows import training_row
from segattr.training.trainers import TokenWeightMixin
from segattr.training.weights import random_segments, strength_weights, top_tokens

__all__ = [
    "strength_weights",
    "top_tokens",
    "random_segments",
    "training_row",
    "LossMaskCollator",
    "TokenWeightMixin",
    "GRPOTokenWeightMixin",
    "GRPOTokenMaskMixin",
]
