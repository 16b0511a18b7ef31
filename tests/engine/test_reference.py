"""The ops against their definitions, in every dtype."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from segattr.engine.reference import blend, geglu, geglu_backward, path_dot, rms_norm

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


def random(*shape, dtype=torch.float32, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_blend_rounds_once(dtype):
    inputs, baseline, alphas = (
        random(5, 8, dtype=dtype),
        random(5, 8, dtype=dtype, seed=1),
        torch.rand(3).double(),
    )
    exact = baseline.double() + alphas[:, None, None] * (inputs.double() - baseline.double())
    got = blend(inputs, baseline, alphas)
    assert got.dtype == dtype
    assert got.shape == (3, 5, 8)
    # Half a unit in the last place, and float32 arithmetic before it.
    assert ((got.double() - exact).abs() <= torch.finfo(dtype).eps * exact.abs() / 2 + 1e-6).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_blend_meets_both_ends(dtype):
    inputs, baseline = random(5, 8, dtype=dtype), random(5, 8, dtype=dtype, seed=1)
    ends = blend(inputs, baseline, torch.tensor([0.0, 1.0]))
    assert torch.equal(ends[0], baseline)
    torch.testing.assert_close(ends[1], inputs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("points", "tokens", "width"), [(1, 1, 1), (3, 5, 8), (7, 63, 65)])
def test_path_dot_accumulates_in_float32(dtype, points, tokens, width):
    inputs, baseline = (
        random(tokens, width, dtype=dtype),
        random(tokens, width, dtype=dtype, seed=1),
    )
    gradients = random(points, tokens, width, dtype=dtype, seed=2)
    terms = (inputs.double() - baseline.double()) * gradients.double()
    got = path_dot(inputs, baseline, gradients)
    assert got.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert ((got.double() - terms.sum(-1)).abs() <= 1e-6 * terms.abs().sum(-1)).all()


def test_path_dot_does_not_touch_its_arguments():
    inputs, baseline, gradients = random(4, 8), random(4, 8, seed=1), random(2, 4, 8, seed=2)
    before = [tensor.clone() for tensor in (inputs, baseline, gradients)]
    path_dot(inputs, baseline, gradients)
    assert all(
        torch.equal(a, b) for a, b in zip(before, (inputs, baseline, gradients), strict=True)
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_norm_with_a_wide_weight_rounds_once(dtype):
    """As Gemma's, whose result is the exact one's nearest number but for float32's own rounding."""
    hidden, weight = random(5, 64, dtype=dtype), 1 + random(64, seed=1)
    normed, total, rstd = rms_norm(hidden, weight, 1e-6)
    wide = hidden.double()
    exact = weight.double() * wide * (wide.square().mean(-1, keepdim=True) + 1e-6).rsqrt()
    assert normed.dtype == total.dtype == dtype
    assert rstd.dtype == torch.float32
    half = torch.finfo(dtype).eps / 2 + 1e-6
    assert ((normed.double() - exact).abs() <= half * exact.abs()).all()
    twice, *_ = rms_norm(hidden, weight.to(dtype), 1e-6)
    assert not ((twice.double() - exact).abs() <= half * exact.abs()).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_geglu_and_its_gradients(dtype):
    gate, up, grad = (3 * random(5, 48, dtype=dtype, seed=seed) for seed in range(3))
    wide = [part.double().clone().requires_grad_() for part in (gate, up)]
    exact = F.gelu(wide[0], approximate="tanh") * wide[1]
    wanted = torch.autograd.grad(exact, wide, grad.double())
    got = [geglu(gate, up), *geglu_backward(grad, gate, up)]
    for ours, theirs in zip(got, (exact, *wanted), strict=True):
        assert ours.dtype == dtype
        assert (ours.double() - theirs).norm() <= 4 * torch.finfo(dtype).eps * theirs.norm()
