"""Rounding noise of a model's gradients, by the dtype it runs in.

Measured by benchmarks/evidence_noise.py. The noise is that of most points of a path. Where F is
rough along it, points may be off by ten times as much or more; that looks like roughness to a
refinement, too, and is left to its error estimates.
"""

from __future__ import annotations

import torch

from segattr.quadrature.noise import Noise

# In units of the dtype's eps: a little more than SmolLM2-135M has in bfloat16 and float16, whose
# points are off by 11 in the median; the bundled model of 4 layers has half.
COMMON, OWN, FLOOR = 8.0, 8.0, 3.0


def noise_of(dtype: torch.dtype) -> Noise:
    """Return the noise of integrands by gradients in a dtype.

    None for 32 and 64 bits: in float32 it makes 2e-4 of an integral at most.
    """
    if dtype not in (torch.float16, torch.bfloat16):
        return Noise()
    eps = torch.finfo(dtype).eps
    return Noise(COMMON * eps, OWN * eps, FLOOR * eps)
