"""The secants of the ops: complete between two points, and gradients where the points are one."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from segattr.engine import reference
from segattr.engine.attention import BandedAttention

EPS = 1e-6
# Error of a sum of a few hundred terms, as a share of what their sizes add up to.
ROUNDING = {torch.float64: 1e-14, torch.float32: 1e-6}
GATED = {"swiglu": F.silu, "geglu": partial(F.gelu, approximate="tanh")}
# Head groups of 2 and of all heads; a few rows at the end; a window; more rows than one block.
ATTENTION = {
    "causal": (7, 7, 4, 2, None),
    "one key head": (7, 7, 4, 1, None),
    "no groups": (7, 7, 2, 2, None),
    "last rows": (3, 9, 4, 2, None),
    "one row": (1, 9, 4, 2, None),
    "window": (9, 9, 4, 2, 3),
    "window of one": (4, 4, 2, 1, 1),
    "last rows, window": (3, 9, 4, 2, 4),
    "blocks": (150, 150, 2, 1, None),
    "blocks, window": (150, 150, 2, 1, 40),
}


def random(*shape, dtype=torch.float64, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(*shape, dtype=torch.float64, generator=generator)).to(dtype)


def norm_of(hidden, weight):
    return weight * hidden * (hidden.square().mean(-1, keepdim=True) + EPS).rsqrt()


def attention_case(name, points, scale=1.0, dtype=torch.float64):
    rows, tokens, heads, key_heads, window = ATTENTION[name]
    sizes = [(rows, heads), (tokens, key_heads), (tokens, key_heads)]
    states = [
        random(points, *size, 6, seed=seed, dtype=dtype, scale=scale)
        for seed, size in enumerate(sizes)
    ]
    grad = random(points - 1, rows, heads, 6, seed=9, dtype=dtype)
    return grad, states, {"scale": 0.4, "first": tokens - rows, "window": window}


def assert_complete(grad, outputs, multipliers, inputs):
    """``<m, change of the output> = sum of <multiplier, change of an input>`` for every piece."""
    for piece, (before, after) in enumerate(pairwise(outputs)):
        want = (grad[piece] * (after - before)).double()
        rounded = (grad[piece].abs() * (after.abs() + before.abs())).double()
        terms = [
            (to[piece] * (points[piece + 1] - points[piece])).double()
            for to, points in zip(multipliers, inputs, strict=True)
        ]
        size = rounded.sum() + sum(term.abs().sum() for term in terms)
        error = abs(want.sum() - sum(term.sum() for term in terms))
        assert error <= ROUNDING[grad.dtype] * size


@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
@pytest.mark.parametrize("size", [1e-3, 1.0, 30.0])
class TestCompleteness:
    def test_norm(self, dtype, size):
        hidden = random(4, 5, 8, dtype=dtype, scale=size)
        weight, grad = random(8, dtype=dtype, seed=1), random(3, 5, 8, dtype=dtype, seed=2)
        got = reference.rms_norm_secant(grad.clone(), hidden, weight, EPS)
        assert_complete(grad, norm_of(hidden, weight), [got], [hidden])

    @pytest.mark.parametrize("unit", GATED)
    def test_gated_unit(self, dtype, size, unit):
        gate, up, grad = (
            random(n, 5, 8, dtype=dtype, seed=s, scale=z)
            for n, s, z in ((4, 0, size), (4, 1, size), (3, 2, 1.0))
        )
        got = getattr(reference, f"{unit}_secant")(grad, gate, up)
        assert_complete(grad, GATED[unit](gate) * up, got, [gate, up])

    def test_log_softmax(self, dtype, size):
        logits = random(2, 5, 40, dtype=dtype, scale=size)
        logprobs = logits.log_softmax(-1)
        weights = reference.log_softmax_secant(*logprobs)
        target = torch.tensor([3, 0, 39, 7, 7])[:, None]
        grad = torch.zeros_like(weights).scatter_(-1, target, 1.0)
        # The change of one log-probability a row.
        assert_complete(grad[None], logprobs, [(grad - weights)[None]], [logits])

    @pytest.mark.parametrize("split", ["mean", "content"])
    @pytest.mark.parametrize("name", ATTENTION)
    def test_attention(self, dtype, size, name, split):
        grad, states, settings = attention_case(name, 3, size**0.5, dtype)
        outputs = BandedAttention(*states, *settings.values()).output
        got = reference.attention_secant(grad, *states, **settings, split=split)
        assert_complete(grad, outputs, got, states)

    @pytest.mark.parametrize("split", ["mean", "content"])
    @pytest.mark.parametrize("name", ["causal", "blocks, window"])
    def test_attention_with_a_bound(self, dtype, size, name, split):
        grad, states, settings = attention_case(name, 3, size**0.5, dtype)
        outputs = BandedAttention(*states, *settings.values(), 0.7).output
        got = reference.capped_attention_secant(grad, *states, *settings.values(), split, 0.7)
        assert_complete(grad, outputs, got, states)

    @pytest.mark.parametrize("bound", [0.3, 30.0])
    def test_softcap(self, dtype, size, bound):
        values, grad = random(4, 5, 8, dtype=dtype, scale=size), random(3, 5, 8, dtype=dtype)
        got = grad * reference.softcap_slope(values[:-1], values[1:], bound)
        assert_complete(grad, reference.softcap(values, bound), [got], [values])


class TestOfNoLength:
    """Two equal points: the gradient, by autograd."""

    def test_norm(self):
        hidden, weight = random(1, 5, 8).requires_grad_(), random(8, seed=1)
        grad, residual = random(1, 5, 8, seed=2), random(1, 5, 8, seed=3)
        (want,) = torch.autograd.grad(norm_of(hidden, weight), hidden, grad)
        twice = hidden.detach().expand(2, -1, -1)
        got = reference.rms_norm_secant(grad, twice, weight, EPS, residual)
        torch.testing.assert_close(got, want + residual, rtol=0, atol=1e-13)

    @pytest.mark.parametrize("unit", GATED)
    def test_gated_unit(self, unit):
        gate, up = (random(1, 5, 8, seed=seed, scale=5).requires_grad_() for seed in (0, 1))
        grad = random(1, 5, 8, seed=2)
        want = torch.autograd.grad(GATED[unit](gate) * up, (gate, up), grad)
        twice = [part.detach().expand(2, -1, -1) for part in (gate, up)]
        got = getattr(reference, f"{unit}_secant")(grad, *twice)
        torch.testing.assert_close(got, want, rtol=0, atol=1e-13)

    def test_log_softmax(self):
        logprobs = random(5, 40).log_softmax(-1)
        got = reference.log_softmax_secant(logprobs, logprobs)
        torch.testing.assert_close(got, logprobs.exp(), rtol=0, atol=1e-14)

    @pytest.mark.parametrize("split", ["mean", "content"])
    @pytest.mark.parametrize("name", ATTENTION)
    def test_attention(self, name, split):
        grad, states, settings = attention_case(name, 2)
        once = [state[:1] for state in states]
        want = BandedAttention(*once, *settings.values()).backward(grad)
        twice = [state.expand(2, -1, -1, -1) for state in once]
        got = reference.attention_secant(grad, *twice, **settings, split=split)
        torch.testing.assert_close(got, want, rtol=0, atol=1e-12)

    def test_attention_with_a_bound(self):
        grad, states, settings = attention_case("blocks, window", 2)
        once = [state[:1] for state in states]
        want = BandedAttention(*once, *settings.values(), 0.7).backward(grad)
        twice = [state.expand(2, -1, -1, -1) for state in once]
        got = reference.capped_attention_secant(grad, *twice, *settings.values(), "mean", 0.7)
        torch.testing.assert_close(got, want, rtol=0, atol=1e-12)

    def test_softcap(self):
        values, grad = random(5, 8, scale=3).requires_grad_(), random(5, 8, seed=2)
        (want,) = torch.autograd.grad(2.0 * (values / 2.0).tanh(), values, grad)
        got = grad * reference.softcap_slope(values.detach(), values.detach(), 2.0)
        torch.testing.assert_close(got, want, rtol=0, atol=1e-14)


@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
class TestFiniteNumbers:
    """What would divide by zero, or take the logarithm of it."""

    def test_a_saturated_softmax(self, dtype):
        """Every query looks at one token, with a probability that rounds to 1; then at another."""
        grad, (queries, keys, values), settings = attention_case("causal", 2, 1.0, dtype)
        queries = 3e3 * queries
        got = reference.attention_secant(grad, queries, keys, values, **settings)
        assert all(one.isfinite().all() for one in got)
        outputs = BandedAttention(queries, keys, values, *settings.values()).output
        assert_complete(grad, outputs, got, [queries, keys, values])

    def test_probabilities_that_vanish(self, dtype):
        first = torch.tensor([[0.0, -1e4, -1e9]], dtype=dtype).log_softmax(-1)
        second = torch.tensor([[-1e4, 0.0, -1e9]], dtype=dtype).log_softmax(-1)
        weights = reference.log_softmax_secant(first, second)
        assert weights.isfinite().all()
        torch.testing.assert_close(weights, torch.tensor([[0.5, 0.5, 0.0]], dtype=dtype))

    @pytest.mark.parametrize("unit", GATED)
    def test_some_coordinates_equal(self, dtype, unit):
        """Tied points: a piece along which some tokens do not move."""
        gate = random(1, 5, 8, dtype=dtype).repeat(2, 1, 1)
        gate[1, 2:] += 1
        got = getattr(reference, f"{unit}_secant")(torch.ones_like(gate[:1]), gate, gate)
        assert all(one.isfinite().all() for one in got)

    @pytest.mark.parametrize("unit", GATED)
    def test_large_gates(self, dtype, unit):
        gate = torch.tensor([[3e4, -3e4, 200.0], [-3e4, -3e4, -200.0]], dtype=dtype)
        grad, up = torch.ones(1, 3, dtype=dtype), torch.ones(2, 3, dtype=dtype)
        to_gate, to_up = getattr(reference, f"{unit}_secant")(grad, gate, up)
        torch.testing.assert_close(to_gate, torch.tensor([[0.5, 0.0, 0.5]], dtype=dtype))
        torch.testing.assert_close(to_up, torch.tensor([[1.5e4, 0.0, 100.0]], dtype=dtype))

    def test_values_far_beyond_their_bound(self, dtype):
        first = torch.tensor([1e6, -1e6, 1e6], dtype=dtype)
        slope = reference.softcap_slope(first, torch.tensor([1e6, 1e6, 2e6], dtype=dtype), 2.0)
        torch.testing.assert_close(slope, torch.tensor([0.0, 2e-6, 0.0], dtype=dtype))

    def test_a_row_of_zeros(self, dtype):
        hidden = torch.zeros(2, 1, 8, dtype=dtype)
        hidden[1, 0, 0] = 1
        got = reference.rms_norm_secant(
            torch.ones(1, 1, 8, dtype=dtype), hidden, torch.ones(8, dtype=dtype), EPS
        )
        assert got.isfinite().all()
