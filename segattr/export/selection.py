"""Scored records to training rows: the paper's selective-learning variants, chosen by name.

One night's attribution makes all of them; none needs the model again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from segattr.dataset.record import ScoredTrace
from segattr.scores import SegmentScores
from segattr.training.rows import Row, training_row
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


@dataclass(frozen=True)
class Variant:
    """How a scored record becomes a training row.

    Args:
        select: What carries loss, one of `SELECTIONS`. First and last segment always do.
        tau: As in `SegmentScorer`; ``None``: as scored.
        beta: Likewise.
        share: Of the reasoning tokens, for the selections of tokens.
        seed: Of the random selection.
        weights: ``"mask"``: 1 for what is selected; ``"strength"``: soft weights by
            `strength_weights` for the selected segments.
        prune: Remove what is not selected from the text.
        train_response: Also put loss on what follows the reasoning.
        max_length: Most tokens of a row.
        too_long: As in `training_row`.

    Raises:
        ValueError: If a word is unknown, or two options contradict each other.
    """

    select: str = "scored"
    tau: float | None = None
    beta: float | None = None
    share: float = 0.45
    seed: int = 0
    weights: str = "mask"
    prune: bool = False
    train_response: bool = True
    max_length: int | None = None
    too_long: str = "error"

    def __post_init__(self) -> None:
        for name, words in (("select", SELECTIONS), ("weights", WEIGHTINGS)):
            if getattr(self, name) not in words:
                raise ValueError(
                    f"{name} must be one of {', '.join(words)}, got {getattr(self, name)!r}."
                )
        by_token = self.select in ("top-tokens", "top-signed-tokens")
        if by_token and (self.prune or self.weights != "mask"):
            raise ValueError(
                f"select={self.select!r} chooses tokens, got prune or weights, which are for whole "
                "segments. Leave these out."
            )
        unread = [] if self.select in ("important", "random") else ["beta"]
        unread += ["tau"] if self.select not in ("important", "random", "high-strength") else []
        if given := [name for name in unread if getattr(self, name) is not None]:
            raise ValueError(
                f"select={self.select!r} does not read {' and '.join(given)}, got a value. Pass "
                "select='important', or leave it out."
            )

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
        if self.select in ("top-tokens", "top-signed-tokens"):
            return top_tokens(scored.attribution, self.share, signed=self.select != "top-tokens")
        scores = self._scores(scored)
        kept = scores.kept
        if self.select == "all":
            kept = torch.ones_like(kept)
        elif self.select == "random":
            kept = random_segments(scored.encoded, scores, seed=self.seed)
        return kept * strength_weights(scores) if self.weights == "strength" else kept

    def _scores(self, scored: ScoredTrace) -> SegmentScores:
        if self.select in ("scored", "all"):
            return scored.scores
        given = {"tau": self.tau, "beta": 1.0 if self.select == "high-strength" else self.beta}
        anew: Any = {name: value for name, value in given.items() if value is not None}
        return replace(scored.scorer, **anew).select(scored.sums)
