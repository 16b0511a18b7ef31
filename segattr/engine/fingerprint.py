"""What tells one model's weights from another's, at next to no cost."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

SAMPLED = 64  # numbers of each weight


def fingerprint(model: nn.Module) -> str:
    """Return what tells this model from others: its weights' names, shapes and some numbers.

    The numbers are rounded to bfloat16, so a model is the same in float64, float32 and bfloat16;
    float16 rounds otherwise. Of weights that are offloaded, or spread or quantised in a tensor
    class of their own, only names and shapes count.
    """
    samples = _samples(model)
    digest = hashlib.sha256(type(model).__name__.encode())
    for name, weight in model.named_parameters():
        digest.update(f"{name} {tuple(weight.shape)}".encode())
        digest.update(samples.get(name, b""))
    return digest.hexdigest()[:16]


def _samples(model: nn.Module) -> dict[str, bytes]:
    """Each weight's sample as bytes; one transfer a device, since a GPU waits for each."""
    by_device: dict[torch.device, dict[str, Tensor]] = {}
    for name, weight in model.named_parameters():
        if not weight.is_meta and type(weight.data) is Tensor:
            flat = weight.detach().flatten()
            sample = flat[:: max(1, len(flat) // SAMPLED)][:SAMPLED]
            by_device.setdefault(weight.device, {})[name] = sample.to(torch.bfloat16)
    found: dict[str, bytes] = {}
    for samples in by_device.values():
        together = torch.cat(list(samples.values())).cpu().view(torch.int16)
        parts = together.split([len(sample) for sample in samples.values()])
        found |= zip(samples, (part.numpy().tobytes() for part in parts), strict=True)
    return found
