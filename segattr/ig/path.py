"""One trace's straight path through a model's embeddings: F and the tokens' integrands on it.

Axes: ``K`` path points, ``T`` tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from segattr.engine.causal_lm import CausalLM
from segattr.engine.choice import Engine
from segattr.engine.fused import FusedEngine
from segattr.engine.pieces import Pieces
from segattr.engine.planner import Planner
from segattr.ig.baseline import Baseline
from segattr.quadrature.integral import require_finite
from segattr.trace import EncodedTrace

SCOPES = ("all", "reasoning")
REMEDY = "Use dtype=torch.float32 or another baseline."


class Path:
    """Evaluates path points in chunks that fit the memory, and counts them.

    Args:
        engine: Knows the model and both ends of the path.
        planner: Chooses the chunks.
        num_tokens: Length of the whole sequence; tokens the engine did not run get 0.

    Attributes:
        evaluations: Reverse sweeps through the whole model so far, one for each path point or
            piece.
    """

    def __init__(self, engine: Engine, planner: Planner, num_tokens: int) -> None:
        self.engine = engine
        self.planner = planner
        self.num_tokens = num_tokens
        self.evaluations = 0
        self._logprobs: dict[float, float] = {}

    def evaluate(self, alphas: Tensor) -> tuple[Tensor, Tensor]:
        """Return F, ``[K]``, and the tokens' integrands ``<x - x', dF/dx>``, ``[K, T]``, on CPU.

        Raises:
            ValueError: If a path point is outside [0, 1], or there is none.
            FloatingPointError: If a value is not finite.
            MemoryError: If not even one point fits.
        """
        if not len(alphas) or not (alphas.min() >= 0 and alphas.max() <= 1):
            raise ValueError(f"alphas must be path points in [0, 1], got {alphas.tolist()}.")
        logprobs, values = self.planner.run(alphas, self.engine)
        require_finite(logprobs[:, None], alphas, "the answer's log-probability", remedy=REMEDY)
        require_finite(values, alphas, "gradients", "token", remedy=REMEDY)
        self.evaluations += len(alphas)
        self._logprobs |= zip(alphas.tolist(), logprobs.tolist(), strict=True)
        return logprobs, self._of_all_tokens(values)

    def differences(self, edges: Tensor, split: str) -> Tensor:
        """Return the token scores of the pieces between some path points, ``[K - 1, T]``, on CPU.

        Args:
            edges: Where the pieces meet, float64 ``[K]``; at least two.
            split: See `Secants`.

        Raises:
            FloatingPointError: If a value is not finite.
            MemoryError: If not even one piece fits.
        """
        assert isinstance(self.engine, FusedEngine)
        pieces = torch.stack([edges[:-1], edges[1:]], dim=1)
        logprobs, scores = self.planner.run(pieces, Pieces(self.engine, split))
        for ends, found in zip(pieces.T, logprobs.T, strict=True):
            require_finite(found[:, None], ends, "the answer's log-probability", remedy=REMEDY)
            self._logprobs |= zip(ends.tolist(), found.tolist(), strict=True)
        require_finite(scores, pieces[:, 0], "secants", "token", remedy=REMEDY)
        self.evaluations += len(scores)
        return self._of_all_tokens(scores)

    def logprob(self, alpha: float) -> float:
        """Return F at one path point; costs a forward pass, unless it was evaluated before."""
        if alpha not in self._logprobs:
            point = torch.tensor([alpha], dtype=torch.float64)
            logprob = self.engine.logprob(point).cpu()
            require_finite(logprob[:, None], point, "the answer's log-probability", remedy=REMEDY)
            self._logprobs[alpha] = float(logprob)
        return self._logprobs[alpha]

    def change(self) -> float:
        """Return F(x) - F(x'), what the token scores should sum to."""
        return self.logprob(1.0) - self.logprob(0.0)

    def _of_all_tokens(self, values: Tensor) -> Tensor:
        return torch.nn.functional.pad(values, (0, self.num_tokens - values.shape[1]))


def path_ends(
    lm: CausalLM, encoded: EncodedTrace, baseline: Baseline, scope: str
) -> tuple[Tensor, Tensor]:
    """Return the embeddings of the tokens and of their starting points, ``[T, D]`` each.

    Args:
        lm: Whose embeddings.
        encoded: The trace.
        baseline: Where the tokens that move start.
        scope: ``"all"`` tokens move, or the ``"reasoning"`` only.
    """
    inputs = lm.embed(encoded.input_ids)
    start = baseline.embedding(lm).to(inputs).expand_as(inputs)
    if scope == "reasoning":
        moved = torch.zeros(len(inputs), 1, dtype=torch.bool, device=inputs.device)
        moved[slice(*encoded.reasoning)] = True
        start = torch.where(moved, start, inputs)
    return inputs, start
