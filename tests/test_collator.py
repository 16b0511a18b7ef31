"""Padding, and what it refuses."""

from __future__ import annotations

import pytest
import torch

from segattr import LossMaskCollator

ROWS = [
    {"input_ids": [5, 6, 7, 8], "labels": [-100, 6, -100, 8], "loss_weights": [0.0, 1.0, 0.0, 1.0]},
    {"input_ids": [9, 10], "labels": [-100, 10]},
]


def test_pads_on_the_right():
    batch = LossMaskCollator(0)(ROWS)
    assert set(batch) == {"input_ids", "attention_mask", "labels"}
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8], [9, 10, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch["labels"].tolist() == [[-100, 6, -100, 8], [-100, 10, -100, -100]]
    assert all(tensor.dtype == torch.int64 for tensor in batch.values())


def test_pads_on_the_left_and_to_a_multiple():
    batch = LossMaskCollator(3, padding_side="left", pad_to_multiple_of=3)(ROWS)
    assert batch["input_ids"].tolist() == [[3, 3, 5, 6, 7, 8], [3, 3, 3, 3, 9, 10]]
    assert batch["attention_mask"].tolist()[1] == [0, 0, 0, 0, 1, 1]


def test_masks_stand_in_for_labels():
    row = {"input_ids": [5, 6, 7], "assistant_masks": [1, 0, 1]}
    assert LossMaskCollator(0)([row])["labels"].tolist() == [[-100, -100, 7]]


def test_rows_may_be_tensors():
    row = {name: torch.tensor(ROWS[0][name]) for name in ("input_ids", "labels")}
    assert LossMaskCollator(0)([row])["labels"].tolist() == [[-100, 6, -100, 8]]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"input_ids": [5, 6]}, "row 1 must have labels or assistant_masks, got input_ids"),
        ({"input_ids": [5, 6], "labels": [6]}, "labels as long as its 2 input_ids, got 1"),
        ({"input_ids": [5, 6], "labels": [5, -100]}, "row 1 keeps no token: its loss would be 0/0"),
        ({"input_ids": [5, 6], "assistant_masks": [0, 0]}, "row 1 keeps no token"),
    ],
)
def test_bad_rows_are_named(row, message):
    with pytest.raises(ValueError, match=message):
        LossMaskCollator(0)([ROWS[0], row])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pad_token_id": None}, "must be a token id, got None"),
        ({"pad_token_id": 0, "padding_side": "top"}, "'right' or 'left', got 'top'"),
        ({"pad_token_id": 0, "pad_to_multiple_of": 0}, "at least 1, got 0"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        LossMaskCollator(**settings)
