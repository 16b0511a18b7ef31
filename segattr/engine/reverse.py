"""The fused engine's reverse sweep: from the answer's log-probability back to the path.

One way through the layers, for whatever is carried back: `Gradients` carries dF/dx at each point.
Axes: ``K`` path points, ``T`` tokens, ``A`` answer tokens, ``D`` hidden size, ``H`` heads, ``E``
head size, ``V`` vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from segattr.engine.forward import Forward, Saved, Top, add_input_gradient, input_gradient
from segattr.engine.layers import Norm


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
        grad = self._log_softmax(top)
        if top.logits is not None:
            grad.mul_(self._softcap(top.logits.to(grad.dtype)))
        grad = input_gradient((grad.to(top.dtype), self.forward.output))
        return self._norm(grad, self.forward.norm, top.hidden, top.rstd)

    def layer(self, index: int, saved: Saved, grad: Tensor) -> Tensor:
        """From a layer's output to its input."""
        layer, rows = self.forward.layers[index], self.forward.rows(index)
        to_down = self._post(layer.post_mlp_norm, saved.post_mlp, grad)
        to_gate, to_up = self._gated(layer.gelu, input_gradient((to_down, layer.down)), saved)
        to_normed = input_gradient((to_gate, layer.gate), (to_up, layer.up))
        del to_gate, to_up
        grad = self._norm(to_normed, layer.mlp_norm, saved.middle, saved.middle_rstd, grad)
        to_queries, to_keys, to_values = self._attend(index, saved, grad)
        to_normed = input_gradient((to_keys, layer.keys), (to_values, layer.values))
        norm = layer.attention_norm
        if rows == slice(None):
            # In place: a third gradient as wide as the residual stream would be the peak here.
            add_input_gradient(to_normed, to_queries, layer.queries)
            return self._norm(to_normed, norm, saved.hidden, saved.rstd, grad)
        # The last layer: only the answer's rows have queries and a residual that goes on.
        to_normed[:, rows] += input_gradient((to_queries, layer.queries))
        result = self._norm(to_normed, norm, saved.hidden, saved.rstd)
        result[:, rows] += grad
        return result

    def _attend(self, index: int, saved: Saved, grad: Tensor) -> tuple[Tensor, ...]:
        """From the attention's result to its three projections."""
        layer, rows = self.forward.layers[index], self.forward.rows(index)
        cos, sin = self.forward.rotations[layer.kind]
        grad = self._post(layer.post_attention_norm, saved.post_attention, grad)
        to_output = input_gradient((grad, layer.output)).unflatten(-1, (-1, layer.head_size))
        to_queries, to_keys, to_values = self._attention(saved, to_output)
        queries, keys = saved.unrotated
        to_queries = self._rotation(to_queries, cos[rows], sin[rows], queries, layer.query_norm)
        to_keys = self._rotation(to_keys, cos, sin, keys, layer.key_norm)
        return to_queries.flatten(2), to_keys.flatten(2), to_values.flatten(2)

    def _post(self, norm: Norm | None, kept: tuple[Tensor, Tensor] | None, grad: Tensor) -> Tensor:
        """From what a part of a layer adds to the residual stream to its last projection."""
        if norm is None or kept is None:
            return grad
        return self._norm(grad.clone(), norm, *kept)

    def _rotation(
        self, grad: Tensor, cos: Tensor, sin: Tensor, heads: Tensor, norm: Norm | None
    ) -> Tensor:
        """From rotated heads, or heads rotated in part, to the projection."""
        if (size := cos.shape[-1]) == grad.shape[-1]:
            return self._rope(grad, cos, sin, heads, norm)
        grad = grad.contiguous()
        grad[..., :size] = self.ops.rope_backward(grad[..., :size], cos, sin)
        return grad

    @abstractmethod
    def _log_softmax(self, top: Top) -> Tensor:
        """From F to the logits: ``[K, A, V]``."""

    @abstractmethod
    def _softcap(self, logits: Tensor) -> Tensor:
        """The slope of the logits' bound: ``[K, A, V]``."""

    @abstractmethod
    def _norm(
        self, grad: Tensor, norm: Norm, hidden: Tensor, rstd: Tensor, residual: Tensor | None = None
    ) -> Tensor:
        """From a norm's output to its input, plus what flows past it."""

    @abstractmethod
    def _gated(self, gelu: bool, grad: Tensor, saved: Saved) -> tuple[Tensor, Tensor]:
        """From SwiGLU or GeGLU to gate and up, whose memory may be used."""

    @abstractmethod
    def _attention(self, saved: Saved, grad: Tensor) -> tuple[Tensor, ...]:
        """From the heads' results to queries, keys and values."""

    @abstractmethod
    def _rope(
        self, grad: Tensor, cos: Tensor, sin: Tensor, heads: Tensor, norm: Norm | None
    ) -> Tensor:
        """From rotated heads to the projection, through their norm if there is one."""


class Gradients(Reverse):
    """dF/dx at every point."""

    def _log_softmax(self, top: Top) -> Tensor:
        targets = self.forward.targets(top)
        of_targets = top.logprobs.gather(-1, targets)
        return top.logprobs.exp_().neg_().scatter_(-1, targets, 1 - of_targets.exp())

    def _softcap(self, logits: Tensor) -> Tensor:
        return self.ops.softcap_slope(logits, logits, self.forward.softcap)

    def _norm(
        self, grad: Tensor, norm: Norm, hidden: Tensor, rstd: Tensor, residual: Tensor | None = None
    ) -> Tensor:
        return self.ops.rms_norm_backward(grad, hidden, norm.weight, rstd, residual)

    def _gated(self, gelu: bool, grad: Tensor, saved: Saved) -> tuple[Tensor, Tensor]:
        backward = self.ops.geglu_backward if gelu else self.ops.swiglu_backward
        return backward(grad, saved.gate, saved.up)

    def _attention(self, saved: Saved, grad: Tensor) -> tuple[Tensor, ...]:
        return saved.attention.backward(grad)

    def _rope(
        self, grad: Tensor, cos: Tensor, sin: Tensor, heads: Tensor, norm: Norm | None
    ) -> Tensor:
        return self.ops.rope_backward(grad, cos, sin, heads, *(norm or ()))
