"""Points of the path, the decoder's ops and their gradients.

Forward ops of the decoder round where transformers' own modules do, so that they compute the same
F.
Axes: ``K`` path points, ``T`` tokens, ``D`` hidden size, ``H`` heads, ``E`` head size, ``F`` MLP
width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from segattr.engine.reference.dtype import compute_dtype


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


def path_dot(inputs: Tensor, baseline: Tensor, gradients: Tensor) -> Tensor:
    """Return each token's integrand at each path point, ``<inputs - baseline, gradients[k]>``.

    One path point at a time, so nothing of size ``[K, T, D]`` is made.

    Args:
        inputs: Embeddings, any float dtype, ``[T, D]``.
        baseline: Their starting points, same dtype, ``[T, D]``.
        gradients: dF/dx at the path points, ``[K, T, D]``.

    Returns:
        ``[K, T]``, float32 (float64 for float64 tensors).
    """
    wide = compute_dtype(gradients.dtype)
    difference = inputs.to(wide) - baseline.to(wide)  # [T, D]
    values = difference.new_empty(gradients.shape[:2])
    for value, gradient in zip(values, gradients, strict=True):
        value.copy_((difference * gradient.to(wide)).sum(-1))
    return values


def rms_norm(
    hidden: Tensor, weight: Tensor, eps: float, delta: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Add ``delta`` to the residual stream and normalise the sum.

    ``total = hidden + delta``, ``normed = weight * (total * rstd)`` with
    ``rstd = 1 / sqrt(mean(total^2) + eps)``; ``total`` and the bracket are rounded, as transformers
    does (Zhang & Sennrich, 2019).

    Args:
        hidden: Any float dtype, contiguous, ``[..., D]``.
        weight: Same dtype, ``[D]``; or a wider one, in which the bracket is then left (Gemma).
        eps: Added to the mean square.
        delta: Same dtype and shape as ``hidden``, contiguous; overwritten with the sum.

    Returns:
        ``normed`` ``[..., D]``, ``total`` ``[..., D]`` (``hidden`` itself without a delta) and
        ``rstd`` ``[...]``, float32 (float64 for float64 tensors).
    """
    total = hidden if delta is None else delta.add_(hidden)
    wide = total.to(compute_dtype(total.dtype))
    rstd = wide.square().mean(-1).add_(eps).rsqrt_()
    normed = (wide * rstd[..., None]).to(weight.dtype).mul_(weight)
    return normed.to(total.dtype), total, rstd


def rms_norm_backward(
    grad: Tensor, hidden: Tensor, weight: Tensor, rstd: Tensor, residual: Tensor | None = None
) -> Tensor:
    """Return the gradient of the residual stream below a norm.

    ``rstd (g - h mean(g h)) + residual`` with ``g = weight * grad`` and ``h = hidden * rstd``.

    Args:
        grad: Gradient of the norm's output, contiguous, ``[..., D]``; overwritten with the result.
        hidden: What was normalised, ``[..., D]``.
        weight: ``[D]``.
        rstd: What `rms_norm` returned, ``[...]``.
        residual: Gradient that flows past the norm, ``[..., D]``.
    """
    wide = compute_dtype(grad.dtype)
    scale = rstd[..., None]
    scaled = grad.to(wide) * weight.to(wide)
    unit = hidden.to(wide) * scale
    mean = torch.linalg.vecdot(scaled, unit)[..., None] / unit.shape[-1]
    result = scaled.sub_(unit.mul_(mean)).mul_(scale)
    return grad.copy_(result if residual is None else result.add_(residual))


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """Return ``silu(gate) * up``, ``[..., F]``; silu's value is rounded (Shazeer, 2020)."""
    return F.silu(gate).mul_(up)


def swiglu_backward(grad: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of ``gate`` and ``up``, written over them.

    ``d gate = grad * up * silu'(gate)``, ``d up = grad * silu(gate)``; all contiguous ``[..., F]``.
    """
    wide = compute_dtype(grad.dtype)
    grad, wide_gate = grad.to(wide), gate.to(wide)
    by_up = grad * up
    torch.mul(grad, F.silu(wide_gate), out=up)
    return gate.copy_(torch.ops.aten.silu_backward(by_up, wide_gate)), up


def geglu(gate: Tensor, up: Tensor) -> Tensor:
    """Return ``gelu(gate) * up``, ``[..., F]``, with GELU's tanh form; its value is rounded."""
    return F.gelu(gate, approximate="tanh").mul_(up)


def geglu_backward(grad: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of ``gate`` and ``up`` as `swiglu_backward` does."""
    wide = compute_dtype(grad.dtype)
    grad, wide_gate = grad.to(wide), gate.to(wide)
    by_up = grad * up
    torch.mul(grad, F.gelu(wide_gate, approximate="tanh"), out=up)
    slope = torch.ops.aten.gelu_backward(by_up, wide_gate, approximate="tanh")
    return gate.copy_(slope), up


def softcap(values: Tensor, bound: float) -> Tensor:
    """Return ``bound * tanh(values / bound)``, each step rounded as transformers does."""
    return (values / bound).tanh_().mul_(bound)


def rope(
    heads: Tensor, cos: Tensor, sin: Tensor, weight: Tensor | None = None, eps: float = 0.0
) -> Tensor:
    """Rotate queries or keys to their positions, after the per-head norm if there is one.

    With ``x1, x2`` the halves of a head: ``x1 cos1 - x2 sin1`` and ``x2 cos2 + x1 sin2`` (Su et
    al., 2021), each product rounded as transformers does.

    Args:
        heads: Contiguous, ``[K, T, H, E]``.
        cos: Same dtype, ``[T, E]``.
        sin: In the shape of ``cos``.
        weight: Weight of the norm over each head, if there is one, ``[E]``.
        eps: Added to that norm's mean square.

    Returns:
        ``[K, T, H, E]``: in the memory of ``heads`` without a norm, new with one, whose backward
        needs ``heads``.
    """
    rotated = heads if weight is None else rms_norm(heads, weight, eps)[0]
    first, second = rotated.chunk(2, dim=-1)
    (cos1, cos2), (sin1, sin2) = (part[:, None].chunk(2, dim=-1) for part in (cos, sin))
    new_first = (first * cos1).sub_(second * sin1)
    second.copy_((second * cos2).add_(first * sin2))
    first.copy_(new_first)
    return rotated


def rope_backward(
    grad: Tensor,
    cos: Tensor,
    sin: Tensor,
    heads: Tensor | None = None,
    weight: Tensor | None = None,
    eps: float = 0.0,
) -> Tensor:
    """Return the gradient of what `rope` was given.

    Args:
        grad: ``[K, T, H, E]``, each head contiguous.
        cos: ``[T, E]``.
        sin: In the shape of ``cos``.
        heads: What `rope` was given, contiguous, ``[K, T, H, E]``; with ``weight`` only.
        weight: As in `rope`.
        eps: As in `rope`.

    Returns:
        Contiguous ``[K, T, H, E]``, in the memory of ``grad`` if that is contiguous.
    """
    wide = compute_dtype(grad.dtype)
    first, second = grad.to(wide).chunk(2, dim=-1)
    (cos1, cos2), (sin1, sin2) = (part[:, None].chunk(2, dim=-1) for part in (cos, sin))
    turned = torch.cat([first * cos1 + second * sin2, second * cos2 - first * sin1], dim=-1)
    if weight is not None:
        assert heads is not None
        wide_heads = heads.to(wide)
        rstd = (wide_heads.square().mean(-1) + eps).rsqrt()
        turned = rms_norm_backward(turned, wide_heads, weight, rstd)
    return grad.copy_(turned) if grad.is_contiguous() else turned.to(grad.dtype).contiguous()
