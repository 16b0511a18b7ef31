"""Each token's share of the integral: ``sum_k weights[k] <inputs - baseline, gradients[k]>``.

Axes: ``K`` path points, ``T`` tokens, ``D`` hidden size.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from segattr_kernels.launch import TILE, launch, num_warps, wide, wide_tl


@triton.jit
def _path_dot_kernel(
    p_inputs,
    p_baseline,
    p_gradients,
    p_weights,
    p_shares,
    stride_k,
    K,
    D: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    i_t = tl.program_id(0).to(tl.int64)
    b_share = tl.zeros([BLOCK], dtype=WIDE)
    for i_d in range(0, D, BLOCK):
        o_d = i_d + tl.arange(0, BLOCK)
        m_d = o_d < D
        o_td = i_t * D + o_d
        p_gradient = p_gradients + o_td
        b_gradient = tl.zeros([BLOCK], dtype=WIDE)
        i_k = 0
        while i_k < K:  # the interpreter before Triton 3.9 cannot take range() of an argument
            b_weight = tl.load(p_weights + i_k)
            b_gradient += b_weight * tl.load(p_gradient, mask=m_d, other=0.0).to(WIDE)
            p_gradient += stride_k
            i_k += 1
        b_inputs = tl.load(p_inputs + o_td, mask=m_d, other=0.0).to(WIDE)
        b_baseline = tl.load(p_baseline + o_td, mask=m_d, other=0.0).to(WIDE)
        b_share += (b_inputs - b_baseline) * b_gradient
    tl.store(p_shares + i_t, tl.sum(b_share, 0))


def path_dot(inputs: Tensor, baseline: Tensor, gradients: Tensor, weights: Tensor) -> Tensor:
    """Return each token's share of the integral, ``[T]``. See `segattr.reference.path_dot`.

    Reads everything once, ``(2 + K) T D`` elements, and writes ``T``. A program has a token; the
    points are summed before the product, in a fixed order. A strided argument is copied first.
    """
    shares = gradients.new_empty(len(inputs), dtype=wide(gradients.dtype))
    width = inputs.shape[1]
    block = min(triton.next_power_of_2(width), TILE)
    launch(
        _path_dot_kernel,
        len(inputs),
        inputs.contiguous(),
        baseline.contiguous(),
        gradients.contiguous(),
        weights.to(shares.device, shares.dtype).contiguous(),
        shares,
        inputs.numel(),
        len(gradients),
        D=width,
        BLOCK=block,
        WIDE=wide_tl(gradients.dtype),
        num_warps=num_warps(block),
    )
    return shares
