"""The gate of the MLP, ``silu(gate) * up``, and its gradient (Shazeer, 2020).

Axes: ``F`` MLP width; ``N`` all elements.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from segattr_kernels.launch import TILE, launch, num_warps, require_contiguous, wide_tl


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
