"""The fused engine's forward pass: Llama, Qwen2, Qwen3 and Mistral decoders, layer by layer.

On the model's own weights, without autograd. A layer keeps two residuals, two norms' scales,
queries, keys, values, the attention's output and statistics, gate and up (and queries and keys
before their norms, in Qwen3); nothing else. Rows that predict no answer token leave the last layer
after its keys and values.
Axes: ``K`` path points, ``T`` tokens, ``A`` answer tokens, ``D`` hidden size, ``E`` head size,
``V`` vocabulary.
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
from segattr.engine.reference import compute_dtype

# cuDNN builds a plan for every new length: on a GPU, lengths are rounded up to multiples of this.
BUCKET = {"cuda": 128}


@dataclass
class Saved:
    """What the reverse sweep of a layer needs; ``[K, T, ...]``, the last layer's rows ``A``."""

    hidden: Tensor
    rstd: Tensor
    unrotated: tuple[Tensor, Tensor]  # the same memory as the rotated ones without head norms
    attention: SdpaAttention | BandedAttention
    middle: Tensor
    middle_rstd: Tensor
    gate: Tensor
    up: Tensor


@dataclass
class Top:
    """What the reverse sweep of the head needs; ``[K, A, ...]``."""

    hidden: Tensor
    rstd: Tensor
    logprobs: Tensor  # [K, A, V], float32 or better
    dtype: torch.dtype  # of the logits


class Forward:
    """A decoder's layers over points of one trace's path.

    Args:
        model: A causal LM of which `why_not_fused` says None.
        ends: Both ends of the path.
        backend: What computes the ops; see `ops.choose`.
    """

    def __init__(self, model: Any, ends: PathEnds, backend: str) -> None:
        last = len(ends.inputs)
        bucket = BUCKET.get(ends.inputs.device.type, 1)
        padding = -last % bucket  # rows after the last one cannot influence it
        self.used = slice(last)
        self.answer_rows = slice(last - len(ends.target_ids), last)
        self.inputs, self.baseline = (
            F.pad(rows, (0, 0, 0, padding)) for rows in (ends.inputs, ends.baseline)
        )
        self.target_ids = ends.target_ids.to(self.inputs.device)
        self.ops: Any = ops.choose(backend, self.inputs)
        self.body: Any = model.model
        self.output: Any = model.lm_head
        self.layers = layers_and_windows(model)
        self.has_head_norms = hasattr(self.layers[0][0].self_attn, "q_norm")
        positions = torch.arange(last, device=self.inputs.device)[None]
        self.cos, self.sin = (
            F.pad(table[0], (0, 0, 0, padding))
            for table in self.body.rotary_emb(ends.inputs, positions)
        )  # [T, E]

    def rows(self, index: int) -> slice:
        """The rows of this layer's queries and MLP."""
        return self.answer_rows if index == len(self.layers) - 1 else slice(None)

    def layer(self, index: int, hidden: Tensor, delta: Tensor | None) -> Saved:
        """A decoder layer up to its gate and up projections; ``hidden + delta`` comes in."""
        layer, _ = self.layers[index]
        normed, hidden, rstd = self._norm(layer.input_layernorm, hidden, delta)
        unrotated, attention = self._attend(index, normed)
        del normed
        output = linear(layer.self_attn.o_proj, attention.output.flatten(2))
        normed, middle, middle_rstd = self._norm(
            layer.post_attention_layernorm, hidden[:, self.rows(index)].contiguous(), output
        )
        gate, up = linear(layer.mlp.gate_proj, normed), linear(layer.mlp.up_proj, normed)
        return Saved(hidden, rstd, unrotated, attention, middle, middle_rstd, gate, up)

    def mlp(self, index: int, saved: Saved) -> Tensor:
        """What the layer adds to ``saved.middle``."""
        layer, _ = self.layers[index]
        return linear(layer.mlp.down_proj, self.ops.swiglu(saved.gate, saved.up))

    def head(self, hidden: Tensor, delta: Tensor | None) -> Top:
        """The answer rows' log-probabilities of all words."""
        normed, hidden, rstd = self._norm(self.body.norm, hidden, delta)
        logits = linear(self.output, normed)
        logprobs = logits.to(compute_dtype(logits.dtype)).log_softmax(-1)
        return Top(hidden, rstd, logprobs, logits.dtype)

    def targets(self, top: Top) -> Tensor:
        """The answer's words at every point, as an index ``[K, A, 1]`` into the vocabulary."""
        return self.target_ids.expand(len(top.logprobs), -1)[..., None]

    def _attend(
        self, index: int, normed: Tensor
    ) -> tuple[tuple[Tensor, Tensor], SdpaAttention | BandedAttention]:
        layer, window = self.layers[index]
        module, rows = layer.self_attn, self.rows(index)
        heads = (-1, module.head_dim)
        queries, keys, values = (
            linear(projection, source).unflatten(-1, heads)
            for projection, source in (
                (module.q_proj, normed[:, rows]),
                (module.k_proj, normed),
                (module.v_proj, normed),
            )
        )
        rotated = (
            self.ops.rope(queries, self.cos[rows], self.sin[rows], *head_norm(module, "q_norm")),
            self.ops.rope(keys, self.cos, self.sin, *head_norm(module, "k_norm")),
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

    def _norm(self, norm: Any, hidden: Tensor, delta: Tensor | None) -> tuple[Tensor, ...]:
        return self.ops.rms_norm(hidden, norm.weight, norm.variance_epsilon, delta)


def head_norm(module: Any, name: str) -> tuple[()] | tuple[Tensor, float]:
    """Weight and eps of a norm over each head, if the attention has it."""
    norm = getattr(module, name, None)
    return () if norm is None else (norm.weight, norm.variance_epsilon)


def linear(module: nn.Linear, inputs: Tensor) -> Tensor:
    """The projection of some rows."""
    return F.linear(inputs, module.weight, module.bias)


def input_gradient(*parts: tuple[Tensor, nn.Linear]) -> Tensor:
    """The sum of ``grad @ weight`` over projections of one input: its gradient."""
    (grad, module), *others = parts
    total = grad @ module.weight
    for other, projection in others:
        add_input_gradient(total, other, projection)
    return total


def add_input_gradient(total: Tensor, grad: Tensor, module: nn.Linear) -> None:
    """Add ``grad @ weight`` to ``total``, without a temporary."""
    total.flatten(0, 1).addmm_(grad.flatten(0, 1), module.weight)
