"""What tests of the Triton kernels share: inputs, and the comparison in three ways.

Exact is the reference in float64, eager the reference in the tested dtype, got the kernel. Without
a GPU the kernels run in Triton's interpreter.
"""

from __future__ import annotations

import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SLACK = {torch.float64: 1e-12, torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 1e-2}


def assert_as_accurate(got, eager, exact, slack):
    """`got` may miss `exact` by no more than `eager` does, plus `slack` of the scale of `exact`."""
    assert got.shape == exact.shape
    assert got.dtype == eager.dtype
    assert torch.isfinite(got).all()
    scale = exact.abs().amax().clamp_min(1e-12)
    excess = ((got.double() - exact).abs() - (eager.double() - exact).abs()) / scale
    assert excess.max() <= slack, f"worse than torch by {excess.max():.2e} of full scale"


def random(*shape, dtype=torch.float64, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    values = scale * torch.randn(*shape, dtype=torch.float64, generator=generator)
    return values.to(DEVICE, dtype)


def copies(arguments, dtype=None):
    """Each op gets its own memory; ``dtype`` widens the floats."""
    return [
        value.to(dtype or value.dtype, copy=True) if isinstance(value, torch.Tensor) else value
        for value in arguments
    ]


def results(module, name, arguments):
    got = getattr(module, name)(*arguments)
    return got if isinstance(got, tuple) else (got,)


def strided(tensor):
    """The same values, as every second element of longer rows."""
    return torch.stack([tensor, tensor], dim=-1).flatten(-2)[..., ::2]
