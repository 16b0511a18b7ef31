"""Rotary positions after an optional norm of each head, and the gradient (Su et al., 2021).

Axes: ``K`` path points, ``T`` tokens, ``H`` heads, ``E`` head size. ``1`` and ``2`` number the
halves of a head.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from segattr_kernels.launch import TILE, launch, num_warps, require_contiguous, wide_tl


@triton.jit
def _rope_kernel(
    p_heads,
    p_rotated,
    p_cos,
    p_sin,
    p_weight,
    T,
    H: tl.constexpr,
    E: tl.constexpr,
    EPS: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_HALF: tl.constexpr,
    WIDE: tl.constexpr,
):
    dtype = p_rotated.dtype.element_ty
    HALF: tl.constexpr = E // 2
    i_kt = tl.program_id(0).to(tl.int64)
    o_e = tl.arange(0, BLOCK_HALF)[None, :]
    m_e = o_e < HALF
    o_te = (i_kt % T) * E + o_e
    b_cos1 = tl.load(p_cos + o_te, mask=m_e).to(WIDE)
    b_cos2 = tl.load(p_cos + HALF + o_te, mask=m_e).to(WIDE)
    b_sin1 = tl.load(p_sin + o_te, mask=m_e).to(WIDE)
    b_sin2 = tl.load(p_sin + HALF + o_te, mask=m_e).to(WIDE)
    for i_h in range(0, H, BLOCK_H):
        o_h = i_h + tl.arange(0, BLOCK_H)[:, None]
        m_he = (o_h < H) & m_e
        o_he = i_kt * H * E + o_h * E + o_e
        b_1 = tl.load(p_heads + o_he, mask=m_he, other=0.0).to(WIDE)
        b_2 = tl.load(p_heads + HALF + o_he, mask=m_he, other=0.0).to(WIDE)
        if p_weight is not None:
            b_weight1 = tl.load(p_weight + o_e, mask=m_e).to(WIDE)
            b_weight2 = tl.load(p_weight + HALF + o_e, mask=m_e).to(WIDE)
            b_rstd = tl.rsqrt(tl.sum(b_1 * b_1 + b_2 * b_2, 1) / E + EPS)[:, None]
            b_1 = ((b_1 * b_rstd).to(dtype).to(WIDE) * b_weight1).to(dtype).to(WIDE)
            b_2 = ((b_2 * b_rstd).to(dtype).to(WIDE) * b_weight2).to(dtype).to(WIDE)
        b_new1 = (b_1 * b_cos1).to(dtype).to(WIDE) - (b_2 * b_sin1).to(dtype).to(WIDE)
        b_new2 = (b_2 * b_cos2).to(dtype).to(WIDE) + (b_1 * b_sin2).to(dtype).to(WIDE)
        tl.store(p_rotated + o_he, b_new1, mask=m_he)
        tl.store(p_rotated + HALF + o_he, b_new2, mask=m_he)


@triton.jit
def _rope_backward_kernel(
    p_grad,
    p_result,
    p_cos,
    p_sin,
    p_heads,
    p_weight,
    stride_k,
    stride_t,
    stride_h,
    T,
    H: tl.constexpr,
    E: tl.constexpr,
    EPS: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_HALF: tl.constexpr,
    WIDE: tl.constexpr,
):
    HALF: tl.constexpr = E // 2
    i_kt = tl.program_id(0).to(tl.int64)
    i_k = i_kt // T
    i_t = i_kt % T
    o_e = tl.arange(0, BLOCK_HALF)[None, :]
    m_e = o_e < HALF
    o_te = i_t * E + o_e
    b_cos1 = tl.load(p_cos + o_te, mask=m_e).to(WIDE)
    b_cos2 = tl.load(p_cos + HALF + o_te, mask=m_e).to(WIDE)
    b_sin1 = tl.load(p_sin + o_te, mask=m_e).to(WIDE)
    b_sin2 = tl.load(p_sin + HALF + o_te, mask=m_e).to(WIDE)
    for i_h in range(0, H, BLOCK_H):
        o_h = i_h + tl.arange(0, BLOCK_H)[:, None].to(tl.int64)
        m_he = (o_h < H) & m_e
        p_head = p_grad + i_k * stride_k + i_t * stride_t + o_h * stride_h + o_e
        b_grad1 = tl.load(p_head, mask=m_he, other=0.0).to(WIDE)
        b_grad2 = tl.load(p_head + HALF, mask=m_he, other=0.0).to(WIDE)
        b_1 = b_grad1 * b_cos1 + b_grad2 * b_sin2
        b_2 = b_grad2 * b_cos2 - b_grad1 * b_sin1
        o_he = i_kt * H * E + o_h * E + o_e
        if p_weight is not None:
            b_1 *= tl.load(p_weight + o_e, mask=m_e).to(WIDE)
            b_2 *= tl.load(p_weight + HALF + o_e, mask=m_e).to(WIDE)
            b_unit1 = tl.load(p_heads + o_he, mask=m_he, other=0.0).to(WIDE)
            b_unit2 = tl.load(p_heads + HALF + o_he, mask=m_he, other=0.0).to(WIDE)
            b_square = tl.sum(b_unit1 * b_unit1 + b_unit2 * b_unit2, 1)[:, None]
            b_rstd = tl.rsqrt(b_square / E + EPS)
            b_unit1 *= b_rstd
            b_unit2 *= b_rstd
            b_mean = tl.sum(b_1 * b_unit1 + b_2 * b_unit2, 1)[:, None] / E
            b_1 = (b_1 - b_unit1 * b_mean) * b_rstd
            b_2 = (b_2 - b_unit2 * b_mean) * b_rstd
        tl.store(p_result + o_he, b_1, mask=m_he)
        tl.store(p_result + HALF + o_he, b_2, mask=m_he)


def _tile(num_heads: int, head_size: int) -> dict[str, int]:
    half = triton.next_power_of_2(head_size // 2)
    heads = min(triton.next_power_of_2(num_heads), max(TILE // half, 1))
    return {"BLOCK_H": heads, "BLOCK_HALF": half, "num_warps": num_warps(2 * heads * half)}


def rope(
    heads: Tensor, cos: Tensor, sin: Tensor, weight: Tensor | None = None, eps: float = 0.0
) -> Tensor:
    """Rotate queries or keys, after their norm if there is one. See `reference.rope`.

    Reads and writes each head once. A program has a token of a path point and loops over tiles of
    whole heads.

    Raises:
        ValueError: If ``heads`` is to take the result and is not contiguous.
    """
    if weight is None:
        require_contiguous(heads=heads)
    num_points, num_tokens, num_heads, head_size = heads.shape
    rotated = heads if weight is None else heads.new_empty(heads.shape)
    launch(
        _rope_kernel,
        num_points * num_tokens,
        heads.contiguous(),
        rotated,
        cos.contiguous(),
        sin.contiguous(),
        None if weight is None else weight.contiguous(),
        num_tokens,
        H=num_heads,
        E=head_size,
        EPS=float(eps),
        WIDE=wide_tl(heads.dtype),
        **_tile(num_heads, head_size),
    )
    return rotated


def rope_backward(
    grad: Tensor,
    cos: Tensor,
    sin: Tensor,
    heads: Tensor | None = None,
    weight: Tensor | None = None,
    eps: float = 0.0,
) -> Tensor:
    """Return the gradient of what `rope` was given. See `reference.rope_backward`.

    Reads each head's gradient once, and the head if it was normed, and writes once; a transposed
    ``grad`` is read through its strides, not copied.

    Raises:
        ValueError: If there is a ``weight`` and no ``heads``.
    """
    if weight is not None and heads is None:
        raise ValueError("heads must be given with a weight, got None. Pass what rope was given.")
    num_points, num_tokens, num_heads, head_size = grad.shape
    result = grad if grad.is_contiguous() else grad.new_empty(grad.shape)
    source = grad if grad.stride(-1) == 1 else grad.contiguous()
    launch(
        _rope_backward_kernel,
        num_points * num_tokens,
        source,
        result,
        cos.contiguous(),
        sin.contiguous(),
        None if heads is None or weight is None else heads.contiguous(),
        None if weight is None else weight.contiguous(),
        *source.stride()[:3],
        num_tokens,
        H=num_heads,
        E=head_size,
        EPS=float(eps),
        WIDE=wide_tl(grad.dtype),
        **_tile(num_heads, head_size),
    )
    return result
