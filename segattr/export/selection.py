"""Scored records to training rows: the paper's selective-learning variants, chosen by name.

One night's attribution makes all of them; none needs the model again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from segattr.checks import require_word
from segattr.dataset.record import ScoredTrace
from segattr.scores import SegmentScorer, SegmentScores
from segattr.training.rows import TOO_LONG, Row, training_row
from segattr.training.weights import random_segments, strength_weights, top_tokens

SELECTIONS = {
    "scored": "the segments that are kept in the file",
    "important": "tau and beta anew",
    "high-strength": "tau alone, without beta",
    "random": "as many random segments as are important",
    "top-tokens": "the tokens of the highest |attribution|, wherever they are",
    "top-signed-tokens": "the tokens of the highest attribution",
    "all": "everything: plain fine-tuning",
}
WEIGHTINGS = ("mask", "strength")
BY_TOKEN = ("top-tokens", "top-signed-tokens")
READ = {"important": ("tau", "beta"), "random": ("tau", "beta"), "high-strength": ("tau",)}


@dataclass(frozen=True)
class Variant:
    """How a scored record becomes a training row.

    Args:
        select: What carries loss, one of `SELECTIONS`. First and last segment always do.
        tau: Share of the strength, as in `SegmentScorer`; ``None``: as scored.
        beta: Highest direction consistency, as in `SegmentScorer`; ``None``: as scored.
        share: Which part of the reasoning tokens the selections of tokens choose, in (0, 1].
        seed: Seeds the random selection.
        weighting: ``"mask"``: 1 for what is selected; ``"strength"``: soft weights by
            `strength_weights` for the selected segments.
        prune: Remove what is not selected from the text.
        train_response: Also put loss on what follows the reasoning.
        max_length: Most tokens of a row, at least 1; ``None`` sets no limit.
        too_long: As in `training_row`.

    Raises:
        ValueError: If a word is unknown, a value out of range, or two options contradict each
            other.
    """

    select: str = "scored"
    tau: float | None = None
    beta: float | None = None
    share: float = 0.45
    seed: int = 0
    weighting: str = "mask"
    prune: bool = False
    train_response: bool = True
    max_length: int | None = None
    too_long: str = "error"

    def __post_init__(self) -> None:
        require_word("select", self.select, SELECTIONS)
        require_word("weighting", self.weighting, WEIGHTINGS)
        require_word("too_long", self.too_long, TOO_LONG)
        self._require_in_range()
        self._require_consistent()

    def _require_in_range(self) -> None:
        replace(SegmentScorer(), **self._thresholds())  # which checks them
        if not 0 < self.share <= 1:
            raise ValueError(
                f"share must be in (0, 1], got {self.share}. It is a share of the tokens."
            )
        if self.max_length is not None and self.max_length < 1:
            raise ValueError(f"max_length must be at least 1, got {self.max_length}.")

    def _require_consistent(self) -> None:
        if self.select in BY_TOKEN and (self.prune or self.is_weighted):
            raise ValueError(
                f"select={self.select!r} chooses tokens, got prune or weighting, which are for "
                "whole segments. Leave these out."
            )
        if given := [name for name in self._thresholds() if name not in READ.get(self.select, ())]:
            raise ValueError(
                f"select={self.select!r} does not read {' and '.join(given)}, got a value. Pass "
                "select='important', or leave it out."
            )

    @property
    def is_weighted(self) -> bool:
        """Whether weights may be other than 0 and 1."""
        return self.weighting != "mask"

    def row(self, scored: ScoredTrace) -> Row:
        """Return the training row of a scored trace; see `training_row`.

        Raises:
            TraceTooLongError: If it is too long, and not to be cut.
            ValueError: If nothing of it would carry loss, or the record lacks what it needs.
        """
        return training_row(
            scored.encoded,
            weights=self._weights(scored),
            prune=self.prune,
            train_response=self.train_response,
            max_length=self.max_length,
            too_long=self.too_long,
        )

    def _weights(self, scored: ScoredTrace) -> Tensor:
        if self.select in BY_TOKEN:
            return top_tokens(scored.attribution, self.share, signed=self.select != "top-tokens")
        scores = self._scores(scored)
        kept = scores.kept
        if self.select == "all":
            kept = torch.ones_like(kept)
        elif self.select == "random":
            kept = random_segments(scored.encoded, scores, seed=self.seed)
        return kept * strength_weights(scores) if self.is_weighted else kept

    def _scores(self, scored: ScoredTrace) -> SegmentScores:
        if self.select in ("scored", "all"):
            return scored.scores
        anew = self._thresholds()
        if self.select == "high-strength":
            anew["beta"] = 1.0
        return replace(scored.scorer, **anew).select(scored.sums)

    def _thresholds(self) -> dict[str, Any]:
        """Those of tau and beta that are not as scored."""
        given = {"tau": self.tau, "beta": self.beta}
        return {name: value for name, value in given.items() if value is not None}
