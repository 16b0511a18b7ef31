"""Attention written out against torch's, and its gradients against autograd's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from segattr.engine.attention import BandedAttention


@pytest.mark.parametrize("first", [0, 140, 295])
@pytest.mark.parametrize("window", [None, 1, 7, 300])
def test_banded_attention_is_attention_with_a_mask(window, first):
    """Blocks of 128 queries: three of them, two, one; two tokens follow the last query."""
    torch.manual_seed(0)
    tokens, rows = 300, 298 - first
    queries, keys, values, grad = (
        torch.randn(2, length, heads, 8, dtype=torch.float64)
        for length, heads in ((rows, 4), (tokens, 2), (tokens, 2), (rows, 4))
    )
    banded = BandedAttention(queries, keys, values, 0.3, first, window)
    behind = torch.arange(first, first + rows)[:, None] - torch.arange(tokens)
    seen = (behind >= 0) & (behind < (window or tokens))
    parts = [part.transpose(1, 2).requires_grad_() for part in (queries, keys, values)]
    expected = F.scaled_dot_product_attention(*parts, attn_mask=seen, scale=0.3, enable_gqa=True)
    gradients = torch.autograd.grad(expected, parts, grad.transpose(1, 2))
    torch.testing.assert_close(banded.output, expected.transpose(1, 2).detach())
    for got, wanted in zip(banded.backward(grad), gradients, strict=True):
        torch.testing.assert_close(got, wanted.transpose(1, 2))


@pytest.mark.parametrize(("first", "window"), [(0, None), (0, 7), (140, 7), (295, None)])
def test_banded_attention_keeps_scores_within_their_bound(first, window):
    tokens, rows, bound = 300, 298 - first, 0.7
    generator = torch.Generator().manual_seed(0)
    queries, keys, values, grad = (
        torch.randn(2, length, heads, 8, dtype=torch.float64, generator=generator)
        for length, heads in ((rows, 4), (tokens, 2), (tokens, 2), (rows, 4))
    )
    banded = BandedAttention(queries, keys, values, 0.3, first, window, bound)
    behind = torch.arange(first, first + rows)[:, None] - torch.arange(tokens)
    unseen = (behind < 0) | (behind >= (window or tokens))
    parts = [part.requires_grad_() for part in (queries, keys, values)]
    repeated = [part.repeat_interleave(2, 2) for part in parts[1:]]
    scores = torch.einsum("krhe,kthe->khrt", parts[0], repeated[0]) * 0.3
    shares = (bound * (scores / bound).tanh()).masked_fill(unseen, -torch.inf).softmax(-1)
    expected = torch.einsum("khrt,kthe->krhe", shares, repeated[1])
    gradients = torch.autograd.grad(expected, parts, grad)
    torch.testing.assert_close(banded.output, expected.detach())
    for got, wanted in zip(banded.backward(grad), gradients, strict=True):
        torch.testing.assert_close(got, wanted)
