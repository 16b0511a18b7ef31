"""Kept segments, or loss weights, to a training row for any trainer that takes tokenised data.

    [ prompt | segment_1 ... segment_S | response ]      T tokens of the training text

Axes: ``T`` tokens of that text (no stub, no answer), ``N`` of the reasoning, ``S`` segments.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from segattr.scores import SegmentScores
from segattr.trace import EncodedTrace, TraceTooLongError

IGNORED = -100
TOO_LONG = ("error", "cut")

Row = dict[str, list[int] | list[float]]


def training_row(
    encoded: EncodedTrace,
    scores: SegmentScores | None = None,
    *,
    weights: Tensor | Sequence[float] | None = None,
    prune: bool = False,
    train_response: bool = True,
    max_length: int | None = None,
    too_long: str = "error",
) -> Row:
    """Return one training example with loss on the kept segments.

    Args:
        encoded: The trace.
        scores: Its segment scores; needed unless ``weights`` are given.
        weights: Loss weights of the ``S`` segments or of the ``N`` tokens of the reasoning, at
            least 0, where 0 is no loss (`strength_weights`, `top_tokens`). ``None``: 1 for kept
            segments, 0 for the others.
        prune: Remove the segments of weight 0 from the text (pruned SFT) instead of leaving them
            there without loss (selective SFT).
        train_response: Also put loss, of weight 1, on the tokens after the reasoning.
        max_length: Most tokens the row may have; ``None``: any number.
        too_long: What to do with a longer row: ``"error"``, or ``"cut"``: leave out the response
            and as many of the last segments as need be, each as a whole, so that no end of turn
            is trained after half a reasoning.

    Returns:
        ``input_ids``, ``attention_mask`` (all 1), ``labels`` (the token itself, or -100 for no
        loss), ``assistant_masks`` (1 where there is loss) and ``loss_weights`` (0 where there is
        none), lists of ``T`` each. Labels and masks say the same, because some trainers read one
        and drop the other. The first token never has a label: nothing predicts it.

    Raises:
        TraceTooLongError: If the row has more than ``max_length`` tokens, or cannot be cut to them.
        ValueError: If scores or weights are another trace's, a weight is negative or not finite,
            or no token would carry loss.
    """
    if too_long not in TOO_LONG:
        raise ValueError(
            f"too_long must be one of {', '.join(map(repr, TOO_LONG))}, got {too_long!r}."
        )
    per_segment = _segment_weights(encoded, scores, weights)
    if prune and any(len(set(values)) > 1 for values in per_segment):
        raise ValueError(
            "prune needs one weight for a whole segment, got weights that differ within one. "
            "Leave tokens in the text, or weight segments."
        )
    start, stop = encoded.prompt
    ids, values = encoded.input_ids[start:stop].tolist(), [0.0] * (stop - start)
    ends = [len(ids)]
    for (start, stop), weight in zip(encoded.segments, per_segment, strict=True):
        if not prune or any(weight):
            ids += encoded.input_ids[start:stop].tolist()
            values += weight
            ends.append(len(ids))
    ids += encoded.response_ids.tolist()
    values += [float(train_response)] * len(encoded.response_ids)
    length = _fitting(len(ids), ends, max_length, too_long)
    return row_of(ids[:length], values[:length])


def row_of(ids: list[int], weights: list[float]) -> Row:
    """Return the columns of a row of these tokens; see `training_row`.

    Raises:
        ValueError: If no token but the first has a weight above 0.
    """
    weights = [0.0, *weights[1:]]
    mask = [int(weight > 0) for weight in weights]
    if not any(mask):
        raise ValueError(
            "the row must keep at least one token, got none: its loss would be 0/0. Drop it, "
            "select more, or cut less."
        )
    return {
        "input_ids": ids,
        "attention_mask": [1] * len(ids),
        "labels": [token if on else IGNORED for token, on in zip(ids, mask, strict=True)],
        "assistant_masks": mask,
        "loss_weights": weights,
    }


def _segment_weights(
    encoded: EncodedTrace,
    scores: SegmentScores | None,
    weights: Tensor | Sequence[float] | None,
) -> list[list[float]]:
    """One weight for every token of every segment, checked."""
    spans = encoded.segments
    start, stop = encoded.reasoning
    if scores is not None and len(scores.kept) != len(spans):
        raise ValueError(
            f"scores must be those of this trace's {len(spans)} segments, got "
            f"{len(scores.kept)}. Score the attribution of this very trace."
        )
    if weights is None:
        if scores is None:
            raise ValueError("training_row must get scores or weights, got neither.")
        weights = scores.kept
    values = torch.as_tensor(weights).double().cpu()
    if values.shape not in {(len(spans),), (stop - start,)}:
        raise ValueError(
            f"weights must be one of this trace's {len(spans)} segments or {stop - start} "
            f"reasoning tokens each, got shape {list(values.shape)}. Make them from this very "
            "trace."
        )
    if not (values.isfinite() & (values >= 0)).all():
        bad = int((~(values.isfinite() & (values >= 0))).nonzero()[0])
        raise ValueError(
            f"weights must be at least 0 and finite, got {values[bad]} at {bad}. A weight of 0 "
            "takes the loss away."
        )
    if len(values) == len(spans):
        lengths = torch.tensor([stop - start for start, stop in spans])
        values = values.repeat_interleave(lengths)
    return [values[a - start : b - start].tolist() for a, b in spans]


def _fitting(length: int, ends: Sequence[int], max_length: int | None, too_long: str) -> int:
    """How many tokens of the row stay; ``ends`` are those of the prompt and of its segments."""
    if max_length is None or length <= max_length:
        return length
    if max_length < 1:
        raise ValueError(f"max_length must be at least 1, got {max_length}.")
    fitting = [end for end in ends[1:] if end <= max_length]
    if too_long == "cut" and fitting:
        return fitting[-1]
    remedy = (
        "Skip this trace, or pass too_long='cut' to leave out its last segments and the response."
    )
    if too_long == "cut":
        remedy = f"Prompt and first segment alone have {ends[:2][-1]}: skip this trace."
    raise TraceTooLongError(
        f"the row must fit max_length = {max_length} tokens, got {length}, "
        f"{length - max_length} too many. {remedy}"
    )
