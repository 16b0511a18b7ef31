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

from segattr.quadrature.fixed import RULES, nodes_and_weights

FORMAT = "segattr rule 1"
SAMPLED = 64  # numbers of each weight that go into a fingerprint


@dataclass(frozen=True, eq=False)
class Rule:
    """Path points and weights fitted to one model, baseline and scope; see `fit_rule`.

    Args:
        alphas: Path points in [0, 1], float64 ``[K]``, ascending.
        weights: At least 0, float64 ``[K]``.
        fingerprint: Of the model.
        baseline: As `describe_baseline` has it.
        scope: As given to `FastIG`.
        largest_gap: Completeness gap, at most 1, beyond which a trace is not like those of the
            validation.
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

    def require(self, model: nn.Module, baseline: str, scope: str) -> None:
        """Raise ValueError if the rule was fitted to another model, baseline or scope.

        Args:
            model: The causal LM.
            baseline: From `describe_baseline`.
            scope: As given to `FastIG`.
        """
        for what, own, given in (
            ("model", self.fingerprint, fingerprint(model)),
            ("baseline", self.baseline, baseline),
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
        partial = Path(f"{path}.partial")
        partial.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        partial.replace(path)

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
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
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
        if not (weights.min() >= 0 and weights.isfinite().all()):
            raise ValueError("negative weights")
        if not 0 <= self.largest_gap <= 1 or not isinstance(self.validation, dict):
            raise ValueError("a gap outside [0, 1], or no validation")
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
    if not isinstance(rule, str):
        raise TypeError(f"rule must be a name or a Rule, got {rule!r}. Load files with Rule.load.")
    return torch.empty(0, dtype=torch.float64), torch.empty(0, dtype=torch.float64)


def fingerprint(model: nn.Module) -> str:
    """Return what tells this model from others: its weights' names, shapes and some numbers.

    The numbers are rounded to bfloat16, so a model is the same in float64, float32 and bfloat16;
    float16 rounds otherwise. Of offloaded weights only names and shapes count.
    """
    digest = hashlib.sha256(type(model).__name__.encode())
    for name, weight in model.named_parameters():
        digest.update(f"{name} {tuple(weight.shape)}".encode())
        if weight.is_meta:
            continue
        flat = weight.detach().flatten()
        sample = flat[:: max(1, len(flat) // SAMPLED)][:SAMPLED]
        digest.update(sample.to("cpu", torch.bfloat16).view(torch.int16).numpy().tobytes())
    return digest.hexdigest()[:16]


def describe_baseline(baseline: str | int | Tensor, token_id: int | None) -> str:
    """Return a baseline as text: its token, its name, or a hash of its numbers.

    Args:
        baseline: As given to `FastIG`.
        token_id: From `baseline_token`.
    """
    if token_id is not None:
        return f"token {token_id}"
    if isinstance(baseline, Tensor):
        numbers = baseline.detach().to("cpu", torch.float32).contiguous().numpy().tobytes()
        return f"tensor {hashlib.sha256(numbers).hexdigest()[:16]}"
    return str(baseline)
