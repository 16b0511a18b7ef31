"""The ops of `segattr.engine.reference` as Triton kernels: same names, arguments and results.

Static launch shapes, no autotuning, no atomics: the same call gives the same bits. Needs Triton
and CUDA tensors, or ``TRITON_INTERPRET=1`` set before the import.
"""

from segattr_kernels.attention_secant import attention_secant
from segattr_kernels.blend import blend
from segattr_kernels.path_dot import path_dot
from segattr_kernels.rms_norm import rms_norm, rms_norm_backward, rms_norm_secant
from segattr_kernels.rope import rope, rope_backward
from segattr_kernels.swiglu import swiglu, swiglu_backward, swiglu_secant

__all__ = [
    "blend",
    "path_dot",
    "rms_norm",
    "rms_norm_backward",
    "rms_norm_secant",
    "swiglu",
    "swiglu_backward",
    "swiglu_secant",
    "rope",
    "rope_backward",
    "attention_secant",
]
