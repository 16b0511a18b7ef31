"""What all launchers share: dtype of the arithmetic, launch shape, one check, the launch."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
import triton.language as tl
from torch import Tensor

# Elements per program of an elementwise kernel; also the largest tile of a loop.
TILE = 2048


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which tensors of ``dtype`` are accumulated: float32, or float64 for float64."""
    return torch.promote_types(dtype, torch.float32)


def wide_tl(dtype: torch.dtype) -> Any:
    """The same as Triton names it."""
    return tl.float64 if dtype == torch.float64 else tl.float32


def num_warps(tile: int) -> int:
    """Warps for a tile of this many elements: 16 a thread, two 16-byte loads of a 16-bit tensor."""
    return min(max(tile // 512, 1), 16)


def require_contiguous(**tensors: Tensor) -> None:
    """Refuse a tensor whose memory is to take a result and cannot be addressed as one block."""
    for name, tensor in tensors.items():
        if not tensor.is_contiguous():
            raise ValueError(
                f"{name} must be contiguous, since its memory takes the result, got strides "
                f"{tensor.stride()} for shape {tuple(tensor.shape)}. Pass {name}.contiguous()."
            )


def launch(kernel: Any, programs: int, *arguments: Any, **options: Any) -> None:
    """Run that many programs of a kernel, if any, on the device of its first argument."""
    if programs == 0:
        return
    device = arguments[0].device
    # Triton launches on the current device, which need not be the tensor's.
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        # With fusion, a product that must be rounded first would go into an fma unrounded.
        kernel[(programs,)](*arguments, **{"enable_fp_fusion": False, **options})
