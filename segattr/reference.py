"""Every op in plain torch: its definition, its CPU path and the oracle of its tests.

Arithmetic is float32, or float64 when the tensors are; results are rounded once.
Axes: ``K`` path points, ``T`` tokens, ``D`` hidden size, ``S`` segments.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which tensors of ``dtype`` are accumulated: float32, or float64 for float64."""
    return torch.promote_types(dtype, torch.float32)


def blend(inputs: Tensor, baseline: Tensor, alphas: Tensor) -> Tensor:
    """Return the points ``baseline + alpha (inputs - baseline)`` of the straight path.

    Args:
        inputs: Embeddings, any float dtype, ``[T, D]``.
        baseline: Their starting points, same dtype, ``[T, D]``.
        alphas: Places on the path, ``[K]``.

    Returns:
        ``[K, T, D]`` in the dtype of ``inputs``, rounded once.
    """
    wide = compute_dtype(inputs.dtype)
    start = baseline.to(wide)
    return (start + alphas.to(inputs.device, wide)[:, None, None] * (inputs.to(wide) - start)).to(
        inputs.dtype
    )


def path_dot(inputs: Tensor, baseline: Tensor, gradients: Tensor, weights: Tensor) -> Tensor:
    """Return each token's share, ``sum_k weights[k] <inputs - baseline, gradients[k]>``.

    One path point at a time, so nothing of size ``[K, T, D]`` is made.

    Args:
        inputs: Embeddings, any float dtype, ``[T, D]``.
        baseline: Their starting points, same dtype, ``[T, D]``.
        gradients: dF/dx at the path points, ``[K, T, D]``.
        weights: Quadrature weights, ``[K]``.

    Returns:
        ``[T]``, float32 (float64 for float64 tensors).
    """
    wide = compute_dtype(gradients.dtype)
    difference = inputs.to(wide) - baseline.to(wide)  # [T, D]
    total = difference.new_zeros(difference.shape[0])
    for gradient, weight in zip(gradients, weights.tolist(), strict=True):
        total += weight * (difference * gradient.to(wide)).sum(-1)
    return total


def segment_sum(attribution: Tensor, spans: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    """Sum attributions inside each segment, signed and absolute.

    Equal to ``[(a[i:j].sum(), a[i:j].abs().sum()) for i, j in spans]``.

    Args:
        attribution: One value per token, any float dtype, ``[T]``.
        spans: ``S`` half-open token ranges.

    Returns:
        ``(signed, absolute)``, float64 ``[S]`` each. An empty span gives 0.
    """
    values = attribution.double()
    parts = [values[start:stop] for start, stop in spans]
    return torch.stack([part.sum() for part in parts]), torch.stack(
        [part.abs().sum() for part in parts]
    )
