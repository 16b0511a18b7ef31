"""The precision of all arithmetic."""

from __future__ import annotations

import torch


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which tensors of ``dtype`` are accumulated: float32, or float64 for float64."""
    return torch.promote_types(dtype, torch.float32)
