"""The generic engine: any transformers causal LM, through its public interface and autograd.

The model runs on its token ids with path points in place of their embeddings, with frozen weights,
without a cache and without an attention mask (a causal model needs none, and an explicit one takes
slower paths, some of them broken). Only the rows that predict the answer get logits, where the
model can leave out others; rows after them cannot influence it and are cut off.
Axes: ``K`` path points, ``T`` tokens, ``A`` answer tokens, ``V`` vocabulary, ``D`` hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from segattr.engine import ops
from segattr.engine.ends import PathEnds
from segattr.engine.lookup import keeps_chosen_logits, logits_at
from segattr.engine.memory import Sizes, bytes_per_point
from segattr.engine.reference import compute_dtype


class AutogradEngine:
    """F and its gradient at points of one trace's path.

    Args:
        model: A causal LM, whole or wrapped by peft.
        ends: Both ends of the path.
        backend: What computes the ops; see `ops.choose`.
    """

    name = "autograd"

    def __init__(self, model: Any, ends: PathEnds, backend: str = "auto") -> None:
        self.model = model
        self.ops: Any = ops.choose(backend, ends.inputs)
        self.backend = ops.name_of(self.ops)
        self.inputs, self.baseline = ends.inputs, ends.baseline
        self.input_ids, self.target_ids = ends.input_ids, ends.target_ids
        self.dtype = self.inputs.dtype
        self.num_tokens = len(self.inputs)
        self.sizes = Sizes.of(model.config.get_text_config())

    def logprob(self, alphas: Tensor) -> Tensor:
        """Return F at the path points: ``[K]``, float32 or better, on the embeddings' device."""
        with torch.no_grad():
            return self._target_logprob(self.ops.blend(self.inputs, self.baseline, alphas))

    def evaluate(self, alphas: Tensor, recompute: bool = False) -> tuple[Tensor, Tensor]:
        """Return F at the path points, ``[K]``, and the tokens' integrands there, ``[K, T]``.

        One forward and one backward for all points and all answer tokens together.
        """
        points = self.ops.blend(self.inputs, self.baseline, alphas).requires_grad_()
        with torch.enable_grad(), recomputed_layers(self.model) if recompute else ExitStack():
            logprob = self._target_logprob(points)
            (gradients,) = torch.autograd.grad(logprob.sum(), points)
        return logprob.detach(), self.ops.path_dot(self.inputs, self.baseline, gradients)

    def bytes_per_point(self, recompute: bool) -> float:
        """Return the estimated peak bytes of one path point, with or without recomputed layers."""
        itemsize, rows = self.dtype.itemsize, len(self.target_ids)
        if not keeps_chosen_logits(self.model):
            rows = self.num_tokens
        layer = layer_bytes(self.sizes, itemsize, self.num_tokens)
        return bytes_per_point(self.sizes, layer, itemsize, self.num_tokens, rows, recompute)

    def _target_logprob(self, points: Tensor) -> Tensor:
        rows = len(self.target_ids)  # the last ones, each predicting the next answer token
        logits = logits_at(self.model, self.input_ids, points, rows)
        wide = logits.to(compute_dtype(logits.dtype))
        ids = self.target_ids.to(logits.device).expand(len(points), -1)  # [K, A]
        chosen = wide.gather(-1, ids[..., None])[..., 0]
        return (chosen - wide.logsumexp(-1)).sum(-1).to(points.device)  # [K]


def layer_bytes(sizes: Sizes, itemsize: int, num_tokens: int) -> int:
    """Return the bytes per token that a frozen layer keeps for its backward pass.

    Two norms in float32, queries, keys, values and the attention's output, gate, its activation and
    up, and 12 bytes per head of statistics: tests/engine/test_autograd.py measures them.

    Args:
        sizes: The model's sizes.
        itemsize: Bytes of one number of an activation.
        num_tokens: Tokens that go through it, as some attentions keep every pair of them.
    """
    attention = 2 * itemsize * (sizes.queries + sizes.keys) + 12 * sizes.heads
    if sizes.eager:
        attention += sizes.heads * num_tokens * (itemsize + 4)  # the softmax, in float32 and cast
    return 8 * sizes.hidden + attention + 3 * itemsize * sizes.width


@contextmanager
def recomputed_layers(model: nn.Module) -> Iterator[None]:
    """Keep only the layers' inputs; their insides are computed again in the backward pass."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = [
        module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)
    ]
    # An instance may have a forward of its own, from accelerate's hooks for instance.
    before = [layer.__dict__.get("forward") for layer in layers]
    try:
        for layer in layers:
            layer.forward = partial(
                checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False
            )
        yield
    finally:
        for layer, forward in zip(layers, before, strict=True):
            del layer.forward
            if forward is not None:
                layer.forward = forward
