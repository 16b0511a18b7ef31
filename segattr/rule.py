"""Rules for FastIG: those with a name, and rules fitted to one model.

Axes: ``K`` path points, ``D`` hidden size.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from segattr.quadrature import RULES, nodes_and_weights

FORMAT = "segattr rule 1"
SAMPLED = 64  # numbers of each weight that go into a fingerprint


@dataclass(frozen=True)
class Rule:
    """Path points and weights fitted to one model, baseline and scope; see `fit_rule`.

    Args:
        alphas: Path points in [0, 1], float64 ``[K]``, ascending.
        weights: At least 0, float64 ``[K]``.
        fingerprint: Of the model.
        baseline: As `describe_baseline` has it.
        scope: As given to `FastIG`.
        largest_gap: Completeness gap beyond which a trace is not like those of the validation.
        validation: What was seen on the held-out traces: ``traces``, ``median_error`` and
            ``worst_error`` (relative L2 of the token scores), ``kept_agreement`` (mean Jaccard
            index of the kept segments).
    """

    alphas: Tensor
    weights: Tensor
    fingerprint: str
    baseline: str
    scope: str
    largest_gap: float
    validation: Mapping[str, float] = field(default_factory=dict)

    def require(self, model: nn.Module, baseline: str | int | Tensor, scope: str) -> None:
        """Raise ValueError if the rule was fitted to another model, baseline or scope."""
        for what, own, given in (
            ("model", self.fingerprint, fingerprint(model)),
            ("baseline", self.baseline, describe_baseline(baseline)),
            ("scope", self.scope, scope),
        ):
            if own != given:
                raise ValueError(
                    f"rule must have been fitted to this {what}, got one for {own} instead of "
                    f"{given}. Fit another with fit_rule or segattr calibrate."
                )

    def save(self, path: str | Path) -> None:
        """Write the rule as JSON."""
        facts = {
            "format": FORMAT,
            "alphas": self.alphas.tolist(),
            "weights": self.weights.tolist(),
            "fingerprint": self.fingerprint,
            "baseline": self.baseline,
            "scope": self.scope,
            "largest_gap": self.largest_gap,
            "validation": dict(self.validation),
        }
        Path(path).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Rule:
        """Read what `save` wrote.

        Raises:
            ValueError: If the file is damaged, or none of these.
            OSError: If it cannot be read.
        """
        try:
            facts = json.loads(Path(path).read_bytes())
            if facts.pop("format") != FORMAT:
                raise ValueError("another format")
            alphas, weights = (
                torch.tensor(facts.pop(key), dtype=torch.float64) for key in ("alphas", "weights")
            )
            rule = cls(alphas, weights, **facts)
            rule._require_whole()
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(
                f"{path} must hold a rule that segattr wrote, got something else ({error}). "
                "Calibrate again."
            ) from None
        return rule

    def _require_whole(self) -> None:
        alphas, weights = self.alphas, self.weights
        if not alphas.ndim == weights.ndim == 1 or not 0 < len(alphas) == len(weights):
            raise ValueError("points and weights that do not match")
        if not (alphas.min() >= 0 and alphas.max() <= 1 and (alphas.diff() > 0).all()):
            raise ValueError("points outside [0, 1] or out of order")
        if not (weights.min() >= 0 and weights.isfinite().all() and self.largest_gap >= 0):
            raise ValueError("negative weights or gap")
        if not all(isinstance(x, str) for x in (self.fingerprint, self.baseline, self.scope)):
            raise ValueError("no model, baseline or scope")


def points_and_weights(rule: str | Rule, steps: int | None) -> tuple[Tensor, Tensor]:
    """Return a rule's path points and weights, float64 ``[K]`` each; none for ``"auto"``.

    Raises:
        ValueError: If the name is unknown, or ``steps`` do not go with the rule.
    """
    if isinstance(rule, str) and rule != "auto":
        if rule not in RULES:
            names = ", ".join(map(repr, ("auto", *RULES)))
            raise ValueError(f"rule must be one of {names}, or a Rule, got {rule!r}.")
        return nodes_and_weights(rule, 50 if steps is None else steps)
    if steps is not None:
        what = "rule='auto'" if rule == "auto" else "a fitted rule"
        raise ValueError(
            f"steps must be None with {what}, got {steps}. Set max_evaluations, or name a rule "
            "such as rule='midpoint'."
        )
    if isinstance(rule, Rule):
        return rule.alphas, rule.weights
    return torch.empty(0, dtype=torch.float64), torch.empty(0, dtype=torch.float64)


def fingerprint(model: nn.Module) -> str:
    """Return what tells this model from others: its weights' names, shapes and some numbers.

    The numbers are rounded to bfloat16, so a model is itself in every dtype.
    """
    digest = hashlib.sha256(type(model).__name__.encode())
    for name, weight in model.named_parameters():
        flat = weight.detach().flatten()
        sample = flat[:: max(1, len(flat) // SAMPLED)][:SAMPLED]
        digest.update(f"{name} {tuple(weight.shape)}".encode())
        digest.update(sample.to("cpu", torch.bfloat16).view(torch.int16).numpy().tobytes())
    return digest.hexdigest()[:16]


def describe_baseline(baseline: str | int | Tensor) -> str:
    """Return a baseline as text: its name, its token id, or a hash of its numbers."""
    if isinstance(baseline, Tensor):
        numbers = baseline.detach().to("cpu", torch.float32).contiguous().numpy().tobytes()
        return f"tensor {hashlib.sha256(numbers).hexdigest()[:16]}"
    return str(baseline)
