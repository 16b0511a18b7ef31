"""The secant of causal attention, in blocks: no matrix of all queries and keys is ever in memory.

In the manner of flash attention (Dao, 2023), with more to know of a row than its log-sum-exp: that
at both ends of a piece, and its *centre*, the mean of ``to_shares`` weighted by the logarithmic
mean L of both ends' probabilities. A kernel each for the two, and for what comes of them: the
multipliers of the queries, and those of the keys and values.
Axes: ``P`` pieces, ``R`` query rows, ``T`` tokens, ``H`` query heads, ``N`` key heads, ``E`` head
size; ``M`` rows and ``B`` tokens are a block. Names: ``q`` queries, ``k`` keys, ``v`` values, ``g``
multipliers of the result, ``l`` log-sum-exps, ``c`` centres; ``0`` and ``1`` number the ends.
"""

from __future__ import annotations

import os
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from segattr_kernels.attention_rows import centre_kernel, log_sum_exp_kernel, to_queries_kernel
from segattr_kernels.attention_tiles import (
    COUNTS,
    add_dots,
    centres,
    dot,
    place,
    rows,
    scores,
    seen,
    shares_and_weights,
    store_tile,
    tile,
)
from segattr_kernels.launch import launch, wide

MAX_HEAD_SIZE = 256  # half of it in float64: blocks lie in shared memory


@triton.jit
def _tokens(p_k, p_v, o_t, T, N: tl.constexpr, E: tl.constexpr, DOT: tl.constexpr):
    """``k0``, ``k1``, ``v0`` and ``v1`` of tokens; the pointers are those of one head."""
    o_next = T.to(tl.int64) * (N * E)
    b_k0 = tile(p_k, o_t, T, N * E, E, DOT)
    b_k1 = tile(p_k + o_next, o_t, T, N * E, E, DOT)
    b_v0 = tile(p_v, o_t, T, N * E, E, DOT)
    b_v1 = tile(p_v + o_next, o_t, T, N * E, E, DOT)
    return b_k0, b_k1, b_v0, b_v1


@triton.jit
def _token_block(
    k0,
    k1,
    v0,
    v1,
    q0,
    q1,
    g,
    l0,
    l1,
    c,
    o_at,
    o_t,
    window,
    SCALE: tl.constexpr,
    MEAN: tl.constexpr,
):
    """Shares, and the multipliers of the scores, of tokens and rows, ``[B, M]``."""
    m_seen = seen(o_at[None, :], o_t[:, None], window)
    b_log0 = scores(k0, q0, m_seen, SCALE) - l0[None, :]
    b_log1 = scores(k1, q1, m_seen, SCALE) - l1[None, :]
    b_shares, b_weights = shares_and_weights(b_log0, b_log1, MEAN)
    b_to_shares = dot(v0, tl.trans(g))
    if MEAN:
        b_to_shares = (b_to_shares + dot(v1, tl.trans(g))) * 0.5
    return b_shares, b_weights * (b_to_shares - c[None, :])


@triton.jit(do_not_specialize=COUNTS)
def _to_tokens_kernel(
    p_q,
    p_g,
    p_k,
    p_v,
    p_s,
    p_to_k,
    p_to_v,
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
    i_p, i_n, i_t = place(T, N, B)
    o_t = i_t + tl.arange(0, B)
    o_k = (i_p * T * N + i_n) * E
    k0, k1, v0, v1 = _tokens(p_k + o_k, p_v + o_k, o_t, T, N, E, DOT)
    to_k = tl.zeros(k0.shape, p_s.dtype.element_ty)
    to_v = tl.zeros(k0.shape, p_s.dtype.element_ty)
    stop = tl.minimum(i_t + B - 1 + window - first, R)
    for i_h in range(i_n * (H // N), (i_n + 1) * (H // N)):
        for i_r in range(tl.maximum(i_t - first, 0), stop, M):
            o_r = i_r + tl.arange(0, M)
            q0, q1, g, l0, l1 = rows(p_q, p_g, p_s, i_p, i_h, o_r, R, H, E, DOT)
            c = tl.load(centres(p_s, i_p, i_h, R, H) + o_r, mask=o_r < R, other=0.0)
            shares, to_scores = _token_block(
                k0, k1, v0, v1, q0, q1, g, l0, l1, c, first + o_r, o_t, window, SCALE, MEAN
            )
            to_v += dot(shares.to(p_q.dtype.element_ty).to(DOT), g)
            to_k = add_dots(to_k, to_scores.to(p_q.dtype.element_ty).to(DOT), q0, q1)
    store_tile(p_to_k + o_k, o_t, T, to_k * (SCALE * 0.5), N * E, E)
    store_tile(p_to_v + o_k, o_t, T, to_v, N * E, E)


def _settings(
    heads: int, key_heads: int, head_size: int, scale: float, dtype: torch.dtype
) -> dict[str, Any]:
    """Blocks as large as the registers allow: tests/engine/test_triton_compile.py."""
    block = (64, 32) if head_size <= 128 else (16, 32)
    if dtype.itemsize > 2:  # without tensor cores a thread has whole rows
        block = (16, 16)
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"  # which multiplies bfloat16 as integers
    factors = torch.float32 if interpreted and dtype == torch.bfloat16 else dtype
    return {
        "H": heads,
        "N": key_heads,
        "E": head_size,
        "SCALE": float(scale),
        "M": block[0],
        "B": block[1],
        "DOT": getattr(tl, str(factors).removeprefix("torch.")),
        "num_warps": 8,
        "num_stages": 2,
        "maxnreg": 255,  # or the assembler spills to get by with 128
        "enable_fp_fusion": True,
    }


def attention_secant(
    grad: Tensor,
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    scale: float,
    first: int = 0,
    window: int | None = None,
    split: str = "mean",
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the multipliers of queries, keys and values. See `reference.attention_secant`.

    Sums are in float32, or float64 for float64, and in a fixed order; probabilities and what is
    carried to scores are rounded to the tensors' dtype before a product, as in flash attention.
    Memory beside the results: two numbers a point, head and row. A strided argument is copied.

    Raises:
        ValueError: If the head size is above 256, or 128 in float64.
    """
    (pieces, rows, heads, head_size), (_, tokens, key_heads, _) = grad.shape, keys.shape
    most = MAX_HEAD_SIZE if grad.dtype != torch.float64 else MAX_HEAD_SIZE // 2
    if head_size > most:
        raise ValueError(
            f"the head size must be at most {most} in {grad.dtype}, got {head_size}. "
            "Pass backend='torch' for such a model."
        )
    to_queries = grad.new_empty(grad.shape)
    to_keys, to_values = (keys.new_empty((pieces, *keys.shape[1:])) for _ in range(2))
    # Log-sum-exps of a point, and the centres of the piece that begins there.
    statistics = grad.new_empty((pieces + 1, 2, heads, rows), dtype=wide(grad.dtype))
    queries, grad, keys, values = (x.contiguous() for x in (queries, grad, keys, values))
    given = (queries, grad, keys, values, statistics)
    sizes = (first, tokens if window is None else window, rows, tokens)
    settings = _settings(heads, key_heads, head_size, scale, grad.dtype)
    blocks = heads * triton.cdiv(rows, settings["M"])
    launch(log_sum_exp_kernel, (pieces + 1) * blocks, queries, keys, statistics, *sizes, **settings)
    settings["MEAN"] = split == "mean"
    launch(centre_kernel, pieces * blocks, *given, *sizes, **settings)
    launch(to_queries_kernel, pieces * blocks, *given, to_queries, *sizes, **settings)
    blocks = key_heads * triton.cdiv(tokens, settings["B"])
    launch(_to_tokens_kernel, pieces * blocks, *given, to_keys, to_values, *sizes, **settings)
    return to_queries, to_keys, to_values
