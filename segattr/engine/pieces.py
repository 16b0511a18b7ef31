"""Pieces of a path, as the planner takes them: each with the path points at both of its ends.

Axes: ``P`` pieces, ``T`` tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from segattr.engine.fused import FusedEngine


class Pieces:
    """F and token scores of consecutive pieces of one trace's path.

    Args:
        engine: Knows the model and both ends of the path.
        split: See `Secants`.
    """

    def __init__(self, engine: FusedEngine, split: str) -> None:
        self.engine = engine
        self.split = split
        self.num_tokens = 2 * engine.num_tokens

    def evaluate(self, pieces: Tensor, recompute: bool = False) -> tuple[Tensor, Tensor]:
        """Return F at the ends of each piece, ``[P, 2]``, and the tokens' scores, ``[P, T]``.

        Args:
            pieces: Where each begins and stops, which is where the next begins, ``[P, 2]``.
            recompute: As in `FusedEngine.differences`.
        """
        edges = torch.cat([pieces[:, 0], pieces[-1:, 1]])
        logprobs, scores = self.engine.differences(edges, self.split, recompute)
        return torch.stack([logprobs[:-1], logprobs[1:]], dim=1), scores

    def bytes_per_point(self, recompute: bool) -> float:
        """Return the estimated peak bytes of one piece: of two path points."""
        return 2 * self.engine.bytes_per_point(recompute)
