"""One trace's straight path through a model's embeddings: F and the tokens' integrands on it.

Axes: ``K`` path points, ``T`` tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from segattr.engine.autograd import AutogradEngine
from segattr.engine.decoder import why_not_fused
from segattr.engine.fused import FusedEngine
from segattr.engine.planner import Load, Planner
from segattr.ig.baseline import Baseline, baseline_embedding, table_shape
from segattr.quadrature.integral import require_finite
from segattr.trace import EncodedTrace, check_length

Engine = AutogradEngine | FusedEngine
REMEDY = "Use dtype=torch.float32 or another baseline."


class Path:
    """Evaluates path points in chunks that fit the memory, and counts them.

    Args:
        engine: Knows the model and both ends of the path.
        planner: Chooses the chunks.
        num_tokens: Of the whole sequence; those the engine did not run get 0.
        baseline_token_id: The token at whose embedding it starts, if it is one.

    Attributes:
        evaluations: Gradient evaluations of the whole model so far.
    """

    def __init__(
        self, engine: Engine, planner: Planner, num_tokens: int, baseline_token_id: int | None
    ) -> None:
        self.engine = engine
        self.planner = planner
        self.num_tokens = num_tokens
        self.baseline_token_id = baseline_token_id
        self.load = Load(len(engine.inputs), len(engine.target_ids), engine.name == "fused")
        self.evaluations = 0
        self._logprobs: dict[float, float] = {}

    def evaluate(self, alphas: Tensor) -> tuple[Tensor, Tensor]:
        """Return F, ``[K]``, and the tokens' integrands ``<x - x', dF/dx>``, ``[K, T]``, on CPU.

        Raises:
            ValueError: If a place is outside the path, or there is none.
            FloatingPointError: If one is not finite.
            MemoryError: If not even one point fits.
        """
        if not len(alphas) or not (alphas.min() >= 0 and alphas.max() <= 1):
            raise ValueError(f"alphas must be places in [0, 1], got {alphas.tolist()}.")
        logprobs, values = self.planner.run(alphas, self.engine.evaluate, self.load)
        require_finite(logprobs[:, None], alphas, "the answer's log-probability", remedy=REMEDY)
        require_finite(values, alphas, "gradients", "token", remedy=REMEDY)
        self.evaluations += len(alphas)
        self._logprobs |= zip(alphas.tolist(), logprobs.tolist(), strict=True)
        unused = self.num_tokens - values.shape[1]
        return logprobs, torch.nn.functional.pad(values, (0, unused))

    def logprob(self, alpha: float) -> float:
        """Return F at one place; a forward pass, unless it was a path point already."""
        if alpha not in self._logprobs:
            place = torch.tensor([alpha], dtype=torch.float64)
            logprob = self.engine.logprob(place).cpu()
            require_finite(logprob[:, None], place, "the answer's log-probability", remedy=REMEDY)
            self._logprobs[alpha] = float(logprob)
        return self._logprobs[alpha]


def path_ends(
    model: Any, encoded: EncodedTrace, baseline: Baseline, token_id: int | None, scope: str
) -> tuple[Tensor, Tensor]:
    """Return the embeddings of the tokens and of their starting points, ``[T, D]`` each.

    Args:
        model: The causal LM.
        encoded: The trace.
        baseline: As given to `FastIG`.
        token_id: Its token; see `baseline_token`.
        scope: ``"all"``, or ``"reasoning"``: everything else stays in place.
    """
    embed = model.get_input_embeddings()
    device = next(embed.parameters()).device
    inputs = embed(encoded.input_ids.to(device))
    start = baseline_embedding(baseline, token_id, model).to(inputs).expand_as(inputs)
    if scope == "reasoning":
        moved = torch.zeros(len(inputs), 1, dtype=torch.bool, device=device)
        moved[slice(*encoded.reasoning)] = True
        start = torch.where(moved, start, inputs)
    return inputs, start


def engine_class(model: Any, engine: str) -> type[Engine]:
    """Return the engine for the model as it is now: adapters and hooks may come and go.

    Raises:
        ValueError: If ``"fused"`` cannot run it.
    """
    if engine == "autograd":
        return AutogradEngine
    if (reason := why_not_fused(model)) is None:
        return FusedEngine
    if engine == "fused":
        raise ValueError(
            f"engine='fused' must be able to run the model, but {reason}. Pass engine='auto'."
        )
    return AutogradEngine


def require_known(encoded: EncodedTrace, model: Any) -> None:
    """Raise if the trace is too long for the model, or has tokens it does not know."""
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    check_length(encoded, context, "the model's context")
    known, _ = table_shape(model)
    largest = int(encoded.input_ids.max())
    if largest >= known or int(encoded.input_ids.min()) < 0:
        raise ValueError(
            f"input_ids must be below the model's {known} embeddings, got {largest}. "
            "Was the trace encoded with another model's tokenizer?"
        )
