"""Every op in plain torch: its definition, its CPU path and the oracle of its tests.

Arithmetic is float32, or float64 when the tensors are, and results are rounded once.
"""

from segattr.engine.reference.dtype import compute_dtype
from segattr.engine.reference.gradients import (
    blend,
    geglu,
    geglu_backward,
    path_dot,
    rms_norm,
    rms_norm_backward,
    rope,
    rope_backward,
    softcap,
    swiglu,
    swiglu_backward,
)
from segattr.engine.reference.secants import (
    attention_secant,
    capped_attention_secant,
    geglu_secant,
    log_softmax_secant,
    rms_norm_secant,
    softcap_slope,
    swiglu_secant,
)

__all__ = [
    "compute_dtype",
    "blend",
    "path_dot",
    "rms_norm",
    "rms_norm_backward",
    "rms_norm_secant",
    "swiglu",
    "swiglu_backward",
    "swiglu_secant",
    "geglu",
    "geglu_backward",
    "geglu_secant",
    "rope",
    "rope_backward",
    "softcap",
    "softcap_slope",
    "attention_secant",
    "capped_attention_secant",
    "log_softmax_secant",
]
