"""Sums of attributions inside segments, signed and absolute.

Axes: ``T`` tokens, ``S`` segments.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from segattr_kernels.launch import launch, num_warps

BLOCK_TOKENS = 256  # few segments of a real trace are longer


@triton.jit
def _segment_sum_kernel(p_attribution, p_spans, p_signed, p_absolute, BLOCK: tl.constexpr):
    i_s = tl.program_id(0).to(tl.int64)
    i_t = tl.load(p_spans + 2 * i_s)
    stop = tl.load(p_spans + 2 * i_s + 1)
    b_signed = tl.zeros([BLOCK], dtype=tl.float64)
    b_absolute = tl.zeros([BLOCK], dtype=tl.float64)
    while i_t < stop:  # the interpreter before Triton 3.9 cannot take range() of a value
        o_t = i_t + tl.arange(0, BLOCK)
        b_values = tl.load(p_attribution + o_t, mask=o_t < stop, other=0.0).to(tl.float64)
        b_signed += b_values
        b_absolute += tl.abs(b_values)
        i_t += BLOCK
    tl.store(p_signed + i_s, tl.sum(b_signed, 0))
    tl.store(p_absolute + i_s, tl.sum(b_absolute, 0))


def segment_sum(attribution: Tensor, spans: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    """Sum attributions inside each segment. See `reference.segment_sum`.

    Reads each token of a segment once. A program has a segment.
    """
    # What attribution[start:stop] means in Python, so that no program reads outside.
    inside = [slice(*span).indices(len(attribution))[:2] for span in spans]
    bounds = torch.tensor(inside, dtype=torch.int64, device=attribution.device)
    signed, absolute = attribution.new_empty(2, len(inside), dtype=torch.float64)
    launch(
        _segment_sum_kernel,
        len(inside),
        attribution.contiguous(),
        bounds,
        signed,
        absolute,
        BLOCK=BLOCK_TOKENS,
        num_warps=num_warps(BLOCK_TOKENS),
    )
    return signed, absolute
