"""The result of an attribution method, and the protocol every method follows.

Axes: ``T`` tokens, ``S`` segments.
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


@dataclass(frozen=True)
class Attribution:
    """How much each token moved the answer's log-probability.

    Args:
        token_scores: Signed and raw (not normalised), ``[T]`` on CPU; float32, or float64 from a
            float64 model. Tokens that cannot reach the target have 0.
        encoded: The sequence the scores belong to.
        target_logprob: F(x), the sum of the answer tokens' log-probabilities, in nats.
        baseline_logprob: F(x'), the same at the baseline; ``None`` for methods without one.
        evaluations: Gradient evaluations of the whole model.
        segment_error: Estimated error of each segment's share, ``[S]``, where the method can tell.
        method: Name of the method.
        settings: What it was run with, JSON-serialisable.
    """

    token_scores: Tensor
    encoded: EncodedTrace
    target_logprob: float
    baseline_logprob: float | None
    evaluations: int
    segment_error: Tensor | None = None
    method: str = "integrated-gradients"
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def completeness_gap(self) -> float | None:
        """``|sum a - (F(x) - F(x'))| / |F(x) - F(x')|``; None for methods without a baseline."""
        if self.baseline_logprob is None:
            return None
        change = self.target_logprob - self.baseline_logprob
        return abs(float(self.token_scores.double().sum()) - change) / max(abs(change), 1e-12)

    def save(self, path: str | Path) -> None:
        """Write one safetensors file: the tensors, and everything else as JSON in its metadata."""
        tensors = {
            "token_scores": self.token_scores.contiguous(),
            "input_ids": self.encoded.input_ids,
            "response_ids": self.encoded.response_ids,
        }
        if self.segment_error is not None:
            tensors["segment_error"] = self.segment_error.contiguous()
        facts = {
            "id": self.encoded.id,
            "prompt": self.encoded.prompt,
            "segments": self.encoded.segments,
            "target": self.encoded.target,
            "target_logprob": self.target_logprob,
            "baseline_logprob": self.baseline_logprob,
            "evaluations": self.evaluations,
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
        )
        return cls(
            tensors["token_scores"], encoded, segment_error=tensors.get("segment_error"), **facts
        )


class Method(Protocol):
    """An attribution method: anything with this call can stand where `FastIG` stands."""

    def attribute(self, trace: Trace | EncodedTrace) -> Attribution:
        """Attribute the answer's log-probability to the trace's tokens."""
        ...
