"""Rules fitted to one model: their files, and what they do with a trace they were not fitted for.

Axes: ``K`` path points.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from segattr.attribution import completeness_gap
from segattr.engine.fingerprint import fingerprint
from segattr.ig.path import Path
from segattr.ig.rules import GRADIENTS, Adaptive, Findings, Spans, settings_of, weighted_sum
from segattr.scores import SegmentScorer

FORMAT = "segattr rule 1"


@dataclass(frozen=True, eq=False)
class Rule:
    """Path points and rule weights fitted to one model, baseline and scope; see `fit_rule`.

    Args:
        alphas: Path points in [0, 1], float64 ``[K]``, ascending.
        weights: Rule weights, at least 0, float64 ``[K]``.
        fingerprint: The model's fingerprint.
        baseline: As text; see `segattr.ig.baseline.Baseline`.
        scope: As given to `FastIG`.
        largest_gap: Completeness gap, at most 1. A trace with a larger one is unlike those of the
            validation, and is integrated by ``otherwise``.
        validation: What was seen on the held-out traces: ``traces``, ``median_error`` and
            ``worst_error`` (relative L2 of the token scores), ``kept_agreement`` (mean Jaccard
            index of the kept segments).
        otherwise: What it gives way to; not part of its file.
    """

    alphas: Tensor
    weights: Tensor
    fingerprint: str
    baseline: str
    scope: str
    largest_gap: float
    validation: Mapping[str, float] = field(default_factory=dict)
    otherwise: Adaptive = field(default_factory=Adaptive)
    method = GRADIENTS

    def __str__(self) -> str:
        return f"fitted, {len(self.alphas)} points"

    @property
    def scorer(self) -> SegmentScorer | None:
        return self.otherwise.scorer

    @property
    def cost(self) -> str:
        points = len(self.alphas)
        return (
            f"{points} gradient evaluation{'s' * (points != 1)} a trace; where it gives way, "
            f"{self.otherwise.cost.removesuffix(' a trace')} more"
        )

    def integrate(self, path: Path, spans: Spans) -> Findings:
        """Sum the integrands at the path points, or give way; see `IntegrationRule`."""
        scores = weighted_sum(path, self.alphas, self.weights)
        steps = len(self.alphas)
        if completeness_gap(scores, path.change()) <= self.largest_gap:
            return Findings(scores, settings_of("fitted", steps=steps))
        found = self.otherwise.integrate(path, spans)
        return replace(found, settings={**found.settings, "gave_way": "fitted", "steps": steps})

    def require(self, model: nn.Module, baseline: str, scope: str) -> None:
        """Raise ValueError if the rule was fitted to another model, baseline or scope.

        Args:
            model: The causal LM.
            baseline: As text.
            scope: As given to `FastIG`.
        """
        _require_same("model", self.fingerprint, fingerprint(model))
        _require_same("baseline", self.baseline, baseline)
        self.require_scope(scope)

    def require_scope(self, scope: str) -> None:
        """Raise ValueError if the rule was fitted to another scope; needs no model."""
        _require_same("scope", self.scope, scope, f"Pass scope={self.scope!r}, or fit")

    def save(self, path: str | pathlib.Path) -> None:
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
        partial = pathlib.Path(f"{path}.partial")
        partial.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        partial.replace(path)

    @classmethod
    def load(cls, path: str | pathlib.Path) -> Rule:
        """Read what `save` wrote.

        Raises:
            ValueError: If the file is damaged, or is not a rule's.
            OSError: If it cannot be read.
        """
        try:
            facts = json.loads(pathlib.Path(path).read_bytes())
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
        if not isinstance(self.otherwise, Adaptive):
            raise ValueError("a field of another kind of file")


def _require_same(what: str, own: str, given: str, remedy: str = "Fit") -> None:
    if own != given:
        raise ValueError(
            f"rule must have been fitted to this {what}, got one for {own} instead of {given}. "
            f"{remedy} another with fit_rule or segattr calibrate."
        )
