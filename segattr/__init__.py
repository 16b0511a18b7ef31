"""Fast, exact segment-level attribution of long reasoning traces, and the loss masks made from it.

trace -> segments -> attribution [T] -> segment scores [S] -> training row [T] -> collated batch

Names are imported from their modules, and torch with them, when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from segattr.version import __version__ as __version__

if TYPE_CHECKING:
    from segattr.attribution import Attribution, Method
    from segattr.encoding import encode
    from segattr.ig import Adaptive, FastIG, Fixed, Rule, fit_rule
    from segattr.quadrature import Integral, integrate
    from segattr.scores import SegmentScorer, SegmentScores, UndecidedWarning
    from segattr.segments import split_segments
    from segattr.trace import EncodedTrace, Trace, TraceTooLongError
    from segattr.training import (
        GRPOTokenMaskMixin,
        GRPOTokenWeightMixin,
        LossMaskCollator,
        TokenWeightMixin,
        random_segments,
        strength_weights,
        top_tokens,
        training_row,
    )

__all__ = [
    "Trace",
    "split_segments",
    "encode",
    "EncodedTrace",
    "TraceTooLongError",
    "integrate",
    "Integral",
    "FastIG",
    "Fixed",
    "Adaptive",
    "fit_rule",
    "Rule",
    "Attribution",
    "Method",
    "SegmentScorer",
    "SegmentScores",
    "UndecidedWarning",
    "random_segments",
    "strength_weights",
    "top_tokens",
    "training_row",
    "LossMaskCollator",
    "TokenWeightMixin",
    "GRPOTokenWeightMixin",
    "GRPOTokenMaskMixin",
]
HOMES = ("trace", "segments", "encoding", "attribution", "scores", "quadrature", "ig", "training")


def __getattr__(name: str) -> Any:
    if name in __all__:
        for home in HOMES:
            module = importlib.import_module(f"segattr.{home}")
            if hasattr(module, name):
                return getattr(module, name)
    raise AttributeError(f"module 'segattr' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
