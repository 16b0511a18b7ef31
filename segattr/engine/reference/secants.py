"""Secants of the decoder's ops: what takes the place of their gradients between two path points.

For a function f and two points u and v, a secant is a matrix S with ``S (v - u) = f(v) - f(u)``;
its transpose carries *multipliers* m from f's output to its input, as the transposed Jacobian does
gradients, so that ``<m, f(v) - f(u)> = <S^T m, v - u>``: nothing is lost on the way. Where u = v,
S is the Jacobian. A bar is the mean over both points, s the logistic function,
``phi(x) = (1 - exp(-x)) / x``, and L the logarithmic mean, ``(b - a) / (log b - log a)``.

    y = norm(x)           to x: w rbar m - (2 / D) (r0 r1)^2 / (r0 + r1) <w m, xbar> xbar
    y = silu(g) u         to u: mean silu(g) m
                          to g: ubar m (mean s(g) + gbar s(larger g) s(-smaller g) phi(|g1 - g0|))
    y = gelu(g) u         the same with s(v(g)) in the place of s(g), v(g) = 2 c (g + a g^3), and
                          s's secant times that of v, 2 c (1 + a (g0^2 + g0 g1 + g1^2))
    y = c tanh(x / c)     to x: 4 m times the secant of s from 2 x0 / c to 2 x1 / c
    P = softmax(Z)        to Z: L (m - <L, m> / sum L), L of both P
    O = P V               to V: Pbar^T m, to P: m Vbar^T
    Z = c Q K^T           to Q: c m Kbar, to K: c m^T Qbar
    y = log softmax(z)_i  to z: m (e_i - L / sum L)

These are exact differences of products (``d(uv) = ubar dv + vbar du``) and of ``log``. No
difference is divided by another, so rounding does no more harm than in a gradient. The ideas
behind: the rescale rule of DeepLIFT (Shrikumar et al., 2017), and the logarithmic mean as the
weight that splits a change exactly (Sato, 1976; Vartia, 1976).

Points are stacked along the first axis; piece p lies between points p and p + 1.
Axes: ``P`` pieces, ``T`` tokens, ``R`` query rows, ``D`` hidden size, ``F`` MLP width, ``H`` query
heads, ``N`` key heads, ``G`` queries per key head, ``E`` head size, ``V`` vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from segattr.engine.reference.dtype import compute_dtype
from segattr.engine.reference.gradients import softcap

SPLITS = ("mean", "content")
# Probabilities of one block of attention: as many as stay in a CPU's cache.
BLOCK = {"cpu": 2**20, "cuda": 2**25}
MOST_ROWS = 128
TWO_C, CUBE = math.sqrt(8 / math.pi), 0.044715  # of GELU's tanh form
HIDDEN_SCORE = -1e30  # of a token that a query does not see: -inf would give NaN as a difference


def rms_norm_secant(
    grad: Tensor, hidden: Tensor, weight: Tensor, eps: float, residual: Tensor | None = None
) -> Tensor:
    """Return the multipliers of the residual stream below a norm.

    Args:
        grad: Multipliers of the norm's output, contiguous, ``[P, ..., D]``; overwritten with the
            result.
        hidden: What was normalised at the points, ``[P + 1, ..., D]``.
        weight: ``[D]``.
        eps: Added to the mean square.
        residual: Multipliers that flow past the norm, ``[P, ..., D]``.
    """
    points = hidden.to(compute_dtype(grad.dtype))
    rstd = points.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
    mean = (points[:-1] + points[1:]).div_(2)
    scaled = grad.to(mean.dtype) * weight.to(mean.dtype)
    first, second = rstd[:-1], rstd[1:]
    bend = 2 / grad.shape[-1] * (first * second).square() / (first + second)
    bend = bend * torch.linalg.vecdot(scaled, mean)[..., None]
    result = scaled.mul_((first + second) / 2).sub_(mean.mul_(bend))
    return grad.copy_(result if residual is None else result.add_(residual))


def swiglu_secant(grad: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """Return the multipliers of ``gate`` and ``up``, ``[P, ..., F]`` each.

    Args:
        grad: Multipliers of ``silu(gate) * up``, ``[P, ..., F]``.
        gate: At the points, ``[P + 1, ..., F]``.
        up: In the shape of ``gate``.
    """
    return _gated_secant(grad, gate, up, F.silu, _silu_slope)


def geglu_secant(grad: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """Return the multipliers of ``gate`` and ``up`` of `geglu` as `swiglu_secant` does."""
    return _gated_secant(grad, gate, up, partial(F.gelu, approximate="tanh"), _gelu_slope)


def _gated_secant(
    grad: Tensor,
    gate: Tensor,
    up: Tensor,
    activation: Callable[[Tensor], Tensor],
    slope: Callable[[Tensor, Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    wide = compute_dtype(grad.dtype)
    gate, up = gate.to(wide), up.to(wide)
    activated = activation(gate)
    to_up = (activated[:-1] + activated[1:]).div_(2).mul_(grad)
    to_gate = slope(gate[:-1], gate[1:]).mul_(up[:-1] + up[1:]).div_(2).mul_(grad)
    return to_gate.to(grad.dtype), to_up.to(grad.dtype)


def softcap_slope(first: Tensor, second: Tensor, bound: float) -> Tensor:
    """Return the slope of `softcap` from one value to another; its derivative where both are equal.

    Args:
        first: Float32 or better.
        second: In the shape of ``first``.
        bound: As in `softcap`.
    """
    return _logistic_slope(first * (2 / bound), second * (2 / bound)).mul_(4)


def _silu_slope(first: Tensor, second: Tensor) -> Tensor:
    """``(silu(v) - silu(u)) / (v - u)``, and silu's derivative where both are equal."""
    bend = _logistic_slope(first, second).mul_(first + second)
    return bend.add_(torch.sigmoid(first)).add_(torch.sigmoid(second)).div_(2)


def _gelu_slope(first: Tensor, second: Tensor) -> Tensor:
    """The same of GELU's tanh form, ``gelu(g) = g s(v(g))``."""
    inner = [TWO_C * (gate + CUBE * gate**3) for gate in (first, second)]
    bend = _logistic_slope(*inner).mul_(first + second)
    squares = first.square().addcmul_(first, second).addcmul_(second, second)
    bend.mul_(squares.mul_(CUBE).add_(1).mul_(TWO_C))
    return bend.add_(torch.sigmoid(inner[0])).add_(torch.sigmoid(inner[1])).div_(2)


def _logistic_slope(first: Tensor, second: Tensor) -> Tensor:
    """``(s(v) - s(u)) / (v - u)`` of the logistic function, and its derivative where equal."""
    larger, smaller = torch.maximum(first, second), torch.minimum(first, second)
    slope = torch.sigmoid(larger).mul_(torch.sigmoid(-smaller))
    return slope.mul_(_phi(larger.sub_(smaller)))


def _phi(gap: Tensor) -> Tensor:
    """``(1 - exp(-x)) / x`` of what is not negative; 1 at 0."""
    smallest = torch.finfo(gap.dtype).tiny
    return torch.expm1(-gap).neg_().add_(smallest).div_(gap + smallest)


def log_softmax_secant(first: Tensor, second: Tensor) -> Tensor:
    """Return the weights ``L / sum L`` that carry a change of log-probabilities to the logits.

    Args:
        first: Log-probabilities at one point, ``[..., V]``.
        second: At the other.

    Returns:
        In the shape of both; sums to 1 over ``V``. Where both are equal: the probabilities.
    """
    larger, gap = torch.maximum(first, second), (second - first).abs_()
    weights = larger.exp_().mul_(_phi(gap))
    return weights.div_(weights.sum(-1, keepdim=True))


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
    """Return the multipliers of the queries, keys and values of causal attention.

    Probabilities are computed again, a block of query rows at a time.

    Args:
        grad: Multipliers of the attention's result, ``[P, R, H, E]``.
        queries: At the points, ``[P + 1, R, H, E]``.
        keys: ``[P + 1, T, N, E]``.
        values: In the shape of ``keys``.
        scale: What scores are multiplied by.
        first: Position of the first query row.
        window: Tokens a query sees, itself included; ``None``: all.
        split: How a change of ``P V`` is shared: ``"mean"``, or ``"content"``:
            ``P1 dV + dP V0``.

    Returns:
        ``[P, R, H, E]``, ``[P, T, N, E]`` and ``[P, T, N, E]``, contiguous.
    """
    inputs = (queries, keys, values)
    return capped_attention_secant(grad, *inputs, scale, first, window, split, None)


def capped_attention_secant(
    grad: Tensor,
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    scale: float,
    first: int,
    window: int | None,
    split: str,
    bound: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the same where `softcap` keeps the scores within a bound, if there is one."""
    wide, group = compute_dtype(grad.dtype), queries.shape[2] // keys.shape[2]
    to_queries = torch.empty_like(grad, memory_format=torch.contiguous_format)
    to_keys, to_values = (keys.new_empty(grad.shape[0], *keys.shape[1:]) for _ in range(2))
    for piece, head in product(range(len(grad)), range(keys.shape[2])):
        points, heads = slice(piece, piece + 2), slice(head * group, (head + 1) * group)
        found = _head_secant(
            grad[piece, :, heads].to(wide),
            queries[points, :, heads].to(wide),
            keys[points, :, head].to(wide),
            values[points, :, head].to(wide),
            scale,
            first,
            window,
            split,
            bound,
        )
        to_queries[piece, :, heads], to_keys[piece, :, head], to_values[piece, :, head] = found
    return to_queries, to_keys, to_values


def _head_secant(
    grad: Tensor,
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    scale: float,
    first: int,
    window: int | None,
    split: str,
    bound: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The same for one piece and one key head: ``[R, G, E]``, ``[2, R, G, E]``, ``[2, T, E]``."""
    count, group, _ = grad.shape
    queries = queries * scale
    mean_keys, mean_queries = keys.mean(0).mul_(scale), queries.mean(0)
    carried = values.mean(0) if split == "mean" else values[0]
    to_queries, to_keys = torch.empty_like(grad), torch.zeros_like(mean_keys)
    to_values = torch.zeros_like(to_keys)
    size = BLOCK.get(grad.device.type, BLOCK["cuda"]) // (group * keys.shape[1])
    size = min(max(size, 16), MOST_ROWS)
    for start in range(0, count, size):
        rows = slice(start, min(start + size, count))
        at, stop = first + rows.start, first + rows.stop
        seen = slice(0 if window is None else max(0, at - window + 1), stop)
        scores = queries[:, rows].flatten(1, 2) @ keys[:, seen].transpose(1, 2)  # [2, R G, T]
        slope = None
        if bound is not None:
            slope, scores = softcap_slope(scores[0], scores[1], bound), softcap(scores, bound)
        _hide(scores, at, seen, window, group)
        log_shares = scores.sub_(scores.logsumexp(-1, keepdim=True))
        shares, weights = _shares_and_weights(log_shares, split)
        block = grad[rows].flatten(0, 1)  # [R G, E]
        to_shares = block @ carried[seen].T
        centre = torch.linalg.vecdot(weights, to_shares) / weights.sum(-1)
        to_scores = to_shares.sub_(centre[:, None]).mul_(weights)
        if slope is not None:
            to_scores.mul_(slope)
        to_queries[rows] = (to_scores @ mean_keys[seen]).unflatten(0, (-1, group))
        to_keys[seen].addmm_(to_scores.T, mean_queries[rows].flatten(0, 1))
        to_values[seen].addmm_(shares.T, block)
    return to_queries, to_keys, to_values


def _shares_and_weights(log_shares: Tensor, split: str) -> tuple[Tensor, Tensor]:
    """What carries to the values, and the logarithmic mean; the argument's memory is used up."""
    one, other = log_shares
    last = other.exp() if split == "content" else None
    fall = (one - other).abs_().neg_()
    larger = torch.maximum(one, other, out=one).exp_()
    drop = torch.expm1(fall, out=other)  # the smaller probability is larger * (1 + drop)
    smallest = torch.finfo(drop.dtype).tiny
    weights = (drop - smallest).div_(fall.sub_(smallest)).mul_(larger)
    return last if last is not None else drop.div_(2).add_(1).mul_(larger), weights


def _hide(scores: Tensor, at: int, seen: slice, window: int | None, group: int) -> None:
    """Take the tokens that come later, or lie before the window, from a block of rows."""
    tokens = torch.arange(seen.start, seen.stop, device=scores.device)
    rows = tokens[at - seen.start :].repeat_interleave(group)[:, None]
    # No row hides what lies between the window of the last row and the first row.
    later = slice(at - seen.start, None)
    scores[..., later].masked_fill_(tokens[later] > rows, HIDDEN_SCORE)
    if window is not None:
        before = slice(max(0, seen.stop - window - seen.start))
        scores[..., before].masked_fill_(tokens[before] <= rows - window, HIDDEN_SCORE)
