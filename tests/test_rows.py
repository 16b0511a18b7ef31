"""Kept segments to labels."""

from __future__ import annotations

import pytest
import torch

from segattr import EncodedTrace, SegmentScores, TraceTooLongError, training_row


def scores(*kept: bool) -> SegmentScores:
    flags, values = torch.tensor(kept), torch.ones(len(kept)).double() / len(kept)
    return SegmentScores(values, values, values, flags, flags)


ENCODED = EncodedTrace(
    range(20, 32), (0, 3), [(3, 5), (5, 6), (6, 9)], (10, 11), torch.tensor([7, 8])
)


def test_loss_on_kept_segments_and_the_response():
    row = training_row(ENCODED, scores(True, False, True))
    assert row["input_ids"] == [20, 21, 22, 23, 24, 25, 26, 27, 28, 7, 8]
    assert row["labels"] == [-100, -100, -100, 23, 24, -100, 26, 27, 28, 7, 8]
    assert row["assistant_masks"] == [0, 0, 0, 1, 1, 0, 1, 1, 1, 1, 1]
    assert row["loss_weights"] == [0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    assert row["attention_mask"] == [1] * 11
    assert {type(value) for column in row.values() for value in column} == {int, float}


def test_the_response_can_be_left_out_of_the_loss():
    row = training_row(ENCODED, scores(True, False, False), train_response=False)
    assert [label for label in row["labels"] if label != -100] == [23, 24]
    assert row["input_ids"][-2:] == [7, 8]


def test_stub_and_answer_are_not_in_the_training_text():
    row = training_row(ENCODED, scores(True, True, True))
    assert not {29, 30, 31} & set(row["input_ids"])


def test_the_first_token_is_never_a_target():
    encoded = EncodedTrace([4, 5, 6, 7], (0, 0), [(0, 2)], (3, 4))
    assert training_row(encoded, scores(True))["labels"] == [-100, 5]


def test_a_row_without_loss_is_an_error():
    with pytest.raises(ValueError, match="keep at least one token, got none"):
        training_row(ENCODED, scores(False, False, False), train_response=False)


def test_scores_of_another_trace_are_refused():
    with pytest.raises(ValueError, match="this trace's 3 segments, got 2"):
        training_row(ENCODED, scores(True, True))


def test_nothing_is_truncated():
    assert len(training_row(ENCODED, scores(True, True, True), max_length=11)["input_ids"]) == 11
    with pytest.raises(TraceTooLongError, match="max_length = 9 tokens, got 11, 2 too many"):
        training_row(ENCODED, scores(True, True, True), max_length=9)
