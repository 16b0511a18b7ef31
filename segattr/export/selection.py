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
from segattr.dataset.student import Student, StudentTrace
from segattr.scores import SegmentScorer
from segattr.trace import EncodedTrace
from segattr.training.rows import LOSS_WEIGHTS, TOO_LONG, Row, training_row
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
NORMALIZED_BY = (None, "trace")
SECOND = "keep_second_to_last"
READ = {
    "important": ("tau", "beta", SECOND),
    "random": ("tau", "beta", SECOND),
    "high-strength": ("tau", SECOND),
    **dict.fromkeys(BY_TOKEN, (SECOND,)),
}


@dataclass(frozen=True)
class Variant:
    """How a scored record becomes a training row.

    Args:
        select: What carries loss, one of `SELECTIONS`. The segments that the scorer always keeps,
            such as the first and last one, always do.
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
        whole_below: Traces whose row has fewer tokens than this are trained whole, whatever is
            selected (the released code's rule, with 4000); the row is counted before anything is
            removed or cut. ``None``: no such rule.
        keep_second_to_last: Also keep the segment before the last, as the released code does;
            False: as scored.
        normalize: ``"trace"`` scales each row's weights to sum 1, for trainers that divide by the
            sum of the weights: every trace then counts the same (Eq. 9 of arXiv 2602.00425).
            ``None``: every token counts by its weight.

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
    whole_below: int | None = None
    keep_second_to_last: bool = False
    normalize: str | None = None

    def __post_init__(self) -> None:
        require_word("select", self.select, SELECTIONS)
        require_word("weighting", self.weighting, WEIGHTINGS)
        require_word("too_long", self.too_long, TOO_LONG)
        require_word("normalize", self.normalize, NORMALIZED_BY)
        self._require_in_range()
        self._require_consistent()

    def _require_in_range(self) -> None:
        replace(SegmentScorer(), **self._anew())  # which checks them
        if not 0 < self.share <= 1:
            raise ValueError(
                f"share must be in (0, 1], got {self.share}. It is a share of the tokens."
            )
        for name, tokens in (("max_length", self.max_length), ("whole_below", self.whole_below)):
            if tokens is not None and tokens < 1:
                raise ValueError(f"{name} must be at least 1, got {tokens}.")

    def _require_consistent(self) -> None:
        if self.select in BY_TOKEN and (self.prune or self.weighting != "mask"):
            raise ValueError(
                f"select={self.select!r} chooses tokens, got prune or weighting, which are for "
                "whole segments. Leave these out."
            )
        if self.select == "all" and self.whole_below is not None:
            raise ValueError(
                "select='all' trains every trace whole, got whole_below too. Leave it out."
            )
        if given := [name for name in self._anew() if name not in READ.get(self.select, ())]:
            raise ValueError(
                f"select={self.select!r} does not read {' and '.join(given)}, got a value. Pass "
                "select='important', or leave it out."
            )

    @property
    def is_weighted(self) -> bool:
        """Whether weights may be other than 0 and 1."""
        return self.weighting != "mask" or self.normalize is not None

    def row(self, scored: ScoredTrace, student: Student | None = None) -> Row:
        """Return the training row of a scored trace; see `training_row`.

        What is selected follows from the record alone; it is the same text for every student.

        Args:
            scored: The record.
            student: The model to train; ``None``: the one that the trace was scored with.

        Raises:
            TraceTooLongError: If it is too long, and not to be cut.
            ValueError: If nothing of it would carry loss, the record lacks what it needs, or the
                student cannot write it.
        """
        return self.row_as(scored if student is None else student.read(scored))

    def row_as(self, trace: ScoredTrace | StudentTrace) -> Row:
        """Return the training row of a trace, in the tokens that it is in; see `row`."""
        row = training_row(
            trace.encoded,
            weights=self._weights(trace),
            prune=self.prune,
            train_response=self.train_response,
            max_length=self.max_length,
            too_long=self.too_long,
        )
        if self.normalize is not None:
            total = sum(row[LOSS_WEIGHTS])
            row[LOSS_WEIGHTS] = [weight / total for weight in row[LOSS_WEIGHTS]]
        return row

    def _weights(self, trace: ScoredTrace | StudentTrace) -> Tensor:
        scored = trace if isinstance(trace, ScoredTrace) else trace.scored
        is_whole = self._is_whole(trace.encoded)
        if self.select in BY_TOKEN and not is_whole:
            chosen = self._top_tokens(scored)
            return chosen if isinstance(trace, ScoredTrace) else trace.token_weights(chosen)
        if is_whole:
            kept = torch.ones(len(scored.segments), dtype=torch.bool)
        else:
            kept = self._kept(scored)
        return kept * strength_weights(scored.scores) if self.weighting == "strength" else kept

    def _is_whole(self, encoded: EncodedTrace) -> bool:
        """Whether all of a trace carries loss, in the tokens of the model to train."""
        if self.select == "all" or self.whole_below is None:
            return self.select == "all"
        return encoded.reasoning[1] + len(encoded.response_ids) < self.whole_below

    def _top_tokens(self, scored: ScoredTrace) -> Tensor:
        scorer = self._scorer(scored)
        return top_tokens(
            scored.attribution,
            self.share,
            signed=self.select == "top-signed-tokens",
            keep_ends=scorer.keep_ends,
            keep_second_to_last=scorer.keep_second_to_last,
        )

    def _kept(self, scored: ScoredTrace) -> Tensor:
        """Which segments carry loss."""
        if self.select == "scored":
            return scored.scores.kept
        scorer = self._scorer(scored)
        scores = scorer.select(scored.sums)
        if self.select != "random":
            return scores.kept
        return random_segments(
            scored.encoded,
            scores,
            seed=self.seed,
            keep_ends=scorer.keep_ends,
            keep_second_to_last=scorer.keep_second_to_last,
        )

    def _scorer(self, scored: ScoredTrace) -> SegmentScorer:
        anew = self._anew()
        if self.select == "high-strength":
            anew["beta"] = 1.0
        return replace(scored.scorer, **anew)

    def _anew(self) -> dict[str, Any]:
        """What the scorer is to do otherwise than as scored."""
        given = {"tau": self.tau, "beta": self.beta, SECOND: self.keep_second_to_last or None}
        return {name: value for name, value in given.items() if value is not None}
