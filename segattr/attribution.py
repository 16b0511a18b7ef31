"""The result of an attribution method, and the protocol every method follows.

Axes: ``T`` tokens, ``S`` segments, ``P`` samples.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from segattr.trace import EncodedTrace, Trace

WIDE_GAP = 0.05  # relative; beyond, so much of F(x) - F(x') is missing that points were too few
DOUBTS = {
    "gap": "the completeness gap is wide, so the scores are no good estimate",
    "agreement": "the scores did not converge, so more path points may change what is kept",
}


@dataclass(frozen=True, eq=False, repr=False)
class Attribution:
    """How much each token moved the answer's log-probability.

    Args:
        token_scores: Signed and raw (not normalised), ``[T]`` on CPU; float32, or float64 from a
            float64 model. Tokens that cannot reach the target have 0.
        encoded: The sequence the scores belong to.
        target_logprob: F(x), the sum of the answer tokens' log-probabilities, in nats.
        baseline_logprob: F(x'), the same at the baseline; ``None`` for methods without one.
        evaluations: Reverse sweeps through the whole model: a gradient evaluation each, or a piece
            of finite propagation.
        method: Name of the method, such as ``"integrated-gradients"`` or ``"finite-propagation"``.
        converged: Whether what the method was asked for was reached, by its own estimate: an
            agreement of the kept segments, or scores within a tolerance. None for methods that
            cannot tell; then there are no errors either.
        token_error: Estimated absolute error of each token score, ``[T]``.
        segment_samples: The segments' sums of scores and of absolute scores as they may really be,
            float64 ``[P, S, 2]``; the first sample has the sums as they are. NaN where no error can
            be estimated.
        settings: What really ran: JSON-serialisable.
    """

    token_scores: Tensor
    encoded: EncodedTrace
    target_logprob: float
    baseline_logprob: float | None
    evaluations: int
    method: str
    converged: bool | None = None
    token_error: Tensor | None = None
    segment_samples: Tensor | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        name = "" if self.encoded.id is None else f"{self.encoded.id!r}, "
        baseline = "" if self.baseline_logprob is None else f"{self.baseline_logprob:.2f} -> "
        return (
            f"Attribution({name}{self.method}, {len(self.token_scores)} tokens, "
            f"{len(self.encoded.segments)} segments, log p {baseline}{self.target_logprob:.2f}, "
            f"{self.evaluations} evaluation{'s' * (self.evaluations != 1)}, "
            f"trustworthy={self.trustworthy}{self._grounds()})"
        )

    def _grounds(self) -> str:
        """What `trustworthy` rests on, in brackets."""
        grounds = []
        if (gap := self.completeness_gap) is not None:
            grounds.append(f"gap {gap:.1%}")
        if self.converged is not None:
            grounds.append("converged" if self.converged else "not converged")
        return f" ({'; '.join(grounds)})" if grounds else ""

    @property
    def completeness_gap(self) -> float | None:
        """``|sum a - (F(x) - F(x'))| / |F(x) - F(x')|``; None for methods without a baseline."""
        if self.baseline_logprob is None:
            return None
        return completeness_gap(self.token_scores, self.target_logprob - self.baseline_logprob)

    @property
    def doubts(self) -> list[str]:
        """Why the scores are not to be trusted, names of `DOUBTS`; empty if nothing says so."""
        return doubts_of(self.completeness_gap, self.converged)

    @property
    def trustworthy(self) -> bool | None:
        """Whether nothing speaks against the scores; None for methods that cannot tell.

        A method can tell by its completeness gap, and by an estimate of its own error.
        """
        if self.completeness_gap is None and self.converged is None:
            return None
        return not self.doubts

    @property
    def segment_error(self) -> Tensor | None:
        """Estimated error of each segment's share of the absolute scores, float64 ``[S]``."""
        if self.segment_samples is None:
            return None
        shares = self.segment_samples[..., 1]
        shares = shares / shares.sum(-1, keepdim=True).clamp_min(1e-300)
        return (shares[1:] - shares[0]).abs().amax(0)

    def save(self, path: str | Path) -> None:
        """Write one safetensors file: the tensors, and everything else as JSON in its metadata."""
        tensors = {
            "token_scores": self.token_scores.contiguous(),
            "input_ids": self.encoded.input_ids,
            "response_ids": self.encoded.response_ids,
        }
        errors = {"token_error": self.token_error, "segment_samples": self.segment_samples}
        tensors |= {key: error.contiguous() for key, error in errors.items() if error is not None}
        facts = {
            "id": self.encoded.id,
            "prompt": self.encoded.prompt,
            "segments": self.encoded.segments,
            "target": self.encoded.target,
            "characters": self.encoded.characters,
            "target_logprob": self.target_logprob,
            "baseline_logprob": self.baseline_logprob,
            "evaluations": self.evaluations,
            "converged": self.converged,
            "method": self.method,
            "settings": dict(self.settings),
        }
        save_file(tensors, path, metadata={"segattr": json.dumps(facts)})

    @classmethod
    def load(cls, path: str | Path) -> Attribution:
        """Read what `save` wrote.

        Raises:
            ValueError: If the file is a safetensors file of something else.
        """
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if "segattr" not in metadata:
                raise ValueError(
                    f"{path} must hold an attribution, got another safetensors file. Check the "
                    "path."
                )
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
        facts = json.loads(metadata["segattr"])
        encoded = EncodedTrace(
            tensors["input_ids"],
            facts.pop("prompt"),
            facts.pop("segments"),
            facts.pop("target"),
            tensors["response_ids"],
            facts.pop("id"),
            facts.pop("characters"),
        )
        return cls(
            tensors["token_scores"],
            encoded,
            token_error=tensors.get("token_error"),
            segment_samples=tensors.get("segment_samples"),
            **facts,
        )


def completeness_gap(token_scores: Tensor, change: float) -> float:
    """Return ``|sum a - change| / |change|``; ``change`` is ``F(x) - F(x')``."""
    return abs(float(token_scores.double().sum()) - change) / max(abs(change), 1e-12)


def doubts_of(gap: float | None, converged: bool | None, max_gap: float = WIDE_GAP) -> list[str]:
    """Return the names of `DOUBTS` that hold.

    Args:
        gap: As `Attribution.completeness_gap`.
        converged: As `Attribution.converged`.
        max_gap: The widest gap that is no doubt, relative.
    """
    found = {"gap": gap is not None and not gap <= max_gap, "agreement": converged is False}
    return [name for name in DOUBTS if found[name]]


class Method(Protocol):
    """An attribution method: anything with this call can stand where `FastIG` stands."""

    def attribute(self, trace: Trace | EncodedTrace) -> Attribution:
        """Attribute the answer's log-probability to the trace's tokens."""
        ...
