"""Secants that the package does not have: Jacobians averaged along chords, then completed.

The mean Jacobian between two points, by Gauss-Legendre, is a secant but for the quadrature's error;
what that leaves open is added along the input's own change. `Chord` takes every nonlinear op so,
attention with its scores and values moving together; `Sdpa` takes attention alone, with queries,
keys and values moving together, which needs torch's attention and its backward and nothing else.
Axes: ``P`` pieces, ``T`` tokens, ``R`` query rows, ``H`` query heads, ``N`` key heads, ``E`` head
size.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segattr.engine.forward import Forward, Saved, Top
from segattr.engine.fused import FusedEngine
from segattr.engine.layers import Norm
from segattr.engine.secant import Secants

Function = Callable[..., Tensor]


def completed_chord(
    function: Function,
    starts: list[Tensor],
    stops: list[Tensor],
    grad: Tensor,
    own: int,
    nodes: int,
) -> list[Tensor]:
    """Return a secant's multipliers of some inputs that move together along their chord.

    Args:
        function: Of these inputs.
        starts: Inputs at one end.
        stops: At the other.
        grad: Multipliers of the output.
        own: Leading axes; each index into them is a function of its own, to be completed.
        nodes: Of the quadrature.
    """
    places, weights = np.polynomial.legendre.leggauss(nodes)
    totals = [torch.zeros_like(start) for start in starts]
    for place, weight in zip((places + 1) / 2, weights / 2, strict=True):
        inputs = [
            (start + float(place) * (stop - start)).requires_grad_()
            for start, stop in zip(starts, stops, strict=True)
        ]
        with torch.enable_grad():
            output = function(*inputs)
        for total, part in zip(totals, torch.autograd.grad(output, inputs, grad), strict=True):
            total += float(weight) * part

    def summed(tensor: Tensor) -> Tensor:
        return tensor.flatten(own).sum(-1) if tensor.ndim > own else tensor

    gaps = [stop - start for start, stop in zip(starts, stops, strict=True)]
    left = summed(grad * (function(*stops) - function(*starts)))
    for total, gap in zip(totals, gaps, strict=True):
        left = left - summed(total * gap)
    square, size = (
        torch.stack([summed(one * one) for one in states]).sum(0) for states in (gaps, stops)
    )
    # What moves by little more than rounding is as good as its gradient, and completes to noise.
    moved = square > (1e3 * torch.finfo(grad.dtype).eps) ** 2 * size
    factor = torch.where(moved, left / square.where(moved, 1.0), 0.0)
    return [
        total + factor.view(*factor.shape, *[1] * (gap.ndim - own)) * gap
        for total, gap in zip(totals, gaps, strict=True)
    ]


class Sdpa(Secants):
    """The package's secants, but attention's along the chord of queries, keys and values."""

    nodes = 8

    def __init__(self, forward: Forward) -> None:
        super().__init__(forward, "mean")

    def _attention(self, saved: Saved, grad: Tensor) -> tuple[Tensor, ...]:
        heads = saved.attention.inputs[1].shape[2]
        # [P + 1, N, G, R, E] and [P + 1, N, 1, T, E] twice
        states = [_by_key_head(one, heads) for one in saved.attention.inputs]
        grads = _by_key_head(grad, heads)
        unseen = _unseen(saved)
        pieces = [
            self._of_piece(
                [one[piece] for one in states],
                [one[piece + 1] for one in states],
                grads[piece],
                saved.attention.scale,
                unseen,
            )
            for piece in range(len(grads))
        ]
        return tuple(
            torch.stack(parts).flatten(1, 2).transpose(1, 2).contiguous()
            for parts in zip(*pieces, strict=True)
        )

    def _of_piece(
        self, zero: list[Tensor], one: list[Tensor], grad: Tensor, scale: float, unseen: Tensor
    ) -> list[Tensor]:
        def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
            scores = (scale * queries @ keys.mT).masked_fill(unseen, -torch.inf)
            return scores.softmax(-1) @ values

        return completed_chord(attend, zero, one, grad, own=1, nodes=self.nodes)


class Chord(Sdpa):
    """All of the package's secants by chords; scores and values of attention move together."""

    def _of_piece(
        self, zero: list[Tensor], one: list[Tensor], grad: Tensor, scale: float, unseen: Tensor
    ) -> list[Tensor]:
        queries, keys, values = zip(zero, one, strict=True)
        # 0 at both ends where a row does not see: nothing moves there, and nothing is completed.
        scores = [
            (scale * q @ k.mT).masked_fill(unseen, 0.0) for q, k in zip(queries, keys, strict=True)
        ]

        def attend(scores: Tensor, values: Tensor) -> Tensor:
            return scores.masked_fill(unseen, -torch.inf).softmax(-1) @ values

        to_scores, to_values = completed_chord(
            attend,
            [scores[0], values[0]],
            [scores[1], values[1]],
            grad,
            own=1,
            nodes=self.nodes,
        )
        to_queries = scale * to_scores @ (keys[0] + keys[1]) / 2
        to_keys = scale * (to_scores.mT @ (queries[0] + queries[1])).sum(1, keepdim=True) / 2
        return [to_queries, to_keys, to_values]

    def _log_softmax(self, top: Top) -> Tensor:
        targets = self.forward.targets(top)[1:]
        grad = torch.zeros_like(top.logprobs[1:]).scatter_(-1, targets, 1.0)
        # Centred, so that what is completed sums to 0 too: logits have any constant a row.
        logits = top.logprobs - top.logprobs.mean(-1, keepdim=True)
        return self._chord(lambda x: x.log_softmax(-1), [logits], grad, own=2)[0]

    def _norm(
        self, grad: Tensor, norm: Norm, hidden: Tensor, rstd: Tensor, residual: Tensor | None = None
    ) -> Tensor:
        result = self._normed(grad, hidden, *norm)
        return result if residual is None else result + residual

    def _normed(self, grad: Tensor, hidden: Tensor, weight: Tensor, eps: float) -> Tensor:
        def function(x: Tensor) -> Tensor:
            return weight.detach() * x * (x.square().mean(-1, keepdim=True) + eps).rsqrt()

        return self._chord(function, [hidden], grad, own=hidden.ndim - 1)[0]

    def _gated(self, gelu: bool, grad: Tensor, saved: Saved) -> tuple[Tensor, Tensor]:
        activation = partial(F.gelu, approximate="tanh") if gelu else F.silu
        states = [saved.gate, saved.up]
        return tuple(self._chord(lambda g, u: activation(g) * u, states, grad, own=grad.ndim))

    def _rope(
        self, grad: Tensor, cos: Tensor, sin: Tensor, heads: Tensor, norm: Norm | None
    ) -> Tensor:
        grad = self.ops.rope_backward(grad, cos, sin)
        return self._normed(grad, heads, *norm) if norm else grad

    def _chord(
        self, function: Function, states: list[Tensor], grad: Tensor, own: int
    ) -> list[Tensor]:
        """Of all pieces together."""
        starts, stops = [one[:-1] for one in states], [one[1:] for one in states]
        return completed_chord(function, starts, stops, grad, own, self.nodes)


def token_scores(engine: FusedEngine, sweep: Secants, steps: int) -> Tensor:
    """Return the token scores that a sweep finds on a path cut into equal pieces, ``[T]``."""
    with torch.no_grad():
        points = engine._points(torch.linspace(0, 1, steps + 1, dtype=torch.float64))
        _, multipliers = engine._sweep(points, sweep, recompute=False)
        return (points.diff(dim=0) * multipliers).sum((0, 2))


def _by_key_head(heads: Tensor, count: int) -> Tensor:
    """``[P, T, H, E]`` as ``[P, N, G, T, E]``."""
    return heads.detach().transpose(1, 2).unflatten(1, (count, -1))


def _unseen(saved: Saved) -> Tensor:
    """Which tokens a query row does not see, ``[R, T]``."""
    attention = saved.attention
    rows, tokens = attention.inputs[0].shape[1], attention.inputs[1].shape[1]
    behind = torch.arange(rows)[:, None] + attention.first - torch.arange(tokens)
    return behind < 0 if attention.window is None else (behind < 0) | (behind >= attention.window)
