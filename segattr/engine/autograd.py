"""The generic engine: any transformers causal LM, through its public interface and autograd.

The model runs on ``inputs_embeds`` with frozen weights, without a cache and without an attention
mask (a causal model needs none, and an explicit one takes slower paths, some of them broken). Only
the rows that predict the answer get logits; rows after them cannot influence it and are cut off.
Axes: ``K`` path points, ``T`` tokens, ``A`` answer tokens, ``V`` vocabulary, ``D`` hidden size.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from segattr.engine import ops
from segattr.engine.reference import compute_dtype

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class AutogradEngine:
    """F and its gradient at points of one trace's path.

    Args:
        model: A causal LM, whole or wrapped by peft.
        inputs: Embeddings of the tokens, ``[T, D]``.
        baseline: Their starting points, ``[T, D]``.
        target_ids: The answer, int64 ``[A]``.
        target_start: Position of its first token; the last row run is the one before its last
            token.
        backend: Of the ops; see `ops.choose`.
    """

    name = "autograd"

    def __init__(
        self,
        model: PreTrainedModel,
        inputs: Tensor,
        baseline: Tensor,
        target_ids: Tensor,
        target_start: int,
        backend: str = "auto",
    ) -> None:
        last = target_start + len(target_ids) - 1
        self.model = model
        self.ops: Any = ops.choose(backend, inputs)
        self.inputs, self.baseline = inputs[:last], baseline[:last]
        self.target_ids = target_ids

    def logprob(self, alphas: Tensor) -> Tensor:
        """Return F at the path points: ``[K]``, float32 or better, on the embeddings' device."""
        with torch.no_grad():
            return self._target_logprob(self.ops.blend(self.inputs, self.baseline, alphas))

    def evaluate(self, alphas: Tensor, recompute: bool = False) -> tuple[Tensor, Tensor]:
        """Return F at the path points, ``[K]``, and the tokens' integrands there, ``[K, T]``.

        One forward and one backward for all points and all answer tokens together.
        """
        points = self.ops.blend(self.inputs, self.baseline, alphas).requires_grad_()
        with torch.enable_grad(), recomputed_layers(self.model) if recompute else ExitStack():
            logprob = self._target_logprob(points)
            (gradients,) = torch.autograd.grad(logprob.sum(), points)
        return logprob.detach(), self.ops.path_dot(self.inputs, self.baseline, gradients)

    def _target_logprob(self, points: Tensor) -> Tensor:
        rows = len(self.target_ids)  # the last ones, each predicting the next answer token
        logits = self.model(inputs_embeds=points, use_cache=False, logits_to_keep=rows).logits
        wide = logits.to(compute_dtype(logits.dtype))
        ids = self.target_ids.to(logits.device).expand(len(points), -1)  # [K, A]
        chosen = wide.gather(-1, ids[..., None])[..., 0]
        return (chosen - wide.logsumexp(-1)).sum(-1).to(points.device)  # [K]


def require_causal_lm(model: nn.Module) -> None:
    """Raise if the model is not a causal LM that can compute logits for chosen rows only."""
    from transformers import PreTrainedModel

    bare = unwrapped(model)
    name = type(bare).__name__
    if not isinstance(bare, PreTrainedModel):
        raise TypeError(
            f"model must be a transformers PreTrainedModel, got {name}. Load it with "
            "AutoModelForCausalLM."
        )
    if bare.config.is_encoder_decoder:
        raise ValueError(
            f"model must be a causal LM, got the encoder-decoder {name}. Use a decoder-only model."
        )
    if not bare.can_generate():
        raise ValueError(
            f"model must be a causal LM with a language-modelling head, got {name}, which cannot "
            "generate. Load it with AutoModelForCausalLM; encoder-only models are not supported."
        )
    if "logits_to_keep" not in inspect.signature(bare.forward).parameters:
        raise ValueError(
            f"model must accept logits_to_keep in its forward, got {name}, which does not. "
            "Update transformers, or the model's own code."
        )
    _require_causal(model)


def _require_causal(model: nn.Module) -> None:
    """Raise if a token's logits depend on the token after it.

    The gradient is exactly zero where attention is masked, whatever the dtype.
    """
    embed: Any = model.get_input_embeddings()  # type: ignore[operator]
    with torch.inference_mode(False), frozen(model), torch.enable_grad():
        ids = torch.zeros(1, 2, dtype=torch.int64, device=next(embed.parameters()).device)
        points = embed(ids).detach().requires_grad_()
        logits = model(inputs_embeds=points, use_cache=False, logits_to_keep=2).logits
        (gradient,) = torch.autograd.grad(logits[0, 0].sum(), points)
    if gradient[0, 1].nan_to_num().count_nonzero():
        raise ValueError(
            f"model must be causal, got {type(unwrapped(model)).__name__}, whose tokens see those "
            "after them. Encoder-only models are not supported; set is_decoder if it is a decoder."
        )


def unwrapped(model: nn.Module) -> nn.Module:
    """The transformers model inside a peft wrapper, or the model itself."""
    get_base_model: Any = getattr(model, "get_base_model", None)
    return model if get_base_model is None else get_base_model()


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no weight gradients for the duration; then all is as before."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    training = [module for module in model.modules() if module.training]
    try:
        model.eval()
        for parameter in trainable:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
        for module in training:
            module.training = True


@contextmanager
def recomputed_layers(model: nn.Module) -> Iterator[None]:
    """Keep only the layers' inputs; their insides are computed again in the backward pass."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = [
        module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)
    ]
    # An instance may have a forward of its own, from accelerate's hooks for instance.
    before = [layer.__dict__.get("forward") for layer in layers]
    try:
        for layer in layers:
            layer.forward = partial(
                checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False
            )
        yield
    finally:
        for layer, forward in zip(layers, before, strict=True):
            del layer.forward
            if forward is not None:
                layer.forward = forward
