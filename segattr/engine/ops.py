"""The only door to the Triton kernels: which implementation of the ops a tensor gets.

`segattr.engine.reference` and the package ``segattr_kernels`` have functions of the same names and
signatures; whoever needs an op takes it from the module that `choose` returns.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from types import ModuleType

from torch import Tensor

from segattr.checks import require_word
from segattr.engine import reference

BACKENDS = ("auto", "torch", "triton")


def choose(backend: str, tensor: Tensor) -> ModuleType:
    """Return the module whose ops fit the tensor.

    Args:
        backend: ``"torch"``, ``"triton"``, or ``"auto"``: Triton for a CUDA tensor where Triton is
            installed, else torch.
        tensor: What the ops will work on.

    Raises:
        RuntimeError: If ``"triton"`` cannot run on the tensor.
        ValueError: If the word is unknown.
    """
    require_word("backend", backend, BACKENDS)
    installed = importlib.util.find_spec("triton") is not None
    if backend == "torch" or (backend == "auto" and not (tensor.is_cuda and installed)):
        return reference
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if not installed or not (tensor.is_cuda or interpreted):
        raise RuntimeError(
            "backend='triton' needs a CUDA tensor and Triton, got a tensor on "
            f"{tensor.device.type}{'' if installed else ' and no Triton'}. Pass backend='auto' to "
            "use the torch path."
        )
    return importlib.import_module("segattr_kernels")


def name_of(implementation: ModuleType) -> str:
    """Return the backend's word for what `choose` returned."""
    return "torch" if implementation is reference else "triton"
