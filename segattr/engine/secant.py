"""Finite propagation: the reverse sweep with secants in the place of gradients.

Between two path points every op's Jacobian gives way to a secant, a matrix that is exact for the
change from one to the other; see `segattr.engine.reference.secants` for the ops. So

    F(b) - F(a) = sum over tokens of <multiplier_t, x_t(b) - x_t(a)>

holds for every piece of the path, up to rounding, however long it is; in the limit of short pieces
the multipliers are the gradient.
Axes: ``P`` pieces between ``P + 1`` points, ``T`` tokens.
"""

from __future__ import annotations

from torch import Tensor

from segattr.engine.forward import Forward, Saved, Top
from segattr.engine.layers import Norm
from segattr.engine.reference import log_softmax_secant
from segattr.engine.reverse import Reverse


class Secants(Reverse):
    """Multipliers of every piece between two consecutive points.

    Args:
        forward: What ran.
        split: How a change of attention's ``P V`` is shared between P and V; see
            `attention_secant`.
    """

    def __init__(self, forward: Forward, split: str) -> None:
        super().__init__(forward)
        self.split = split

    def _log_softmax(self, top: Top) -> Tensor:
        weights = log_softmax_secant(top.logprobs[:-1], top.logprobs[1:]).neg_()
        targets = self.forward.targets(top)[1:]
        return weights.scatter_add_(-1, targets, weights.new_ones(()).expand(targets.shape))

    def _softcap(self, logits: Tensor) -> Tensor:
        return self.ops.softcap_slope(logits[:-1], logits[1:], self.forward.softcap)

    def _norm(
        self, grad: Tensor, norm: Norm, hidden: Tensor, rstd: Tensor, residual: Tensor | None = None
    ) -> Tensor:
        return self.ops.rms_norm_secant(grad, hidden, *norm, residual)

    def _gated(self, gelu: bool, grad: Tensor, saved: Saved) -> tuple[Tensor, Tensor]:
        secant = self.ops.geglu_secant if gelu else self.ops.swiglu_secant
        return secant(grad, saved.gate, saved.up)

    def _attention(self, saved: Saved, grad: Tensor) -> tuple[Tensor, ...]:
        attention = saved.attention
        numbers = (attention.scale, attention.first, attention.window, self.split)
        if attention.softcap is None:
            return self.ops.attention_secant(grad, *attention.inputs, *numbers)
        return self.ops.capped_attention_secant(
            grad, *attention.inputs, *numbers, attention.softcap
        )

    def _rope(
        self, grad: Tensor, cos: Tensor, sin: Tensor, heads: Tensor, norm: Norm | None
    ) -> Tensor:
        grad = self.ops.rope_backward(grad, cos, sin)
        return self.ops.rms_norm_secant(grad, heads, *norm) if norm else grad
