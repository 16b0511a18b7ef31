"""Kept segments to a training row, for any trainer that takes tokenised data.

Axes: ``T`` tokens of the training text (prompt, reasoning, response; no stub, no answer).
"""

from __future__ import annotations

from segattr.scores import SegmentScores
from segattr.trace import EncodedTrace, TraceTooLongError

IGNORED = -100

Row = dict[str, list[int] | list[float]]


def training_row(
    encoded: EncodedTrace,
    scores: SegmentScores,
    *,
    train_response: bool = True,
    max_length: int | None = None,
) -> Row:
    """Return one training example with loss on the kept segments.

    Args:
        encoded: The trace.
        scores: Its segment scores.
        train_response: Also put loss on the tokens after the reasoning.
        max_length: Most tokens the row may have; ``None``: any number.

    Returns:
        ``input_ids``, ``attention_mask`` (all 1), ``labels`` (the token itself, or -100 for no
        loss), ``assistant_masks`` (1 where there is loss) and ``loss_weights`` (1.0 or 0.0), lists
        of ``T`` each. Labels and masks say the same, because some trainers read one and drop the
        other. The first token never has a label: nothing predicts it.

    Raises:
        TraceTooLongError: If the row has more than ``max_length`` tokens.
        ValueError: If the scores are another trace's, or no token would carry loss.
    """
    if len(scores.kept) != len(encoded.segments):
        raise ValueError(
            f"scores must be those of this trace's {len(encoded.segments)} segments, got "
            f"{len(scores.kept)}. "
            "Score the attribution of this very trace."
        )
    reasoning_stop = encoded.reasoning[1]
    input_ids = encoded.input_ids[:reasoning_stop].tolist() + encoded.response_ids.tolist()
    if max_length is not None and len(input_ids) > max_length:
        raise TraceTooLongError(
            f"the row must fit max_length = {max_length} tokens, got {len(input_ids)}, "
            f"{len(input_ids) - max_length} too many. Skip this trace; cutting it would lose the "
            "answer."
        )
    mask = [0] * reasoning_stop + [int(train_response)] * len(encoded.response_ids)
    for (start, stop), kept in zip(encoded.segments, scores.kept.tolist(), strict=True):
        mask[start:stop] = [int(kept)] * (stop - start)
    mask[0] = 0
    if not any(mask):
        raise ValueError(
            "the row must keep at least one token, got none: its loss would be 0/0. Drop it, or "
            "raise beta."
        )
    return {
        "input_ids": input_ids,
        "attention_mask": [1] * len(input_ids),
        "labels": [token if on else IGNORED for token, on in zip(input_ids, mask, strict=True)],
        "assistant_masks": mask,
        "loss_weights": [float(on) for on in mask],
    }
