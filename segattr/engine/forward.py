"""The fused engine's forward pass through a decoder, layer by layer.

On the model's own weights, without autograd. A layer keeps two residuals, two norms' scales,
queries, keys, values, the attention's output and statistics, gate and up (and what goes into norms
of heads and of what attention and MLP add, if there are any); nothing else. Rows that predict no
answer token leave the last layer after its keys and values.
Axes: ``K`` path points, ``T`` tokens, ``A`` answer tokens, ``D`` hidden size, ``E`` head size,
``V`` vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from segattr.engine import ops, reference
from segattr.engine.attention import BandedAttention, FlashAttention, SdpaAttention
from segattr.engine.decoder import FLASH
from segattr.engine.ends import PathEnds
from segattr.engine.layers import Decoder, Layer, Norm, Projection, rope_tables
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
    # What attention and MLP add, before a norm of it, and the norm's scale.
    post_attention: tuple[Tensor, Tensor] | None
    post_mlp: tuple[Tensor, Tensor] | None = None


@dataclass
class Top:
    """What the reverse sweep of the head needs; ``[K, A, ...]``."""

    hidden: Tensor
    rstd: Tensor
    logprobs: Tensor  # [K, A, V], float32 or better
    dtype: torch.dtype  # of the logits
    logits: Tensor | None  # before their bound, if there is one


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
        decoder = Decoder.of(model)
        self.ops: Any = ops.choose(backend, self.inputs)
        if not decoder.has_kernels:
            self.ops = _torch_ops(model, backend)
        self.layers, self.norm, self.output = decoder.layers, decoder.norm, decoder.head
        self.softcap = decoder.softcap
        positions = torch.arange(last, device=self.inputs.device)[None]
        self.rotations = {
            kind: tuple(F.pad(table[0], (0, 0, 0, padding)) for table in tables)  # [T, E]
            for kind, tables in rope_tables(model, ends.inputs, positions).items()
        }

    def rows(self, index: int) -> slice:
        """The rows of this layer's queries and MLP."""
        return self.answer_rows if index == len(self.layers) - 1 else slice(None)

    def layer(self, index: int, hidden: Tensor, delta: Tensor | None) -> Saved:
        """A decoder layer up to its gate and up projections; ``hidden + delta`` comes in."""
        layer = self.layers[index]
        normed, hidden, rstd = self._norm(layer.attention_norm, hidden, delta)
        unrotated, attention = self._attend(index, normed)
        del normed
        output = F.linear(attention.output.flatten(2), *layer.output)
        output, post_attention = self._post(layer.post_attention_norm, output)
        normed, middle, middle_rstd = self._norm(
            layer.mlp_norm, hidden[:, self.rows(index)].contiguous(), output
        )
        gate, up = F.linear(normed, *layer.gate), F.linear(normed, *layer.up)
        return Saved(
            hidden, rstd, unrotated, attention, middle, middle_rstd, gate, up, post_attention
        )

    def mlp(self, index: int, saved: Saved) -> Tensor:
        """What the layer adds to ``saved.middle``."""
        layer = self.layers[index]
        gated = self.ops.geglu if layer.gelu else self.ops.swiglu
        output = F.linear(gated(saved.gate, saved.up), *layer.down)
        output, saved.post_mlp = self._post(layer.post_mlp_norm, output)
        return output

    def again(self, index: int, hidden: Tensor) -> Saved:
        """What the reverse sweep of a layer needs, from the layer's input."""
        saved = self.layer(index, hidden, None)
        if self.layers[index].post_mlp_norm is not None:
            self.mlp(index, saved)
        return saved

    def head(self, hidden: Tensor, delta: Tensor | None) -> Top:
        """The answer rows' log-probabilities of all words."""
        normed, hidden, rstd = self._norm(self.norm, hidden, delta)
        logits = F.linear(normed, *self.output)
        wide, kept = compute_dtype(logits.dtype), None
        if self.softcap is not None:
            kept, logits = logits, self.ops.softcap(logits, self.softcap)
        return Top(hidden, rstd, logits.to(wide).log_softmax(-1), logits.dtype, kept)

    def targets(self, top: Top) -> Tensor:
        """The answer's words at every point, as an index ``[K, A, 1]`` into the vocabulary."""
        return self.target_ids.expand(len(top.logprobs), -1)[..., None]

    def _attend(
        self, index: int, normed: Tensor
    ) -> tuple[tuple[Tensor, Tensor], SdpaAttention | BandedAttention]:
        layer, rows = self.layers[index], self.rows(index)
        heads, (cos, sin) = (-1, layer.head_size), self.rotations[layer.kind]
        queries, keys, values = (
            F.linear(source, *projection).unflatten(-1, heads)
            for projection, source in (
                (layer.queries, normed[:, rows]),
                (layer.keys, normed),
                (layer.values, normed),
            )
        )
        rotated = (
            self._rotate(queries, cos[rows], sin[rows], layer.query_norm),
            self._rotate(keys, cos, sin, layer.key_norm),
        )
        return (queries, keys), self._softmax(layer, rows, *rotated, values)

    def _rotate(self, heads: Tensor, cos: Tensor, sin: Tensor, norm: Norm | None) -> Tensor:
        if (size := cos.shape[-1]) == heads.shape[-1]:
            rotated: Tensor = self.ops.rope(heads, cos, sin, *(norm or ()))
            return rotated
        # Phi-4-mini rotates a part of each head, and has no norms of heads.
        heads[..., :size] = self.ops.rope(heads[..., :size].contiguous(), cos, sin)
        return heads

    def _softmax(
        self, layer: Layer, rows: slice, queries: Tensor, keys: Tensor, values: Tensor
    ) -> SdpaAttention | BandedAttention:
        arguments = (queries, keys, values, layer.scale)
        window = layer.window
        if window is not None and window >= keys.shape[1]:
            window = None
        if rows != slice(None):
            return BandedAttention(*arguments, self.answer_rows.start, window, layer.softcap)
        if FLASH.fullmatch(layer.attention.config._attn_implementation):
            return FlashAttention(*arguments, layer.attention, window, layer.softcap)
        if window is not None or layer.softcap is not None:
            return BandedAttention(*arguments, 0, window, layer.softcap)
        return SdpaAttention(*arguments)

    def _norm(self, norm: Norm, hidden: Tensor, delta: Tensor | None) -> tuple[Tensor, ...]:
        return self.ops.rms_norm(hidden, *norm, delta)

    def _post(
        self, norm: Norm | None, output: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """What a part of a layer adds to the residual stream, and what its norm must keep."""
        if norm is None:
            return output, None
        normed, _, rstd = self.ops.rms_norm(output, *norm)
        return normed, (output, rstd)


def _torch_ops(model: Any, backend: str) -> Any:
    """Gemma's ops, which run in torch on a GPU, too."""
    if backend == "triton":
        raise ValueError(
            "backend='triton' must have kernels for the model's ops, got a "
            f"{type(model).__name__}, whose ops run in torch. Pass backend='auto', or "
            "engine='autograd'."
        )
    return reference


def input_gradient(*parts: tuple[Tensor, Projection]) -> Tensor:
    """The sum of ``grad @ weight`` over projections of one input: its gradient."""
    (grad, projection), *others = parts
    total = grad @ projection.weight
    for part in others:
        add_input_gradient(total, *part)
    return total


def add_input_gradient(total: Tensor, grad: Tensor, projection: Projection) -> None:
    """Add ``grad @ weight`` to ``total``, without a temporary."""
    total.flatten(0, 1).addmm_(grad.flatten(0, 1), projection.weight)
