"""A model as it comes: what is inside its wrappers, where it runs, and how to freeze it."""

from __future__ import annotations

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


def bare(model: nn.Module) -> nn.Module:
    """Return the transformers model inside a peft wrapper, or the model itself."""
    get_base_model: Any = getattr(model, "get_base_model", None)
    return model if get_base_model is None else get_base_model()


def devices(module: nn.Module) -> list[torch.device]:
    """Return where the weights are when they are used, each device once.

    Weights that are offloaded stand on ``"meta"``; accelerate's hooks bring them where they belong
    while a module runs.

    Raises:
        ValueError: If a weight is on ``"meta"`` and nothing brings it.
    """
    found: dict[torch.device, None] = {}
    brought: dict[str, torch.device | None] = {}
    for name, part in module.named_modules():
        above = brought.get(name.rpartition(".")[0]) if name else None
        brought[name] = _execution_device(part) or above
        for parameter in part.parameters(recurse=False):
            device = brought[name] if parameter.is_meta else parameter.device
            if device is None:
                raise ValueError(
                    f"model must have its weights, got {name or 'one'} on the meta device. Load it "
                    "with from_pretrained, or offload it with device_map."
                )
            found[device] = None
    return list(found)


def _execution_device(module: nn.Module) -> torch.device | None:
    """Where accelerate's hook, or the first of several that says so, runs a module."""
    hook = getattr(module, "_hf_hook", None)
    for one in getattr(hook, "hooks", [hook]):
        if (device := getattr(one, "execution_device", None)) is not None:
            return torch.device(device)
    return None


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no weight gradients for the duration; then all is as before."""
    # By name: weights that are offloaded are other objects after a forward pass.
    trainable = {name for name, weight in model.named_parameters() if weight.requires_grad}
    training = [module for module in model.modules() if module.training]
    try:
        model.eval()
        _set_trainable(model, trainable, False)
        yield
    finally:
        _set_trainable(model, trainable, True)
        for module in training:
            module.training = True


def _set_trainable(model: nn.Module, names: set[str], trainable: bool) -> None:
    for name, weight in model.named_parameters():
        if name in names:
            weight.requires_grad_(trainable)
