"""The fused engine's reverse sweep: from the answer's log-probability back to the path.

One way through the layers, for whatever is carried back: `Gradients` carries dF/dx at each point.
Axes: ``K`` path points, ``T`` tokens, ``A`` answer tokens, ``D`` hidden size, ``H`` heads, ``E``
head size, ``V`` vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor

from segattr.engine.forward import (
    Forward,
    Saved,
    Top,
    add_input_gradient,
    head_norm,
    input_gradient,
)


class Reverse(ABC):
    """A sweep through the layers that a forward pass saved, last layer first.

    Args:
        forward: What ran.
    """

    def __init__(self, forward: Forward) -> None:
        self.forward = forward
        self.ops = forward.ops

    def head(self, top: Top) -> Tensor:
        """From F to the last layer's output: ``[K, A, D]``; the log-probabilities are used up."""
        grad = self._log_softmax(top).to(top.dtype)
        grad = input_gradient((grad, self.forward.output))
        return self._norm(grad, self.forward.body.norm, top.hidden, top.rstd)

    def layer(self, index: int, saved: Saved, grad: Tensor) -> Tensor:
        """From a layer's output to its input."""
        layer, _ = self.forward.layers[index]
        mlp, module, rows = layer.mlp, layer.self_attn, self.forward.rows(index)
        to_gate, to_up = self._swiglu(input_gradient((grad, mlp.down_proj)), saved)
        to_normed = input_gradient((to_gate, mlp.gate_proj), (to_up, mlp.up_proj))
        del to_gate, to_up
        norm = layer.post_attention_layernorm
        grad = self._norm(to_normed, norm, saved.middle, saved.middle_rstd, grad)
        to_queries, to_keys, to_values = self._attend(index, saved, grad)
        to_normed = input_gradient((to_keys, module.k_proj), (to_values, module.v_proj))
        norm = layer.input_layernorm
        if rows == slice(None):
            # In place: a third gradient as wide as the residual stream would be the peak here.
            add_input_gradient(to_normed, to_queries, module.q_proj)
            return self._norm(to_normed, norm, saved.hidden, saved.rstd, grad)
        # The last layer: only the answer's rows have queries and a residual that goes on.
        to_normed[:, rows] += input_gradient((to_queries, module.q_proj))
        result = self._norm(to_normed, norm, saved.hidden, saved.rstd)
        result[:, rows] += grad
        return result

    def _attend(self, index: int, saved: Saved, grad: Tensor) -> tuple[Tensor, ...]:
        """From the attention's result to its three projections."""
        module, rows = self.forward.layers[index][0].self_attn, self.forward.rows(index)
        cos, sin = self.forward.cos, self.forward.sin
        to_output = input_gradient((grad, module.o_proj)).unflatten(-1, (-1, module.head_dim))
        to_queries, to_keys, to_values = self._attention(saved, to_output)
        queries, keys = saved.unrotated
        to_queries = self._rope(
            to_queries, cos[rows], sin[rows], queries, *head_norm(module, "q_norm")
        )
        to_keys = self._rope(to_keys, cos, sin, keys, *head_norm(module, "k_norm"))
        return to_queries.flatten(2), to_keys.flatten(2), to_values.flatten(2)

    @abstractmethod
    def _log_softmax(self, top: Top) -> Tensor:
        """From F to the logits: ``[K, A, V]``."""

    @abstractmethod
    def _norm(
        self, grad: Tensor, norm: Any, hidden: Tensor, rstd: Tensor, residual: Tensor | None = None
    ) -> Tensor:
        """From a norm's output to its input, plus what flows past it."""

    @abstractmethod
    def _swiglu(self, grad: Tensor, saved: Saved) -> tuple[Tensor, Tensor]:
        """From SwiGLU to gate and up, whose memory may be used."""

    @abstractmethod
    def _attention(self, saved: Saved, grad: Tensor) -> tuple[Tensor, ...]:
        """From the heads' results to queries, keys and values."""

    @abstractmethod
    def _rope(
        self,
        grad: Tensor,
        cos: Tensor,
        sin: Tensor,
        heads: Tensor,
        *norm: Any,
    ) -> Tensor:
        """From rotated heads to the projection, through their norm if there is one."""


class Gradients(Reverse):
    """dF/dx at every point."""

    def _log_softmax(self, top: Top) -> Tensor:
        targets = self.forward.targets(top)
        of_targets = top.logprobs.gather(-1, targets)
        return top.logprobs.exp_().neg_().scatter_(-1, targets, 1 - of_targets.exp())

    def _norm(
        self, grad: Tensor, norm: Any, hidden: Tensor, rstd: Tensor, residual: Tensor | None = None
    ) -> Tensor:
        return self.ops.rms_norm_backward(grad, hidden, norm.weight, rstd, residual)

    def _swiglu(self, grad: Tensor, saved: Saved) -> tuple[Tensor, Tensor]:
        return self.ops.swiglu_backward(grad, saved.gate, saved.up)

    def _attention(self, saved: Saved, grad: Tensor) -> tuple[Tensor, ...]:
        return saved.attention.backward(grad)

    def _rope(self, grad: Tensor, cos: Tensor, sin: Tensor, heads: Tensor, *norm: Any) -> Tensor:
        return self.ops.rope_backward(grad, cos, sin, heads, *norm)
