"""Tiles of attention's secant: where they lie in memory, and what is made of them in registers.

Axes and names: see attention_secant.py.
"""

from __future__ import annotations

import triton
import triton.language as tl

from segattr_kernels.logarithmic_mean import phi

COUNTS = ["first", "window", "R", "T"]  # of a kernel's arguments: compiled once for all of them
HIDDEN_SCORE = tl.constexpr(-1e30)  # of a token that a row does not see: -inf gives NaN
# Whether tl.dot takes it; some versions before do.
FLOAT64_DOT = tl.constexpr(tuple(map(int, triton.__version__.split(".")[:2])) >= (3, 6))


@triton.jit
def place(count, HEADS: tl.constexpr, BLOCK: tl.constexpr):
    """A program's point or piece, its head, and where its block begins."""
    i = tl.program_id(0)
    num_blocks = (count + BLOCK - 1) // BLOCK
    i_head = i // num_blocks
    return (i_head // HEADS).to(tl.int64), i_head % HEADS, i % num_blocks * BLOCK


@triton.jit
def seen(o_row, o_token, window):
    return (o_token <= o_row) & (o_row - o_token < window)


@triton.jit
def tile(p_head, o_row, count, STRIDE: tl.constexpr, E: tl.constexpr, DOT: tl.constexpr):
    """Rows of one head, zeros beyond them; ``tl.dot`` asks for 16 columns."""
    o_e = tl.arange(0, triton.next_power_of_2((E - 1) | 15))[None, :]
    m_row = (o_row < count)[:, None] & (o_e < E)
    p_row = p_head + o_row.to(tl.int64)[:, None] * STRIDE
    return tl.load(p_row + o_e, mask=m_row, other=0.0).to(DOT)


@triton.jit
def store_tile(p_head, o_row, count, b_rows, STRIDE: tl.constexpr, E: tl.constexpr):
    o_e = tl.arange(0, triton.next_power_of_2((E - 1) | 15))[None, :]
    m_row = (o_row < count)[:, None] & (o_e < E)
    tl.store(p_head + o_row.to(tl.int64)[:, None] * STRIDE + o_e, b_rows, mask=m_row)


@triton.jit
def log_sum_exps(p_s, i_k, i_h, R, H: tl.constexpr):
    return p_s + (i_k * 2 * H + i_h) * R


@triton.jit
def centres(p_s, i_p, i_h, R, H: tl.constexpr):
    return p_s + ((i_p * 2 + 1) * H + i_h) * R


@triton.jit
def rows(p_q, p_g, p_s, i_p, i_h, o_r, R, H: tl.constexpr, E: tl.constexpr, DOT: tl.constexpr):
    """``q0``, ``q1``, ``g``, ``l0`` and ``l1`` of a piece and head."""
    o_head = (i_p * R * H + i_h) * E
    b_q0 = tile(p_q + o_head, o_r, R, H * E, E, DOT)
    b_q1 = tile(p_q + ((i_p + 1) * R * H + i_h) * E, o_r, R, H * E, E, DOT)
    b_g = tile(p_g + o_head, o_r, R, H * E, E, DOT)
    b_l0 = tl.load(log_sum_exps(p_s, i_p, i_h, R, H) + o_r, mask=o_r < R, other=0.0)
    b_l1 = tl.load(log_sum_exps(p_s, i_p + 1, i_h, R, H) + o_r, mask=o_r < R, other=0.0)
    return b_q0, b_q1, b_g, b_l0, b_l1


@triton.jit
def dot(b_left, b_right):
    if b_left.dtype != tl.float64:
        b_product = tl.dot(b_left, b_right, input_precision="ieee")
    elif FLOAT64_DOT:
        b_product = tl.dot(b_left, b_right, out_dtype=tl.float64)
    else:
        b_product = tl.sum(b_left[:, :, None] * b_right[None, :, :], 1)
    return b_product


@triton.jit
def add_dots(b_sum, b_left, b_right0, b_right1):
    """One after the other, and not of the mean, which would have to be rounded."""
    b_sum += dot(b_left, b_right0)
    return b_sum + dot(b_left, b_right1)


@triton.jit
def scores(b_left, b_right, m_seen, SCALE: tl.constexpr):
    return tl.where(m_seen, dot(b_left, tl.trans(b_right)) * SCALE, HIDDEN_SCORE)


@triton.jit
def shares_and_weights(b_log0, b_log1, MEAN: tl.constexpr):
    """What carries to the values, and the logarithmic mean, of both ends' log-probabilities."""
    b_gap = tl.abs(b_log1 - b_log0)
    b_larger = tl.exp(tl.maximum(b_log0, b_log1))
    b_fall = tl.exp(-b_gap)
    if MEAN:
        b_shares = b_larger * (b_fall + 1.0) * 0.5
    else:
        b_shares = tl.where(b_log1 < b_log0, b_larger * b_fall, b_larger)
    return b_shares, b_larger * phi(b_gap, b_fall)
