"""Rounding noise of a model's gradients, by the dtype it runs in.

Measured by benchmarks/evidence_noise.py; see the table in benchmarks/README.md.
"""

from __future__ import annotations

import torch

from segattr.quadrature.noise import Noise

# In units of the dtype's eps.
COMMON, OWN, FLOOR = 8.0, 8.0, 3.0


def noise_of(dtype: torch.dtype) -> Noise:
    """Return the noise of integrands by gradients in a dtype: none for 32 and 64 bits."""
    if dtype not in (torch.float16, torch.bfloat16):
        return Noise()
    eps = torch.finfo(dtype).eps
    return Noise(COMMON * eps, OWN * eps, FLOOR * eps)
