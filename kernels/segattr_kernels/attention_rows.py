"""What attention's secant finds row by row: log-sum-exps, centres, the queries' multipliers.

Axes and names: see attention_secant.py. A program has a block of rows of one query head and loops
over the tokens that they see.
"""

from __future__ import annotations

import triton
import triton.language as tl

from segattr_kernels.attention_tiles import (
    COUNTS,
    HIDDEN_SCORE,
    add_dots,
    centres,
    dot,
    log_sum_exps,
    place,
    rows,
    scores,
    seen,
    shares_and_weights,
    store_tile,
    tile,
)


@triton.jit
def _tokens_seen(i_row, window, T, M: tl.constexpr, B: tl.constexpr):
    """From where to where in blocks, by ``M`` rows from position ``i_row`` on."""
    return tl.maximum(i_row - window + 1, 0) // B * B, tl.minimum(i_row + M, T)


@triton.jit(do_not_specialize=COUNTS)
def log_sum_exp_kernel(
    p_q,
    p_k,
    p_s,
    first,
    window,
    R,
    T,
    H: tl.constexpr,
    N: tl.constexpr,
    E: tl.constexpr,
    SCALE: tl.constexpr,
    M: tl.constexpr,
    B: tl.constexpr,
    DOT: tl.constexpr,
):
    i_k, i_h, i_r = place(R, H, M)
    o_r = i_r + tl.arange(0, M)
    b_q = tile(p_q + (i_k * R * H + i_h) * E, o_r, R, H * E, E, DOT)
    p_k += (i_k * T * N + i_h // (H // N)) * E
    b_max = tl.full([M], HIDDEN_SCORE, p_s.dtype.element_ty)
    b_sum = tl.zeros([M], p_s.dtype.element_ty)
    start, stop = _tokens_seen(first + i_r, window, T, M, B)
    for i_t in range(start, stop, B):
        o_t = i_t + tl.arange(0, B)
        m_seen = seen(first + o_r[:, None], o_t[None, :], window)
        b_scores = scores(b_q, tile(p_k, o_t, T, N * E, E, DOT), m_seen, SCALE)
        b_larger = tl.maximum(b_max, tl.max(b_scores, 1))
        b_sum = b_sum * tl.exp(b_max - b_larger) + tl.sum(tl.exp(b_scores - b_larger[:, None]), 1)
        b_max = b_larger
    tl.store(log_sum_exps(p_s, i_k, i_h, R, H) + o_r, b_max + tl.log(b_sum), mask=o_r < R)


@triton.jit
def _row_block(
    b_q0,
    b_q1,
    b_g,
    b_l0,
    b_l1,
    p_k,
    p_v,
    o_at,
    o_t,
    window,
    T,
    N: tl.constexpr,
    E: tl.constexpr,
    SCALE: tl.constexpr,
    MEAN: tl.constexpr,
    DOT: tl.constexpr,
):
    """L and ``to_shares`` of rows and tokens, ``[M, B]``, and the tokens' ``k0`` and ``k1``."""
    o_next = T.to(tl.int64) * (N * E)
    m_seen = seen(o_at[:, None], o_t[None, :], window)
    b_to_shares = dot(b_g, tl.trans(tile(p_v, o_t, T, N * E, E, DOT)))
    if MEAN:
        b_to_shares += dot(b_g, tl.trans(tile(p_v + o_next, o_t, T, N * E, E, DOT)))
        b_to_shares *= 0.5
    b_k0 = tile(p_k, o_t, T, N * E, E, DOT)
    b_log0 = scores(b_q0, b_k0, m_seen, SCALE) - b_l0[:, None]
    b_k1 = tile(p_k + o_next, o_t, T, N * E, E, DOT)
    b_log1 = scores(b_q1, b_k1, m_seen, SCALE) - b_l1[:, None]
    _, b_weights = shares_and_weights(b_log0, b_log1, MEAN)
    return b_weights, b_to_shares, b_k0, b_k1


@triton.jit(do_not_specialize=COUNTS)
def centre_kernel(
    p_q,
    p_g,
    p_k,
    p_v,
    p_s,
    first,
    window,
    R,
    T,
    H: tl.constexpr,
    N: tl.constexpr,
    E: tl.constexpr,
    SCALE: tl.constexpr,
    MEAN: tl.constexpr,
    M: tl.constexpr,
    B: tl.constexpr,
    DOT: tl.constexpr,
):
    i_p, i_h, i_r = place(R, H, M)
    o_r = i_r + tl.arange(0, M)
    o_at = first + o_r
    b_q0, b_q1, b_g, b_l0, b_l1 = rows(p_q, p_g, p_s, i_p, i_h, o_r, R, H, E, DOT)
    p_k += (i_p * T * N + i_h // (H // N)) * E
    p_v += (i_p * T * N + i_h // (H // N)) * E
    b_sum = tl.zeros_like(b_l0) + 1e-30  # a row beyond the last may see nothing
    b_weighted = tl.zeros_like(b_l0)
    start, stop = _tokens_seen(first + i_r, window, T, M, B)
    for i_t in range(start, stop, B):
        o_t = i_t + tl.arange(0, B)
        b_weights, b_to_shares, _, _ = _row_block(
            b_q0, b_q1, b_g, b_l0, b_l1, p_k, p_v, o_at, o_t, window, T, N, E, SCALE, MEAN, DOT
        )
        b_sum += tl.sum(b_weights, 1)
        b_weighted += tl.sum(b_weights * b_to_shares, 1)
    tl.store(centres(p_s, i_p, i_h, R, H) + o_r, b_weighted / b_sum, mask=o_r < R)


@triton.jit(do_not_specialize=COUNTS)
def to_queries_kernel(
    p_q,
    p_g,
    p_k,
    p_v,
    p_s,
    p_to_q,
    first,
    window,
    R,
    T,
    H: tl.constexpr,
    N: tl.constexpr,
    E: tl.constexpr,
    SCALE: tl.constexpr,
    MEAN: tl.constexpr,
    M: tl.constexpr,
    B: tl.constexpr,
    DOT: tl.constexpr,
):
    i_p, i_h, i_r = place(R, H, M)
    o_r = i_r + tl.arange(0, M)
    o_at = first + o_r
    b_q0, b_q1, b_g, b_l0, b_l1 = rows(p_q, p_g, p_s, i_p, i_h, o_r, R, H, E, DOT)
    b_c = tl.load(centres(p_s, i_p, i_h, R, H) + o_r, mask=o_r < R, other=0.0)
    p_k += (i_p * T * N + i_h // (H // N)) * E
    p_v += (i_p * T * N + i_h // (H // N)) * E
    b_to_q = tl.zeros(b_q0.shape, b_l0.dtype)
    start, stop = _tokens_seen(first + i_r, window, T, M, B)
    for i_t in range(start, stop, B):
        o_t = i_t + tl.arange(0, B)
        b_weights, b_to_shares, b_k0, b_k1 = _row_block(
            b_q0, b_q1, b_g, b_l0, b_l1, p_k, p_v, o_at, o_t, window, T, N, E, SCALE, MEAN, DOT
        )
        b_to_scores = b_weights * (b_to_shares - b_c[:, None])
        b_to_scores = b_to_scores.to(p_k.dtype.element_ty).to(DOT)
        b_to_q = add_dots(b_to_q, b_to_scores, b_k0, b_k1)
    p_to_q += (i_p * R * H + i_h) * E
    store_tile(p_to_q, o_r, R, b_to_q * (SCALE * 0.5), H * E, E)
