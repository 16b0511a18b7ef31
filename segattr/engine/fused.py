"""The fused engine: an explicit forward pass and reverse sweep, without autograd.

It evaluates path points (F and gradients) and pieces of the path (F and secants), and knows what
both take.
Axes: ``K`` path points, ``P`` pieces, ``T`` tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from segattr.engine import ops
from segattr.engine.ends import PathEnds
from segattr.engine.forward import Forward, Saved, Top
from segattr.engine.memory import Sizes, bytes_per_point
from segattr.engine.reverse import Gradients, Reverse
from segattr.engine.secant import Secants


class FusedEngine:
    """F, its gradients and its secants on one trace's path.

    Args:
        model: A causal LM of which `why_not_fused` says None.
        ends: Both ends of the path.
        backend: What computes the ops; see `ops.choose`.
    """

    name = "fused"

    def __init__(self, model: Any, ends: PathEnds, backend: str = "auto") -> None:
        self.forward = Forward(model, ends, backend)
        self.ops = self.forward.ops
        self.backend = ops.name_of(self.ops)
        self.inputs, self.baseline = self.forward.inputs, self.forward.baseline
        self.dtype = self.inputs.dtype
        self.num_tokens = len(self.inputs)
        self.sizes = Sizes.of(model.config)

    @torch.no_grad()
    def logprob(self, alphas: Tensor) -> Tensor:
        """Return F at the path points: ``[K]``, float32 or better, on the embeddings' device."""
        hidden, delta = self._points(alphas), None
        for index in range(len(self.forward.layers)):
            saved = self.forward.layer(index, hidden, delta)
            hidden, delta = saved.middle, self.forward.mlp(index, saved)
        return self._logprob(self.forward.head(hidden, delta))

    @torch.no_grad()
    def evaluate(self, alphas: Tensor, recompute: bool = False) -> tuple[Tensor, Tensor]:
        """Return F at the path points, ``[K]``, and the tokens' integrands there, ``[K, T]``.

        One forward and one backward for all points and all answer tokens together.
        """
        logprob, grad = self._sweep(self._points(alphas), Gradients(self.forward), recompute)
        values = self.ops.path_dot(self.inputs, self.baseline, grad)
        return logprob, values[:, self.forward.used]

    @torch.no_grad()
    def differences(
        self, edges: Tensor, split: str, recompute: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Return F at the edges of some pieces, and what each token adds to its change.

        One forward for all edges, and one reverse sweep with secants for all pieces together.

        Args:
            edges: Path points; a piece lies between each and the next, ``[P + 1]``.
            split: See `Secants`.
            recompute: Keep only the layers' inputs, and compute their insides again.

        Returns:
            F, ``[P + 1]``, and token scores, ``[P, T]``, which sum to the changes of F.
        """
        points = self._points(edges)
        logprob, multipliers = self._sweep(points, Secants(self.forward, split), recompute)
        # Between the points as they were rounded.
        scores = [
            self.ops.path_dot(points[piece + 1], points[piece], multipliers[piece : piece + 1])
            for piece in range(len(multipliers))
        ]
        return logprob, torch.cat(scores)[:, self.forward.used]

    def bytes_per_point(self, recompute: bool) -> float:
        """Return the estimated peak bytes of one path point, with or without recomputed layers."""
        itemsize, num_targets = self.dtype.itemsize, len(self.forward.target_ids)
        first = self.forward.layers[0]
        head_norms, post_norms = first.query_norm is not None, first.post_mlp_norm is not None
        layer = layer_bytes(self.sizes, itemsize, head_norms, post_norms)
        return bytes_per_point(self.sizes, layer, itemsize, self.num_tokens, num_targets, recompute)

    def _points(self, alphas: Tensor) -> Tensor:
        return self.ops.blend(self.inputs, self.baseline, alphas)

    def _sweep(self, points: Tensor, reverse: Reverse, recompute: bool) -> tuple[Tensor, Tensor]:
        """F at the points, and what the reverse sweep brings back to them."""
        forward = self.forward
        hidden, delta = points, None
        layers: list[Saved | Tensor] = []
        top = len(forward.layers) - 1
        for index in range(top + 1):
            saved = forward.layer(index, hidden, delta)
            hidden, delta = saved.middle, forward.mlp(index, saved)
            layers.append(saved.hidden if recompute and index < top else saved)
            del saved
        head = forward.head(hidden, delta)
        del hidden, delta
        logprob, grad = self._logprob(head), reverse.head(head)
        del head
        while layers:
            below = layers.pop()
            index = len(layers)
            if isinstance(below, Tensor):
                below = forward.again(index, below)
            grad = reverse.layer(index, below, grad)
        return logprob, grad

    def _logprob(self, head: Top) -> Tensor:
        return head.logprobs.gather(-1, self.forward.targets(head)).sum((1, 2))


def layer_bytes(sizes: Sizes, itemsize: int, head_norms: bool, post_norms: bool) -> int:
    """Return the bytes per token that a layer keeps for its reverse sweep; see `Saved`.

    Two residuals, two norms' scales, queries, keys, values and the attention's output and
    statistics, gate and up, queries and keys before their norms, and what attention and MLP add
    before norms of it: tests/engine/test_fused.py measures them.

    Args:
        sizes: The model's sizes.
        itemsize: Bytes of one number of an activation.
        head_norms: Whether queries and keys have norms of their own.
        post_norms: Whether what attention and MLP add has norms of its own.
    """
    norms = (4 if post_norms else 2) * (itemsize * sizes.hidden + max(itemsize, 4))
    heads = itemsize * (sizes.queries + sizes.keys)
    statistics = max(itemsize, 4) * sizes.heads
    return norms + (3 if head_norms else 2) * heads + statistics + 2 * itemsize * sizes.width
