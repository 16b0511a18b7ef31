"""Which engine runs a model, and what every engine can do.

Axes: ``K`` path points, ``T`` tokens.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from segattr.engine.autograd import AutogradEngine
from segattr.engine.decoder import FAMILIES, why_not_fused
from segattr.engine.ends import PathEnds
from segattr.engine.fused import FusedEngine

ENGINES = ("auto", "fused", "autograd")
REMEDY = "Pass rule='auto'. That is Integrated Gradients, for any causal LM."


class Engine(Protocol):
    """F and the tokens' integrands at points of one trace's path.

    Attributes:
        name: One of `ENGINES`.
        backend: Where its ops run: ``"torch"`` or ``"triton"``.
        dtype: Dtype of the embeddings.
        num_tokens: Tokens that go through the model, padding included.
    """

    name: str
    backend: str
    dtype: torch.dtype
    num_tokens: int

    def __init__(self, model: Any, ends: PathEnds, backend: str = "auto") -> None: ...

    def logprob(self, alphas: Tensor) -> Tensor:
        """Return F at the path points: ``[K]``, float32 or better, on the embeddings' device."""
        ...

    def evaluate(self, alphas: Tensor, recompute: bool = False) -> tuple[Tensor, Tensor]:
        """Return F at the path points, ``[K]``, and the tokens' integrands there, ``[K, T]``."""
        ...

    def bytes_per_point(self, recompute: bool) -> float:
        """Return the estimated peak bytes of one path point, with or without recomputed layers."""
        ...


def engine_class(model: Any, engine: str, secants: bool = False) -> type[Engine]:
    """Return the engine for the model as it is now: adapters and hooks may come and go.

    Args:
        model: The causal LM.
        engine: One of `ENGINES`.
        secants: Whether it must have secants, as the fused engine alone does.

    Raises:
        ValueError: If ``"fused"`` cannot run the model, or is needed and not what was asked for.
    """
    if secants:
        if (refusal := why_no_secants(model, engine)) is not None:
            raise ValueError(refusal)
        return FusedEngine
    if engine == "autograd":
        return AutogradEngine
    if (reason := why_not_fused(model)) is None:
        return FusedEngine
    if engine == "fused":
        raise ValueError(
            f"engine='fused' must be able to run the model, but {reason}. Pass engine='auto'."
        )
    return AutogradEngine


def why_no_secants(model: Any, engine: str) -> str | None:
    """Return why finite propagation cannot run, and what can; None if it can."""
    if engine == "autograd":
        return f"engine must be 'fused' or 'auto' with rule='secant', got 'autograd'. {REMEDY}"
    if (reason := why_not_fused(model)) is not None:
        families = ", ".join(FAMILIES.values())
        return (
            f"rule='secant' must be able to run the model, which it is for plain {families}, but "
            f"{reason}. {REMEDY}"
        )
    return None
