"""Causal attention with a backward pass that can be called: no mask is ever handed to a kernel.

`SdpaAttention` is an island of autograd around torch's attention, or around the flash attention
that transformers would use. `BandedAttention` is the softmax written out, in blocks of queries: for
a few query rows, for scores with a bound, and for sliding windows, which torch's attention has only
as a mask (cuDNN's backward returns NaN with one).
Axes: ``K`` path points, ``T`` tokens, ``R`` query rows, ``H`` query heads, ``N`` key heads, ``G``
queries per key head, ``E`` head size.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segattr.engine.reference import compute_dtype, softcap, softcap_slope

BLOCK = 128


class SdpaAttention:
    """Causal attention of all tokens.

    Args:
        queries: ``[K, T, H, E]``.
        keys: ``[K, T, N, E]``.
        values: In the shape of ``keys``.
        scale: What scores are multiplied by.

    Attributes:
        inputs: Queries, keys and values.
        output: ``[K, T, H, E]``.
        scale, first, window, softcap: As `BandedAttention` takes them.
    """

    first = 0
    window: int | None = None
    softcap: float | None = None

    def __init__(self, queries: Tensor, keys: Tensor, values: Tensor, scale: float) -> None:
        self.scale = scale
        self.inputs = [tensor.detach().requires_grad_() for tensor in (queries, keys, values)]
        with torch.enable_grad():
            queries, keys, values = (tensor.transpose(1, 2) for tensor in self.inputs)
            self._output = self._attend(queries, keys, values, scale)
        self.output = self._output.detach()

    def _attend(self, queries: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
        grouped = queries.shape[1] != keys.shape[1]
        if grouped and queries.is_cuda and queries.dtype not in (torch.bfloat16, torch.float16):
            # No fused CUDA kernel shares keys among heads in float32.
            repeats = queries.shape[1] // keys.shape[1]
            keys, values = (part.repeat_interleave(repeats, 1) for part in (keys, values))
            grouped = False
        return F.scaled_dot_product_attention(
            queries, keys, values, is_causal=True, scale=scale, enable_gqa=grouped
        ).transpose(1, 2)

    def backward(self, grad: Tensor) -> tuple[Tensor, ...]:
        """Return the gradients of queries, keys and values, in their shapes."""
        return torch.autograd.grad(self._output, self.inputs, grad)


class FlashAttention(SdpaAttention):
    """The same through transformers' interface to a flash attention: with windows and bounds."""

    def __init__(
        self,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        scale: float,
        module: nn.Module,
        window: int | None,
        softcap: float | None = None,
    ) -> None:
        self.module, self.window, self.softcap = module, window, softcap
        super().__init__(queries, keys, values, scale)

    def _attend(self, queries: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

        config: Any = self.module.config
        attend = ALL_ATTENTION_FUNCTIONS[config._attn_implementation]
        settings = {"scaling": scale, "sliding_window": self.window, "softcap": self.softcap}
        output, _ = attend(self.module, queries, keys, values, None, **settings)
        return output


class BandedAttention:
    """Attention of consecutive query rows, each to its own and earlier tokens: ``output``.

    Softmax and products are float32 (float64 for float64 tensors), which takes a GPU longer than
    its fused attention. Nothing is kept but the arguments; probabilities are computed again in the
    backward pass.

    Args:
        queries: ``[K, R, H, E]``.
        keys: ``[K, T, N, E]``.
        values: In the shape of ``keys``.
        scale: What scores are multiplied by.
        first: Position of the first query row.
        window: Tokens a query sees, itself included; ``None``: all.
        softcap: Bound of the scores; ``None``: none.
    """

    def __init__(
        self,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        scale: float,
        first: int,
        window: int | None = None,
        softcap: float | None = None,
    ) -> None:
        self.inputs = [queries, keys, values]
        self.scale, self.first, self.window, self.softcap = scale, first, window, softcap
        self.output = torch.empty_like(queries, memory_format=torch.contiguous_format)
        for rows, _, (_, _, values), _, shares in self._blocks():
            attended = torch.einsum("kngrt,ktne->krnge", shares, values)
            self.output[:, rows] = attended.flatten(2, 3)

    def _blocks(
        self,
    ) -> Iterator[tuple[slice, slice, tuple[Tensor, Tensor, Tensor], Tensor, Tensor]]:
        """Per block: its rows, the tokens they see, q, k and v of these, scores and softmax.

        Shapes ``[K, R, N, G, E]``, ``[K, T, N, E]`` twice and ``[K, N, G, R, T]`` twice; the scores
        are those before their bound.
        """
        all_queries, all_keys, all_values = self.inputs
        wide, heads = compute_dtype(all_queries.dtype), all_keys.shape[2]
        for start in range(0, all_queries.shape[1], BLOCK):
            rows = slice(start, min(start + BLOCK, all_queries.shape[1]))
            at, stop = self.first + rows.start, self.first + rows.stop
            seen = slice(0 if self.window is None else max(0, at - self.window + 1), stop)
            queries = all_queries[:, rows].unflatten(2, (heads, -1)).to(wide)
            keys, values = all_keys[:, seen].to(wide), all_values[:, seen].to(wide)
            tokens = torch.arange(seen.start, stop, device=queries.device)
            behind = tokens[at - seen.start :, None] - tokens  # [R, T]
            unseen = behind < 0 if self.window is None else (behind < 0) | (behind >= self.window)
            scores = torch.einsum("krnge,ktne->kngrt", queries, keys).mul_(self.scale)
            bounded = scores if self.softcap is None else softcap(scores, self.softcap)
            shares = bounded.masked_fill_(unseen, -torch.inf).softmax(-1)
            yield rows, seen, (queries, keys, values), scores, shares

    def backward(self, grad: Tensor) -> tuple[Tensor, ...]:
        """Return the gradients of queries, keys and values, in their shapes."""
        all_queries, all_keys, _ = self.inputs
        heads, wide = all_keys.shape[2], compute_dtype(grad.dtype)
        to_queries = torch.empty_like(all_queries, memory_format=torch.contiguous_format)
        to_keys, to_values = (torch.zeros_like(all_keys, dtype=wide) for _ in range(2))
        for rows, seen, (queries, keys, values), scores, shares in self._blocks():
            block = grad[:, rows].unflatten(2, (heads, -1)).to(wide)  # [K, R, N, G, E]
            to_values[:, seen] += torch.einsum("kngrt,krnge->ktne", shares, block)
            to_shares = torch.einsum("krnge,ktne->kngrt", block, values)
            mean = (to_shares * shares).sum(-1, keepdim=True)
            to_scores = to_shares.sub_(mean).mul_(shares).mul_(self.scale)
            if self.softcap is not None:
                to_scores.mul_(softcap_slope(scores, scores, self.softcap))
            to_queries[:, rows] = torch.einsum("kngrt,ktne->krnge", to_scores, keys).flatten(2, 3)
            to_keys[:, seen] += torch.einsum("kngrt,krnge->ktne", to_scores, queries)
        return to_queries, to_keys.to(grad.dtype), to_values.to(grad.dtype)
