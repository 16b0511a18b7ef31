"""Each token's integrand at each path point: ``<inputs - baseline, gradients[k]>``.

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
    p_values,
    K,
    T,
    D: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    i = tl.program_id(0).to(tl.int64)
    i_t = i // K  # the points of a token are neighbours: its rows come from the cache
    i_k = i % K
    b_value = tl.zeros([BLOCK], dtype=WIDE)
    for i_d in range(0, D, BLOCK):
        o_d = i_d + tl.arange(0, BLOCK)
        m_d = o_d < D
        b_inputs = tl.load(p_inputs + i_t * D + o_d, mask=m_d, other=0.0).to(WIDE)
        b_baseline = tl.load(p_baseline + i_t * D + o_d, mask=m_d, other=0.0).to(WIDE)
        p_gradient = p_gradients + (i_k * T + i_t) * D + o_d
        b_gradient = tl.load(p_gradient, mask=m_d, other=0.0).to(WIDE)
        b_value += (b_inputs - b_baseline) * b_gradient
    tl.store(p_values + i_k * T + i_t, tl.sum(b_value, 0))


def path_dot(inputs: Tensor, baseline: Tensor, gradients: Tensor) -> Tensor:
    """Return each token's integrand, ``[K, T]``. See `reference.path_dot`.

    Reads ``(2 + K) T D`` elements, writes ``K T``. A program has a token at a point, and sums in a
    fixed order. A strided argument is copied first.
    """
    num_points, num_tokens, width = gradients.shape
    values = gradients.new_empty((num_points, num_tokens), dtype=wide(gradients.dtype))
    block = min(triton.next_power_of_2(width), TILE)
    launch(
        _path_dot_kernel,
        values.numel(),
        inputs.contiguous(),
        baseline.contiguous(),
        gradients.contiguous(),
        values,
        num_points,
        num_tokens,
        D=width,
        BLOCK=block,
        WIDE=wide_tl(gradients.dtype),
        num_warps=num_warps(block),
    )
    return values
