"""Finite propagation: token scores from the differences of F between points, without gradients.

    F(x_b) - F(x_a) = sum_t <m_t, x_t(b) - x_t(a)>    for every piece [a, b] of the path

The multipliers m come from one reverse sweep with secants in the place of gradients; see
`segattr.engine.secant`. The ideas are those of DeepLIFT (Shrikumar et al., 2017); in the limit of
many pieces the scores are those of Integrated Gradients.
Axes: ``P`` pieces, ``T`` tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from segattr.checks import require_word
from segattr.engine.reference.secants import SPLITS
from segattr.ig.path import Path
from segattr.ig.rules import DIFFERENCES, Findings, Spans, settings_of

# What rounding may take from the sum of the scores, as a share of what their sizes and those of F
# add up to. What it did take: benchmarks/README.md, on models of 4 and 30 layers.
ROUNDING = {torch.float64: 1e-10, torch.float32: 1e-3, torch.float16: 5e-2, torch.bfloat16: 0.3}


@dataclass(frozen=True)
class Secant:
    """Pieces of equal length, each of two forward passes and one reverse sweep.

    One piece, the whole path, is another attribution than Integrated Gradients, not a rougher one.

    Args:
        steps: Pieces.
        split: How a change of attention's ``P V`` is shared between the probabilities P and the
            values V: ``"mean"``, or ``"content"``, which gives the values their change at the
            trace's own probabilities.

    Raises:
        ValueError: If there is no piece, or the split is unknown.
    """

    steps: int = 1
    split: str = "mean"
    method = DIFFERENCES

    def __post_init__(self) -> None:
        require_word("split", self.split, SPLITS)
        if not isinstance(self.steps, int) or self.steps < 1:
            raise ValueError(
                f"steps must be at least 1 with rule='secant', got {self.steps}. It is a whole "
                "number of pieces."
            )

    def __str__(self) -> str:
        return f"secant, {self.steps} piece{'s' * (self.steps > 1)}, {self.split} split"

    @property
    def scorer(self) -> None:
        return None

    @property
    def cost(self) -> str:
        pieces, each = ("piece", "") if self.steps == 1 else ("pieces", "each ")
        return (
            f"{self.steps} {pieces} of finite propagation a trace, {each}about 2 to 3 gradient "
            "evaluations"
        )

    def require(self, model: Any, baseline: str, scope: str) -> None:
        """Fits every model that the fused engine runs."""

    def integrate(self, path: Path, spans: Spans) -> Findings:
        """Sum the pieces; see `IntegrationRule`.

        Raises:
            FloatingPointError: If the scores miss the change of F by more than rounding.
        """
        edges = torch.linspace(0, 1, self.steps + 1, dtype=torch.float64)
        pieces = path.differences(edges, self.split)
        scores = pieces.double().sum(0)
        _require_complete(scores, path)
        return Findings(
            scores.to(pieces.dtype),
            settings_of("secant", steps=self.steps, split=self.split),
        )


def _require_complete(scores: Tensor, path: Path) -> None:
    total, change, dtype = float(scores.sum()), path.change(), path.engine.dtype
    size = float(scores.abs().sum()) + abs(path.logprob(0.0)) + abs(path.logprob(1.0))
    if abs(total - change) > ROUNDING[dtype] * size:
        raise FloatingPointError(
            f"the token scores must sum to F(x) - F(x') = {change:.6g}, got {total:.6g} in "
            f"{str(dtype).removeprefix('torch.')}. Use a wider dtype, such as dtype=torch.float32."
        )
