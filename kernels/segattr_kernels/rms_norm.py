"""RMSNorm with the residual addition, its gradient and its secant (Zhang & Sennrich, 2019).

Axes: ``P`` pieces between path points, ``D`` hidden size; a program has whole rows of ``D``.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from segattr_kernels.launch import TILE, launch, num_warps, require_contiguous, wide, wide_tl

MAX_WIDTH = 16384  # a row lives in the registers of one program


@triton.jit
def _rms_norm_kernel(
    p_hidden,
    p_delta,
    p_weight,
    p_normed,
    p_rstd,
    D: tl.constexpr,
    EPS: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    i_row = tl.program_id(0).to(tl.int64)
    o_d = tl.arange(0, BLOCK)
    m_d = o_d < D
    o_row = i_row * D + o_d
    b_total = tl.load(p_hidden + o_row, mask=m_d, other=0.0).to(WIDE)
    if p_delta is not None:
        b_total += tl.load(p_delta + o_row, mask=m_d, other=0.0).to(WIDE)
        b_rounded = b_total.to(p_delta.dtype.element_ty)
        tl.store(p_delta + o_row, b_rounded, mask=m_d)
        b_total = b_rounded.to(WIDE)
    b_rstd = tl.rsqrt(tl.sum(b_total * b_total, 0) / D + EPS)
    b_unit = (b_total * b_rstd).to(p_normed.dtype.element_ty).to(WIDE)
    b_weight = tl.load(p_weight + o_d, mask=m_d).to(WIDE)
    tl.store(p_normed + o_row, b_unit * b_weight, mask=m_d)
    tl.store(p_rstd + i_row, b_rstd)


@triton.jit
def _rms_norm_backward_kernel(
    p_grad,
    p_hidden,
    p_weight,
    p_rstd,
    p_residual,
    D: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    i_row = tl.program_id(0).to(tl.int64)
    o_d = tl.arange(0, BLOCK)
    m_d = o_d < D
    o_row = i_row * D + o_d
    b_rstd = tl.load(p_rstd + i_row)
    b_scaled = tl.load(p_grad + o_row, mask=m_d, other=0.0).to(WIDE)
    b_scaled *= tl.load(p_weight + o_d, mask=m_d, other=0.0).to(WIDE)
    b_unit = tl.load(p_hidden + o_row, mask=m_d, other=0.0).to(WIDE) * b_rstd
    b_mean = tl.sum(b_scaled * b_unit, 0) / D
    b_result = (b_scaled - b_unit * b_mean) * b_rstd
    if p_residual is not None:
        b_result += tl.load(p_residual + o_row, mask=m_d).to(WIDE)
    tl.store(p_grad + o_row, b_result, mask=m_d)


@triton.jit
def _rms_norm_secant_kernel(
    p_grad,
    p_hidden,
    p_weight,
    p_residual,
    N,
    P,
    D: tl.constexpr,
    EPS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    i = tl.program_id(0).to(tl.int64)
    i_p = i % P  # the pieces of a row are neighbours: their common point comes from the cache
    o_n = i // P * ROWS + tl.arange(0, ROWS)[:, None]
    o_d = tl.arange(0, BLOCK)[None, :]
    m_d = o_d < D
    m_row = (o_n < N) & m_d
    o_row = (i_p * N + o_n) * D + o_d
    b_mean = tl.load(p_hidden + o_row, mask=m_row, other=0.0).to(WIDE)
    b_first = tl.rsqrt(tl.sum(b_mean * b_mean, 1) / D + EPS)
    o_next = ((i_p + 1) * N + o_n) * D + o_d
    b_next = tl.load(p_hidden + o_next, mask=m_row, other=0.0).to(WIDE)
    b_second = tl.rsqrt(tl.sum(b_next * b_next, 1) / D + EPS)
    b_mean = (b_mean + b_next) * 0.5
    b_scaled = tl.load(p_grad + o_row, mask=m_row, other=0.0).to(WIDE)
    b_scaled *= tl.load(p_weight + o_d, mask=m_d, other=0.0).to(WIDE)
    b_product = b_first * b_second
    b_bend = (2.0 / D) * b_product * b_product / (b_first + b_second)
    b_bend *= tl.sum(b_scaled * b_mean, 1)
    b_result = b_scaled * ((b_first + b_second) * 0.5)[:, None] - b_mean * b_bend[:, None]
    if p_residual is not None:
        b_result += tl.load(p_residual + o_row, mask=m_row).to(WIDE)
    tl.store(p_grad + o_row, b_result, mask=m_row)


def _block(width: int) -> int:
    if width > MAX_WIDTH:
        raise ValueError(
            f"the hidden size must be at most {MAX_WIDTH}, got {width}. "
            "Pass backend='torch' for such a model."
        )
    return triton.next_power_of_2(width)


def rms_norm(
    hidden: Tensor, weight: Tensor, eps: float, delta: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Add ``delta`` to the residual stream and normalise the sum. See `reference.rms_norm`.

    Reads two rows and writes two, one of each without a delta. A program has a row.

    Raises:
        ValueError: If ``delta`` is not contiguous, or ``D`` is above 16384.
    """
    width = hidden.shape[-1]
    block = _block(width)
    if delta is not None:
        require_contiguous(delta=delta)
    source = hidden.contiguous()
    normed = source.new_empty(source.shape)
    rstd = source.new_empty(source.shape[:-1], dtype=wide(source.dtype))
    launch(
        _rms_norm_kernel,
        rstd.numel(),
        source,
        delta,
        weight.contiguous(),
        normed,
        rstd,
        D=width,
        EPS=float(eps),
        BLOCK=block,
        WIDE=wide_tl(source.dtype),
        num_warps=num_warps(block),
    )
    return normed, hidden if delta is None else delta, rstd


def rms_norm_backward(
    grad: Tensor, hidden: Tensor, weight: Tensor, rstd: Tensor, residual: Tensor | None = None
) -> Tensor:
    """Return the gradient below a norm, in ``grad``. See `reference.rms_norm_backward`.

    Reads three rows, two without a residual, and writes one. A program has a row.

    Raises:
        ValueError: If ``grad`` is not contiguous, or ``D`` is above 16384.
    """
    width = grad.shape[-1]
    block = _block(width)
    require_contiguous(grad=grad)
    launch(
        _rms_norm_backward_kernel,
        rstd.numel(),
        grad,
        hidden.contiguous(),
        weight.contiguous(),
        rstd.contiguous(),
        None if residual is None else residual.contiguous(),
        D=width,
        BLOCK=block,
        WIDE=wide_tl(grad.dtype),
        num_warps=num_warps(block),
    )
    return grad


def rms_norm_secant(
    grad: Tensor, hidden: Tensor, weight: Tensor, eps: float, residual: Tensor | None = None
) -> Tensor:
    """Return the multipliers below a norm, in ``grad``. See `reference.rms_norm_secant`.

    Reads ``3 P + 1`` rows, ``2 P + 1`` without a residual, and writes ``P``. A program has a row of
    a piece, or several short ones.

    Raises:
        ValueError: If ``grad`` is not contiguous, or ``D`` is above 16384.
    """
    width = grad.shape[-1]
    block = _block(width)
    require_contiguous(grad=grad)
    num_rows = grad[:1].numel() // width
    rows = max(TILE // block, 1)
    launch(
        _rms_norm_secant_kernel,
        len(grad) * triton.cdiv(num_rows, rows),
        grad,
        hidden.contiguous(),
        weight.contiguous(),
        None if residual is None else residual.contiguous(),
        num_rows,
        len(grad),
        D=width,
        EPS=float(eps),
        ROWS=rows,
        BLOCK=block,
        WIDE=wide_tl(grad.dtype),
        num_warps=num_warps(rows * block),
    )
    return grad
