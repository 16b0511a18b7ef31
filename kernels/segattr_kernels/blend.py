"""Points of the straight path: ``baseline + alpha (inputs - baseline)``.

Axes: ``K`` path points, ``T`` tokens, ``D`` hidden size; ``N = T D``.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from segattr_kernels.launch import TILE, launch, num_warps, wide, wide_tl


@triton.jit
def _blend_kernel(
    p_inputs, p_baseline, p_alphas, p_points, N, K, BLOCK: tl.constexpr, WIDE: tl.constexpr
):
    o_n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    m_n = o_n < N
    b_start = tl.load(p_baseline + o_n, mask=m_n).to(WIDE)
    b_difference = tl.load(p_inputs + o_n, mask=m_n).to(WIDE) - b_start
    p_point = p_points + o_n
    i_k = 0
    while i_k < K:  # the interpreter before Triton 3.9 cannot take range() of an argument
        tl.store(p_point, b_start + tl.load(p_alphas + i_k) * b_difference, mask=m_n)
        p_point += N
        i_k += 1


def blend(inputs: Tensor, baseline: Tensor, alphas: Tensor) -> Tensor:
    """Return the points of the straight path, ``[K, T, D]``. See `reference.blend`.

    Reads both ends once and writes K points: ``(2 + K) T D`` elements. A program has a tile of the
    flattened ``[T, D]`` and loops over the points. A strided argument is copied first.
    """
    points = inputs.new_empty(len(alphas), *inputs.shape)
    launch(
        _blend_kernel,
        triton.cdiv(inputs.numel(), TILE),
        inputs.contiguous(),
        baseline.contiguous(),
        alphas.to(inputs.device, wide(inputs.dtype)).contiguous(),
        points,
        inputs.numel(),
        len(alphas),
        BLOCK=TILE,
        WIDE=wide_tl(inputs.dtype),
        num_warps=num_warps(TILE),
    )
    return points
