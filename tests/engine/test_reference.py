"""The ops against their definitions, in every dtype."""

from __future__ import annotations

import pytest
import torch

from segattr.engine.reference import blend, path_dot

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
