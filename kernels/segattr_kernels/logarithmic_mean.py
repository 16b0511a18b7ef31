"""The logarithmic mean of two exponentials: the larger one times phi of the exponents' gap."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def phi(b_gap, b_fall):
    """``(1 - exp(-x)) / x`` of what is not negative, given ``exp(-x)`` too; 1 at 0.

    ``1 - exp(-x)`` loses digits where x is small. There ``(1 + exp(-x)) / 2 tanh(x / 2) / (x / 2)``
    is the same, by Lambert's continued fraction of tanh, cut off where 4e-17 is missing.
    """
    b_square = b_gap * b_gap * 0.25
    m_small = b_gap < 0.5
    b_above = (b_square * 21.0 + 1260.0) * b_square + 10395.0
    b_below = ((b_square + 210.0) * b_square + 4725.0) * b_square + 10395.0
    b_above *= (b_fall + 1.0) * 0.5
    return tl.where(m_small, b_above, 1.0 - b_fall) / tl.where(m_small, b_below, b_gap)
