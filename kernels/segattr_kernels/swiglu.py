"""The gate of the MLP, ``silu(gate) * up``, its gradient and its secant (Shazeer, 2020).

Axes: ``P`` pieces between path points, ``F`` MLP width; ``N`` all elements, of one point in the
secant.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from segattr_kernels.launch import TILE, launch, num_warps, require_contiguous, wide_tl
from segattr_kernels.logarithmic_mean import phi


@triton.jit
def _swiglu_kernel(p_gate, p_up, p_out, N, BLOCK: tl.constexpr, WIDE: tl.constexpr):
    o_n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    m_n = o_n < N
    b_gate = tl.load(p_gate + o_n, mask=m_n, other=0.0).to(WIDE)
    b_up = tl.load(p_up + o_n, mask=m_n).to(WIDE)
    b_silu = (b_gate / (1.0 + tl.exp(-b_gate))).to(p_out.dtype.element_ty).to(WIDE)
    tl.store(p_out + o_n, b_silu * b_up, mask=m_n)


@triton.jit
def _swiglu_backward_kernel(p_grad, p_gate, p_up, N, BLOCK: tl.constexpr, WIDE: tl.constexpr):
    o_n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    m_n = o_n < N
    b_grad = tl.load(p_grad + o_n, mask=m_n).to(WIDE)
    b_gate = tl.load(p_gate + o_n, mask=m_n, other=0.0).to(WIDE)
    b_up = tl.load(p_up + o_n, mask=m_n).to(WIDE)
    b_sigmoid = 1.0 / (1.0 + tl.exp(-b_gate))
    b_slope = b_sigmoid * (1.0 + b_gate * (1.0 - b_sigmoid))
    tl.store(p_gate + o_n, b_grad * b_up * b_slope, mask=m_n)
    tl.store(p_up + o_n, b_grad * b_gate * b_sigmoid, mask=m_n)


@triton.jit
def _logistic(b_x):
    """The logistic functions of x and -x, without an exponential that overflows."""
    b_fall = tl.exp(-tl.abs(b_x))
    b_larger = 1.0 / (1.0 + b_fall)
    b_smaller = b_fall * b_larger
    m_positive = b_x >= 0.0
    return tl.where(m_positive, b_larger, b_smaller), tl.where(m_positive, b_smaller, b_larger)


@triton.jit
def _swiglu_secant_kernel(
    p_grad, p_gate, p_up, p_to_gate, p_to_up, N, P, BLOCK: tl.constexpr, WIDE: tl.constexpr
):
    i = tl.program_id(0).to(tl.int64)
    i_p = i % P  # the pieces of a tile are neighbours: their common point comes from the cache
    o_n = i // P * BLOCK + tl.arange(0, BLOCK)
    m_n = o_n < N
    o_n += i_p * N
    b_gate0 = tl.load(p_gate + o_n, mask=m_n, other=0.0).to(WIDE)
    b_gate1 = tl.load(p_gate + o_n + N, mask=m_n, other=0.0).to(WIDE)
    b_on0, b_off0 = _logistic(b_gate0)
    b_on1, b_off1 = _logistic(b_gate1)
    b_gap = tl.abs(b_gate1 - b_gate0)
    b_bend = tl.maximum(b_on0, b_on1) * tl.maximum(b_off0, b_off1) * phi(b_gap, tl.exp(-b_gap))
    b_slope = (b_on0 + b_on1 + (b_gate0 + b_gate1) * b_bend) * 0.5
    b_grad = tl.load(p_grad + o_n, mask=m_n).to(WIDE)
    b_up = (tl.load(p_up + o_n, mask=m_n).to(WIDE) + tl.load(p_up + o_n + N, mask=m_n).to(WIDE)) / 2
    b_silu = (b_gate0 * b_on0 + b_gate1 * b_on1) * 0.5
    tl.store(p_to_gate + o_n, b_grad * b_up * b_slope, mask=m_n)
    tl.store(p_to_up + o_n, b_grad * b_silu, mask=m_n)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """Return ``silu(gate) * up``. See `reference.swiglu`.

    Reads two elements and writes one, per element. A strided argument is copied first.
    """
    out = gate.new_empty(gate.shape)
    launch(
        _swiglu_kernel,
        triton.cdiv(gate.numel(), TILE),
        gate.contiguous(),
        up.contiguous(),
        out,
        gate.numel(),
        BLOCK=TILE,
        WIDE=wide_tl(gate.dtype),
        num_warps=num_warps(TILE),
    )
    return out


def swiglu_backward(grad: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of ``gate`` and ``up``, there. See `reference.swiglu_backward`.

    Reads three elements and writes two, per element.

    Raises:
        ValueError: If ``gate`` or ``up`` is not contiguous.
    """
    require_contiguous(gate=gate, up=up)
    launch(
        _swiglu_backward_kernel,
        triton.cdiv(gate.numel(), TILE),
        grad.contiguous(),
        gate,
        up,
        gate.numel(),
        BLOCK=TILE,
        WIDE=wide_tl(gate.dtype),
        num_warps=num_warps(TILE),
    )
    return gate, up


def swiglu_secant(grad: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """Return the multipliers of ``gate`` and ``up``. See `reference.swiglu_secant`.

    Reads ``P + 2 (P + 1)`` elements and writes ``2 P``, per element of a point. A strided argument
    is copied first.
    """
    to_gate, to_up = grad.new_empty(grad.shape), grad.new_empty(grad.shape)
    num_elements = grad[:1].numel()
    launch(
        _swiglu_secant_kernel,
        len(grad) * triton.cdiv(num_elements, TILE),
        grad.contiguous(),
        gate.contiguous(),
        up.contiguous(),
        to_gate,
        to_up,
        num_elements,
        len(grad),
        BLOCK=TILE,
        WIDE=wide_tl(grad.dtype),
        num_warps=num_warps(TILE),
    )
    return to_gate, to_up
