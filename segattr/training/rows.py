"""Kept segments, or loss weights, to a training row for any trainer that takes tokenised data.

    [ prompt | segment_1 ... segment_S | response | trailing ]      T tokens of the training text

An opening mark that the model itself must write carries loss; what the template writes after the
end of the turn, and spans of the reasoning that are not to be trained, never do.

Axes: ``T`` tokens of that text (no stub, no answer), ``N`` of the reasoning, ``S`` segments.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from segattr.checks import require_nonnegative, require_type, require_word
from segattr.scores import SegmentScores
from segattr.trace import EncodedTrace, TraceTooLongError

IGNORED = -100  # the label of a token without loss, as in F.cross_entropy
TOO_LONG = ("error", "cut")

# The columns of a row and of a batch, spelled here only.
INPUT_IDS = "input_ids"
ATTENTION_MASK = "attention_mask"
LABELS = "labels"
ASSISTANT_MASKS = "assistant_masks"
LOSS_WEIGHTS = "loss_weights"
LOSS_MASK = "loss_mask"  # what verl calls the loss weights
SEQ_LENGTHS = "seq_lengths"  # of the documents that trl.pack_dataset put into one row

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
        scores: The trace's segment scores; needed unless ``weights`` are given.
        weights: Loss weights of the ``S`` segments or of the ``N`` tokens of the reasoning, at
            least 0, where 0 is no loss; made by `strength_weights`, `top_tokens` or
            `random_segments`. ``None``: 1 for kept segments, 0 for the others.
        prune: Remove the segments of weight 0 from the text (pruned SFT) instead of leaving them
            there without loss (selective SFT).
        train_response: Also put loss, of weight 1, on the tokens after the reasoning.
        max_length: The most tokens that the row may have; ``None`` sets no limit.
        too_long: What to do with a longer row: ``"error"`` refuses it; ``"cut"`` leaves out the
            response and as many of the last segments as necessary, each as a whole, so that no end
            of turn is trained after half a reasoning.

    Returns:
        ``input_ids``, ``attention_mask`` (all 1), ``labels`` (the token itself, or -100 for no
        loss), ``assistant_masks`` (1 where there is loss, else 0) and ``loss_weights`` (0 where
        there is no loss), lists of ``T`` each. Labels and masks say the same, because some trainers
        read one and drop the other. The first token never has a label: nothing predicts it.

    Raises:
        TraceTooLongError: If the row has more than ``max_length`` tokens, or cannot be cut to them.
        TypeError: If ``encoded`` or ``scores`` is another kind of object.
        ValueError: If scores or weights are those of another trace, a weight is negative or not
            finite, or no token would carry loss.
    """
    require_word("too_long", too_long, TOO_LONG)
    require_encoded(encoded)
    if scores is not None:
        require_scores_of(encoded, scores)
    if weights is None:
        if scores is None:
            raise ValueError("training_row must get scores or weights, got neither.")
        weights = scores.kept
    per_segment = _segment_weights(encoded, weights)
    if prune and any(len(set(values)) > 1 for values in per_segment):
        raise ValueError(
            "prune needs one weight for a whole segment, got weights that differ within one. "
            "Leave tokens in the text, or weight segments."
        )
    ids, opening = encoded.input_ids[: encoded.prompt[1]].tolist(), encoded.opening_tokens
    values = [0.0] * (len(ids) - opening) + [1.0] * opening
    stops = [len(ids)]
    untrained = set(itertools.chain(*(range(*span) for span in encoded.untrained)))
    for (start, stop), weight in zip(encoded.segments, per_segment, strict=True):
        if not prune or any(weight):
            ids += encoded.input_ids[start:stop].tolist()
            values += [0.0 if at in untrained else w for at, w in enumerate(weight, start)]
            stops.append(len(ids))
    ids += encoded.response_ids.tolist() + encoded.trailing_ids.tolist()
    values += [float(train_response)] * len(encoded.response_ids)
    values += [0.0] * len(encoded.trailing_ids)
    length = _fitting(len(ids), stops, max_length, too_long)
    return row_of(ids[:length], values[:length])


def row_of(ids: list[int], weights: list[float]) -> Row:
    """Return the columns of a row of these tokens; see `training_row`.

    Raises:
        ValueError: If no token after the first has a weight above 0.
    """
    weights = [0.0, *weights[1:]]
    mask = [int(weight > 0) for weight in weights]
    if not any(mask):
        raise ValueError(
            "the row must keep at least one token, got none: its loss would be 0/0. Drop it, "
            "select more, or cut less."
        )
    return {
        INPUT_IDS: ids,
        ATTENTION_MASK: [1] * len(ids),
        LABELS: [token if on else IGNORED for token, on in zip(ids, mask, strict=True)],
        ASSISTANT_MASKS: mask,
        LOSS_WEIGHTS: weights,
    }


def require_encoded(encoded: EncodedTrace) -> None:
    """Raise TypeError for what is passed by mistake: an attribution, a trace as text."""
    remedy = "Pass attribution.encoded, or encode(trace, tokenizer) of a trace."
    require_type("encoded", encoded, EncodedTrace, remedy)


def require_scores_of(encoded: EncodedTrace, scores: SegmentScores) -> None:
    """Raise unless these are scores, and have one value for each segment of the trace."""
    require_type("scores", scores, SegmentScores, "Pass SegmentScorer().score(attribution).")
    if len(scores.kept) != len(encoded.segments):
        raise ValueError(
            f"scores must be those of this trace's {len(encoded.segments)} segments, got "
            f"{len(scores.kept)}. Score the attribution of this very trace."
        )


def _segment_weights(encoded: EncodedTrace, weights: Tensor | Sequence[float]) -> list[list[float]]:
    """Return one weight for every token of every segment, checked."""
    spans = encoded.segments
    start, stop = encoded.reasoning
    values = torch.as_tensor(weights).double().cpu()
    if values.shape not in {(len(spans),), (stop - start,)}:
        raise ValueError(
            f"weights must be one for each of this trace's {len(spans)} segments or "
            f"{stop - start} reasoning tokens, got shape {list(values.shape)}. Make them from this "
            "very trace."
        )
    require_nonnegative("weights", values, "A weight of 0 takes the loss away.")
    if len(values) == len(spans):
        lengths = torch.tensor([stop - start for start, stop in spans])
        values = values.repeat_interleave(lengths)
    return [values[a - start : b - start].tolist() for a, b in spans]


def _fitting(length: int, stops: Sequence[int], max_length: int | None, too_long: str) -> int:
    """Return how many tokens of the row stay; prompt and segments stop at ``stops``."""
    if max_length is None or length <= max_length:
        return length
    if max_length < 1:
        raise ValueError(f"max_length must be at least 1, got {max_length}.")
    fitting = [stop for stop in stops[1:] if stop <= max_length]
    if too_long == "cut" and fitting:
        return fitting[-1]
    remedy = (
        "Skip this trace, or pass too_long='cut' to leave out its last segments and the response."
    )
    if too_long == "cut":
        remedy = f"Prompt and first segment alone have {stops[:2][-1]}: skip this trace."
    raise TraceTooLongError(
        f"the row must fit max_length = {max_length} tokens, got {length}, "
        f"{length - max_length} too many. {remedy}"
    )
