"""The fused engine: an explicit forward and backward of Llama, Qwen2, Qwen3 and Mistral decoders.

Layer by layer without autograd, on the model's own weights, with gradients of activations only. A
layer keeps two residuals, two norms' scales, queries, keys, values, the attention's output and
statistics, gate and up (and queries and keys before their norms, in Qwen3); nothing else. Rows
that predict no answer token leave the last layer after its keys and values.
Axes: ``K`` path points, ``T`` tokens, ``A`` answer tokens, ``D`` hidden size, ``H`` heads, ``E``
head size, ``F`` MLP width, ``V`` vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segattr.engine import ops
from segattr.engine.attention import BandedAttention, FlashAttention, SdpaAttention
from segattr.engine.decoder import FLASH, layers_and_windows
from segattr.engine.ends import PathEnds
from segattr.engine.memory import Sizes, bytes_per_point
from segattr.engine.reference import compute_dtype

# cuDNN builds a plan for every new length: on a GPU, lengths are rounded up to multiples of this.
BUCKET = {"cuda": 128}


@dataclass
class Saved:
    """What the backward pass of a layer needs; ``[K, T, ...]``, the last layer's rows ``A``."""

    hidden: Tensor
    rstd: Tensor
    unrotated: tuple[Tensor, Tensor]  # the same memory as the rotated ones without head norms
    attention: SdpaAttention | BandedAttention
    middle: Tensor
    middle_rstd: Tensor
    gate: Tensor
    up: Tensor


class FusedEngine:
    """F and its gradient at points of one trace's path.

    Args:
        model: A causal LM of which `why_not_fused` says None.
        ends: Both ends of the path.
        backend: What computes the ops; see `ops.choose`.
    """

    name = "fused"

    def __init__(self, model: Any, ends: PathEnds, backend: str = "auto") -> None:
        last = len(ends.inputs)
        bucket = BUCKET.get(ends.inputs.device.type, 1)
        padding = -last % bucket  # rows after the last one cannot influence it
        self.used = slice(last)
        self.answer_rows = slice(last - len(ends.target_ids), last)
        self.inputs, self.baseline = (
            F.pad(rows, (0, 0, 0, padding)) for rows in (ends.inputs, ends.baseline)
        )
        self.target_ids = ends.target_ids.to(self.inputs.device)
        self.dtype = self.inputs.dtype
        self.num_tokens = len(self.inputs)
        self.ops: Any = ops.choose(backend, self.inputs)
        self.backend = ops.name_of(self.ops)
        self.body: Any = model.model
        self.head: Any = model.lm_head
        self.layers = layers_and_windows(model)
        self.sizes = Sizes.of(model.config)
        self.has_head_norms = hasattr(self.layers[0][0].self_attn, "q_norm")
        positions = torch.arange(last, device=self.inputs.device)[None]
        self.cos, self.sin = (
            F.pad(table[0], (0, 0, 0, padding))
            for table in self.body.rotary_emb(ends.inputs, positions)
        )  # [T, E]

    @torch.no_grad()
    def logprob(self, alphas: Tensor) -> Tensor:
        """Return F at the path points: ``[K]``, float32 or better, on the embeddings' device."""
        hidden, delta = self.ops.blend(self.inputs, self.baseline, alphas), None
        for index in range(len(self.layers)):
            saved = self._layer(index, hidden, delta)
            hidden, delta = saved.middle, self._mlp(index, saved)
        return self._head(hidden, delta)[0]

    @torch.no_grad()
    def evaluate(self, alphas: Tensor, recompute: bool = False) -> tuple[Tensor, Tensor]:
        """Return F at the path points, ``[K]``, and the tokens' integrands there, ``[K, T]``.

        One forward and one backward for all points and all answer tokens together.
        """
        hidden, delta = self.ops.blend(self.inputs, self.baseline, alphas), None
        layers: list[Saved | Tensor] = []
        top = len(self.layers) - 1
        for index in range(top + 1):
            saved = self._layer(index, hidden, delta)
            hidden, delta = saved.middle, self._mlp(index, saved)
            layers.append(saved.hidden if recompute and index < top else saved)
            del saved
        logprob, grad = self._head(hidden, delta)
        del hidden, delta
        while layers:
            below = layers.pop()
            index = len(layers)
            if isinstance(below, Tensor):
                below = self._layer(index, below, None)
            grad = self._layer_backward(index, below, grad)
        values = self.ops.path_dot(self.inputs, self.baseline, grad)
        return logprob, values[:, self.used]

    def bytes_per_point(self, recompute: bool) -> float:
        """Return the estimated peak bytes of one path point, with or without recomputed layers."""
        itemsize, num_targets = self.dtype.itemsize, len(self.target_ids)
        layer = layer_bytes(self.sizes, itemsize, self.has_head_norms)
        return bytes_per_point(self.sizes, layer, itemsize, self.num_tokens, num_targets, recompute)

    def _rows(self, index: int) -> slice:
        """The rows of this layer's queries and MLP."""
        return self.answer_rows if index == len(self.layers) - 1 else slice(None)

    def _layer(self, index: int, hidden: Tensor, delta: Tensor | None) -> Saved:
        """A decoder layer up to its gate and up projections; ``hidden + delta`` comes in."""
        layer, _ = self.layers[index]
        rows = self._rows(index)
        normed, hidden, rstd = self._norm(layer.input_layernorm, hidden, delta)
        unrotated, attention = self._attend(index, normed[:, rows], normed)
        del normed
        output = _linear(layer.self_attn.o_proj, attention.output.flatten(2))
        normed, middle, middle_rstd = self._norm(
            layer.post_attention_layernorm, hidden[:, rows].contiguous(), output
        )
        gate, up = _linear(layer.mlp.gate_proj, normed), _linear(layer.mlp.up_proj, normed)
        return Saved(hidden, rstd, unrotated, attention, middle, middle_rstd, gate, up)

    def _mlp(self, index: int, saved: Saved) -> Tensor:
        """What the layer adds to ``saved.middle``."""
        layer, _ = self.layers[index]
        return _linear(layer.mlp.down_proj, self.ops.swiglu(saved.gate, saved.up))

    def _attend(
        self, index: int, normed_rows: Tensor, normed: Tensor
    ) -> tuple[tuple[Tensor, Tensor], SdpaAttention | BandedAttention]:
        layer, window = self.layers[index]
        module, rows = layer.self_attn, self._rows(index)
        heads = (-1, module.head_dim)
        queries, keys, values = (
            _linear(projection, source).unflatten(-1, heads)
            for projection, source in (
                (module.q_proj, normed_rows),
                (module.k_proj, normed),
                (module.v_proj, normed),
            )
        )
        rotated = (
            self.ops.rope(queries, self.cos[rows], self.sin[rows], *_head_norm(module, "q_norm")),
            self.ops.rope(keys, self.cos, self.sin, *_head_norm(module, "k_norm")),
        )
        arguments = (*rotated, values, module.scaling)
        length = keys.shape[1]
        window = window if window is not None and window < length else None
        attention: SdpaAttention | BandedAttention
        if rows != slice(None):
            attention = BandedAttention(*arguments, self.answer_rows.start, window)
        elif FLASH.fullmatch(module.config._attn_implementation):
            attention = FlashAttention(*arguments, module, window)
        elif window is not None:
            attention = BandedAttention(*arguments, 0, window)
        else:
            attention = SdpaAttention(*arguments)
        return (queries, keys), attention

    def _head(self, hidden: Tensor, delta: Tensor | None) -> tuple[Tensor, Tensor]:
        """F, ``[K]``, and its gradient at the last layer's output, ``[K, A, D]``."""
        normed, hidden, rstd = self._norm(self.body.norm, hidden, delta)
        logits = _linear(self.head, normed)
        logprobs = logits.to(compute_dtype(logits.dtype)).log_softmax(-1)  # [K, A, V]
        targets = self.target_ids.expand(len(logits), -1)[..., None]
        of_targets = logprobs.gather(-1, targets)
        grad = logprobs.exp_().neg_().scatter_(-1, targets, 1 - of_targets.exp())
        grad = _input_gradient((grad.to(logits.dtype), self.head))
        return of_targets.sum((1, 2)), self.ops.rms_norm_backward(
            grad, hidden, self.body.norm.weight, rstd
        )

    def _layer_backward(self, index: int, saved: Saved, grad: Tensor) -> Tensor:
        """From the gradient of a layer's output to that of its input."""
        layer, _ = self.layers[index]
        mlp, module, rows = layer.mlp, layer.self_attn, self._rows(index)
        to_gate, to_up = self.ops.swiglu_backward(
            _input_gradient((grad, mlp.down_proj)), saved.gate, saved.up
        )
        grad = self.ops.rms_norm_backward(
            _input_gradient((to_gate, mlp.gate_proj), (to_up, mlp.up_proj)),
            saved.middle,
            layer.post_attention_layernorm.weight,
            saved.middle_rstd,
            grad,
        )
        to_queries, to_keys, to_values = self._attend_backward(index, saved, grad)
        to_normed = _input_gradient((to_keys, module.k_proj), (to_values, module.v_proj))
        norm = layer.input_layernorm.weight
        if rows == slice(None):
            # In place: a third gradient as wide as the residual stream would be the peak here.
            _add_input_gradient(to_normed, to_queries, module.q_proj)
            return self.ops.rms_norm_backward(to_normed, saved.hidden, norm, saved.rstd, grad)
        # The last layer: only the answer's rows have queries and a residual that goes on.
        to_normed[:, rows] += _input_gradient((to_queries, module.q_proj))
        result = self.ops.rms_norm_backward(to_normed, saved.hidden, norm, saved.rstd)
        result[:, rows] += grad
        return result

    def _attend_backward(self, index: int, saved: Saved, grad: Tensor) -> tuple[Tensor, ...]:
        """From the gradient of the attention's result to those of its three projections."""
        module, rows = self.layers[index][0].self_attn, self._rows(index)
        to_output = _input_gradient((grad, module.o_proj)).unflatten(-1, (-1, module.head_dim))
        to_queries, to_keys, to_values = saved.attention.backward(to_output)
        queries, keys = saved.unrotated
        to_queries = self.ops.rope_backward(
            to_queries, self.cos[rows], self.sin[rows], queries, *_head_norm(module, "q_norm")
        )
        to_keys = self.ops.rope_backward(
            to_keys, self.cos, self.sin, keys, *_head_norm(module, "k_norm")
        )
        return to_queries.flatten(2), to_keys.flatten(2), to_values.flatten(2)

    def _norm(self, norm: Any, hidden: Tensor, delta: Tensor | None) -> tuple[Tensor, ...]:
        return self.ops.rms_norm(hidden, norm.weight, norm.variance_epsilon, delta)


def layer_bytes(sizes: Sizes, itemsize: int, has_head_norms: bool) -> int:
    """Return the bytes per token that a layer keeps for its backward pass; see `Saved`.

    Two residuals, two norms' scales, queries, keys, values and the attention's output and
    statistics, gate and up, and queries and keys before their norms:
    tests/engine/test_fused.py measures them.

    Args:
        sizes: The model's sizes.
        itemsize: Bytes of one number of an activation.
        has_head_norms: Whether queries and keys have norms of their own (Qwen3).
    """
    norms = 2 * itemsize * sizes.hidden + 2 * max(itemsize, 4)
    heads = itemsize * (sizes.queries + sizes.keys)
    statistics = max(itemsize, 4) * sizes.heads
    return norms + (3 if has_head_norms else 2) * heads + statistics + 2 * itemsize * sizes.width


def _head_norm(module: Any, name: str) -> tuple[()] | tuple[Tensor, float]:
    """Weight and eps of a norm over each head, if the attention has it."""
    norm = getattr(module, name, None)
    return () if norm is None else (norm.weight, norm.variance_epsilon)


def _linear(module: nn.Linear, inputs: Tensor) -> Tensor:
    return F.linear(inputs, module.weight, module.bias)


def _input_gradient(*parts: tuple[Tensor, nn.Linear]) -> Tensor:
    """The sum of ``grad @ weight`` over projections of one input: its gradient."""
    (grad, module), *others = parts
    total = grad @ module.weight
    for other, projection in others:
        _add_input_gradient(total, other, projection)
    return total


def _add_input_gradient(total: Tensor, grad: Tensor, module: nn.Linear) -> None:
    """Add ``grad @ weight`` to ``total``, without a temporary."""
    total.flatten(0, 1).addmm_(grad.flatten(0, 1), module.weight)
