"""Kept segments to labels."""

from __future__ import annotations

import pytest
import torch
from tiny import make_scores

from segattr import (
    Attribution,
    EncodedTrace,
    Trace,
    TraceTooLongError,
    training_row,
)

ENCODED = EncodedTrace(
    range(20, 32), (0, 3), [(3, 5), (5, 6), (6, 9)], (10, 11), torch.tensor([7, 8])
)


def test_loss_on_kept_segments_and_the_response():
    row = training_row(ENCODED, make_scores(True, False, True))
    assert row["input_ids"] == [20, 21, 22, 23, 24, 25, 26, 27, 28, 7, 8]
    assert row["labels"] == [-100, -100, -100, 23, 24, -100, 26, 27, 28, 7, 8]
    assert row["assistant_masks"] == [0, 0, 0, 1, 1, 0, 1, 1, 1, 1, 1]
    assert row["loss_weights"] == [0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    assert row["attention_mask"] == [1] * 11
    assert {type(value) for column in row.values() for value in column} == {int, float}


def test_the_response_can_be_left_out_of_the_loss():
    row = training_row(ENCODED, make_scores(True, False, False), train_response=False)
    assert [label for label in row["labels"] if label != -100] == [23, 24]
    assert row["input_ids"][-2:] == [7, 8]


def test_stub_and_answer_are_not_in_the_training_text():
    row = training_row(ENCODED, make_scores(True, True, True))
    assert not {29, 30, 31} & set(row["input_ids"])


def test_the_first_token_is_never_a_target():
    encoded = EncodedTrace([4, 5, 6, 7], (0, 0), [(0, 2)], (3, 4))
    assert training_row(encoded, make_scores(True))["labels"] == [-100, 5]


def test_a_row_without_loss_is_an_error():
    with pytest.raises(ValueError, match="keep at least one token, got none"):
        training_row(ENCODED, make_scores(False, False, False), train_response=False)


def test_scores_of_another_trace_are_refused():
    with pytest.raises(ValueError, match="this trace's 3 segments, got 2"):
        training_row(ENCODED, make_scores(True, True))


def test_nothing_is_truncated():
    assert (
        len(training_row(ENCODED, make_scores(True, True, True), max_length=11)["input_ids"]) == 11
    )
    with pytest.raises(TraceTooLongError, match="max_length = 9 tokens, got 11, 2 too many"):
        training_row(ENCODED, make_scores(True, True, True), max_length=9)


def test_text_of_dropped_segments_can_be_removed():
    """Pruned SFT: what is left is trained in full."""
    row = training_row(ENCODED, make_scores(True, False, True), prune=True)
    assert row["input_ids"] == [20, 21, 22, 23, 24, 26, 27, 28, 7, 8]
    assert row["labels"] == [-100, -100, -100, 23, 24, 26, 27, 28, 7, 8]


@pytest.mark.parametrize("weights", [[0.5, 0, 2], [0.5, 0.5, 0, 2, 2, 2]])
def test_weights_of_segments_or_of_tokens(weights):
    row = training_row(ENCODED, weights=weights)
    assert row["loss_weights"] == [0, 0, 0, 0.5, 0.5, 0, 2, 2, 2, 1, 1]
    assert row["labels"] == [-100, -100, -100, 23, 24, -100, 26, 27, 28, 7, 8]
    assert row["assistant_masks"] == [0, 0, 0, 1, 1, 0, 1, 1, 1, 1, 1]


def test_weights_come_before_scores():
    row = training_row(
        ENCODED, make_scores(True, True, True), weights=torch.tensor([0.0, 0.0, 1.0])
    )
    assert row["assistant_masks"] == [0] * 6 + [1] * 5


def test_pruning_with_weights_keeps_them():
    row = training_row(ENCODED, weights=[0.0, 3.0, 0.5], prune=True)
    assert row["input_ids"] == [20, 21, 22, 25, 26, 27, 28, 7, 8]
    assert row["loss_weights"] == [0, 0, 0, 3, 0.5, 0.5, 0.5, 1, 1]


def test_a_long_row_is_cut_between_segments_and_loses_its_end():
    """11 tokens: prompt 3, segments 2 + 1 + 3, response 2."""
    for limit, length in ((11, 11), (10, 9), (9, 9), (8, 6), (6, 6), (5, 5)):
        row = training_row(ENCODED, make_scores(True, True, True), max_length=limit, too_long="cut")
        assert (
            row["input_ids"]
            == training_row(ENCODED, make_scores(True, True, True))["input_ids"][:length]
        )
        assert len(row["labels"]) == len(row["loss_weights"]) == length
    with pytest.raises(TraceTooLongError, match="Prompt and first segment alone have 5"):
        training_row(ENCODED, make_scores(True, True, True), max_length=4, too_long="cut")
    with pytest.raises(ValueError, match=r"keep at least one token, got none.* or cut less"):
        training_row(ENCODED, make_scores(False, False, True), max_length=6, too_long="cut")
    with pytest.raises(TraceTooLongError, match="have 3: skip this trace"):
        training_row(ENCODED, weights=[0, 0, 0], prune=True, max_length=4, too_long="cut")
    with pytest.raises(ValueError, match="max_length must be at least 1, got 0"):
        training_row(ENCODED, weights=[1, 1, 1], max_length=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "must get scores or weights, got neither"),
        ({"weights": [1.0, 1.0]}, r"3 segments or 6 reasoning tokens, got shape \[2\]"),
        ({"weights": [1.0, -0.5, 0]}, r"at least 0 and finite, got -0\.5 at index 1"),
        ({"weights": [1.0, 0, float("nan")]}, "got nan at index 2"),
        ({"weights": [1, 0, 0, 0, 0, 0.0], "prune": True}, "weights that differ within one"),
        ({"weights": [1, 1, 1], "too_long": "truncate"}, "'error', 'cut', got 'truncate'"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        training_row(ENCODED, **options)


ATTRIBUTION = Attribution(torch.zeros(12), ENCODED, -1.0, -2.0, 1, "by hand")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            (ATTRIBUTION, make_scores(True, True, True)),
            r"encoded must be an EncodedTrace, got an Attribution\. Pass attribution\.encoded",
        ),
        (
            (Trace("q", "r", "a"), make_scores(True)),
            r"must be an EncodedTrace, got a Trace\..* encode\(trace, tokenizer\)",
        ),
        (
            (ENCODED, ATTRIBUTION),
            r"scores must be a SegmentScores, got an Attribution\. Pass SegmentScorer\(\)\.score",
        ),
        ((ENCODED, {"kept": [True, True, True]}), "scores must be a SegmentScores, got a dict"),
        ((ENCODED, [1.0, 1.0, 1.0]), "scores must be a SegmentScores, got a list"),
    ],
)
def test_first_mistakes_are_sentences(given, message):
    with pytest.raises(TypeError, match=message):
        training_row(*given)


def test_weights_alone_need_a_trace_too():
    with pytest.raises(TypeError, match=r"got an Attribution\. Pass attribution\.encoded"):
        training_row(ATTRIBUTION, weights=[1, 1, 1])
