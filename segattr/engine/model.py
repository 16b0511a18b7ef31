"""A model as it comes: what is inside its wrappers, whether it is a causal LM, how to freeze it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


def unwrapped(model: Any) -> Any:
    """Return what is inside ``torch.compile`` and data-parallel wrappers, or the model itself."""
    parallel = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    while True:
        if isinstance(model, parallel):
            model = model.module
        elif "_orig_mod" in getattr(model, "_modules", ()):  # by name: torch.compile's class is
            model = model._orig_mod  # slow to import
        else:
            return model


def require_causal_lm(model: nn.Module) -> None:
    """Raise if the model is not a causal LM that can compute logits for chosen rows only."""
    from transformers import PreTrainedModel

    bare = _base(model)
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
            f"model must be causal, got {type(_base(model)).__name__}, whose tokens see those "
            "after them. Encoder-only models are not supported; set is_decoder if it is a decoder."
        )


def _base(model: nn.Module) -> nn.Module:
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
