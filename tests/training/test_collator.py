"""Padding and flattening, weights, and what is refused."""

from __future__ import annotations

from collections import UserDict

import pytest
import torch

from segattr import Attribution, EncodedTrace, LossMaskCollator

ROWS = [
    {"input_ids": [5, 6, 7, 8], "labels": [-100, 6, -100, 8], "loss_weights": [0.0, 1.0, 0.0, 1.0]},
    {"input_ids": [9, 10], "labels": [-100, 10]},
]
SOFT = [
    {"input_ids": [5, 6, 7, 8], "loss_weights": [9.0, 0.5, 0.0, 1.5]},
    {"input_ids": [9, 10], "loss_weights": [0.0, 0.25]},
]


def test_pads_on_the_right():
    batch = LossMaskCollator(0)(ROWS)
    assert set(batch) == {"input_ids", "attention_mask", "labels"}
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8], [9, 10, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch["labels"].tolist() == [[-100, 6, -100, 8], [-100, 10, -100, -100]]
    assert all(tensor.dtype == torch.int64 for tensor in batch.values())


def test_pads_on_the_left_and_to_a_multiple():
    collate = LossMaskCollator(3, padding_side="left", pad_to_multiple_of=3, emit_weights=True)
    batch = collate([ROWS[0], {**ROWS[1], "loss_weights": [1.0, 1.0]}])
    assert batch["input_ids"].tolist() == [[3, 3, 5, 6, 7, 8], [3, 3, 3, 3, 9, 10]]
    assert batch["attention_mask"].tolist()[1] == [0, 0, 0, 0, 1, 1]
    assert batch["labels"].tolist()[1] == [-100, -100, -100, -100, -100, 10]
    assert batch["loss_weights"].tolist() == [[0, 0, 0, 1, 0, 1], [0, 0, 0, 0, 0, 1]]


def test_flattens_documents_that_are_told_apart_by_positions():
    batch = LossMaskCollator(0, flatten=True, emit_weights=True)(SOFT)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9, 10]]
    assert batch["labels"].tolist() == [[-100, 6, -100, 8, -100, 10]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 0, 1]]
    assert batch["loss_weights"].tolist() == [[0.0, 0.5, 0.0, 1.5, 0.0, 0.25]]
    for side in "qk":
        assert batch[f"cu_seq_lens_{side}"].tolist() == [0, 4, 6]
        assert batch[f"cu_seq_lens_{side}"].dtype == torch.int32
        assert batch[f"max_length_{side}"] == 4
    assert batch["use_cache"] is False
    assert "attention_mask" not in batch


def test_a_flattened_batch_is_padded_by_a_document_of_its_own():
    batch = LossMaskCollator(3, flatten=True, pad_to_multiple_of=5)(ROWS)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9, 10, 3, 3, 3, 3]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 0, 1, 0, 1, 2, 3]]
    assert batch["labels"][0, 6:].tolist() == [-100] * 4
    assert batch["cu_seq_lens_q"].tolist() == [0, 4, 6, 10]


def test_packed_rows_are_taken_apart():
    row = {"input_ids": [5, 6, 7, 8, 9], "labels": [5, 6, 7, 8, 9], "seq_lengths": [2, 3]}
    batch = LossMaskCollator(0, flatten=True)([row, ROWS[1]])
    assert batch["position_ids"].tolist() == [[0, 1, 0, 1, 2, 0, 1]]
    assert batch["labels"].tolist() == [[-100, 6, -100, 8, 9, -100, 10]]
    with pytest.raises(ValueError, match=r"row 0 must hold one document .*, got 2.*flatten=True"):
        LossMaskCollator(0)([row])


def test_an_empty_document_in_a_pack_is_none():
    row = {"input_ids": [5, 6, 7], "labels": [-100, 6, 7], "seq_lengths": [2, 0, 1]}
    batch = LossMaskCollator(0, flatten=True)([row, ROWS[1]])
    assert batch["labels"].tolist() == [[-100, 6, -100, -100, 10]]
    assert batch["cu_seq_lens_q"].tolist() == [0, 2, 3, 5]


def test_masks_stand_in_for_labels():
    row = {"input_ids": [5, 6, 7], "assistant_masks": [1, 0, 1]}
    assert LossMaskCollator(0)([row])["labels"].tolist() == [[-100, -100, 7]]


def test_labels_win_over_assistant_masks_and_meet_weights():
    row = {"input_ids": [4, 5, 6, 7], "labels": [4, 5, -100, 7], "assistant_masks": [0, 0, 1, 1]}
    assert LossMaskCollator(0)([row])["labels"].tolist() == [[-100, 5, -100, 7]]
    collate = LossMaskCollator(0, emit_weights=True)
    batch = collate([{**row, "loss_mask": [1, 0, 1, 2.5]}])
    assert batch["labels"].tolist() == [[-100, -100, -100, 7]]
    assert batch["loss_weights"].tolist() == [[0, 0, 0, 2.5]]
    both = {**row, "loss_mask": [1, 0, 1, 2.5], "loss_weights": [1, 1, 1, 2.0]}
    assert collate([both])["loss_weights"].tolist() == [[0, 1, 0, 2]]


@pytest.mark.parametrize(
    "settings", [{"mode": "bernoulli"}, {"mode": "mask"}, {"emit_weights": True}]
)
def test_weights_that_a_trainer_dropped_are_missed(settings):
    """What a stock trainer leaves of a row: every weight would be 1."""
    with pytest.raises(ValueError, match=r"input_ids and weights .*remove_unused_columns=False"):
        LossMaskCollator(0, **settings)([{"input_ids": [5, 6], "labels": [-100, 6]}])


def test_other_columns_are_left_alone():
    extra = {"text": "...", "segments": [{"kept": True}], "id": None, "spans": [[1], [2, 3]]}
    plain, with_extra = (
        LossMaskCollator(0)(rows) for rows in (ROWS, [{**r, **extra} for r in ROWS])
    )
    assert plain.keys() == with_extra.keys()
    assert all(torch.equal(plain[name], with_extra[name]) for name in plain)


def test_rows_may_be_tensors():
    row = {name: torch.tensor(ROWS[0][name]) for name in ("input_ids", "labels")}
    assert LossMaskCollator(0)([row])["labels"].tolist() == [[-100, 6, -100, 8]]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"mode": "mask", "threshold": 0.4},
        {"mode": "bernoulli"},
        {"emit_weights": True, "normalize": "mean1"},
    ],
)
@pytest.mark.parametrize("flatten", [False, True])
def test_rows_are_not_changed(settings, flatten):
    weights = torch.tensor([1.0, 1.0, 0.5] if settings else [1.0, 1.0, 0.0]).double()
    row = {"input_ids": torch.tensor([5, 6, 7]), "loss_weights": weights.clone()}
    LossMaskCollator(0, flatten=flatten, **settings)([row])
    assert torch.equal(row["loss_weights"], weights)
    assert row["input_ids"].tolist() == [5, 6, 7]


def test_any_mapping_is_a_row():
    """Such as transformers' BatchEncoding."""
    assert LossMaskCollator(0)([UserDict(ROWS[0])])["labels"].tolist() == [[-100, 6, -100, 8]]


def test_a_mask_has_a_threshold():
    collate = LossMaskCollator(0, mode="mask", threshold=0.5, emit_weights=True)
    batch = collate(SOFT[:1])
    assert batch["labels"].tolist() == [[-100, -100, -100, 8]]
    assert batch["loss_weights"].tolist() == [[0, 0, 0, 1]]
    with pytest.raises(ValueError, match="row 1 keeps no token"):
        collate(SOFT)


def test_mean_1_is_per_document():
    row = {
        "input_ids": [1, 2, 3, 4, 5, 6],
        "loss_weights": [1.0, 1.0, 3.0, 1.0, 4.0, 0.0],
        "seq_lengths": [3, 3],
    }
    collate = LossMaskCollator(0, flatten=True, emit_weights=True, normalize="mean1")
    assert collate([row])["loss_weights"].tolist() == [[0, 0.5, 1.5, 0, 1, 0]]


def test_weights_that_sum_to_1_are_per_document():
    """The first token of a document, padding and a document without loss count for nothing."""
    pack = {
        "input_ids": [1, 2, 3, 4, 5, 6, 7, 8],
        "loss_weights": [9.0, 1.0, 3.0, 1.0, 4.0, 5.0, 1.0, 0.0],
        "labels": [1, 2, 3, 4, 5, -100, 7, 8],
        "seq_lengths": [3, 3, 2],
    }
    row = {"input_ids": [9, 10, 11], "loss_mask": [1, 1, 1]}
    collate = LossMaskCollator(
        0, flatten=True, emit_weights=True, normalize="trace", pad_to_multiple_of=6
    )
    weights = collate([pack, row])["loss_weights"]
    assert weights.tolist() == [[0, 0.25, 0.75, 0, 1, 0, 0, 0, 0, 0.5, 0.5, 0]]
    assert weights.dtype == torch.float32
    padded = LossMaskCollator(0, emit_weights=True, normalize="trace")([row, SOFT[0]])
    assert padded["loss_weights"].tolist() == [[0, 0.5, 0.5, 0], [0, 0.25, 0, 0.75]]
    assert padded["labels"].tolist() == [[-100, 10, 11, -100], [-100, 6, -100, 8]]


def test_a_skipped_row_is_no_trace():
    empty = {"input_ids": [5, 6], "loss_weights": [1.0, 0.0]}
    collate = LossMaskCollator(0, emit_weights=True, normalize="trace", on_empty="skip")
    assert collate([empty, *SOFT])["loss_weights"].sum(1).tolist() == [1, 1]


def test_bernoulli_keeps_a_label_with_its_weight_as_probability():
    rows = [{"input_ids": [7] * 4001, "loss_weights": [0.0] + [0.25] * 2000 + [1.0] * 2000}]
    torch.manual_seed(0)
    labels = LossMaskCollator(0, mode="bernoulli")(rows)["labels"][0]
    assert (labels[2001:] == 7).all()
    # 2,000 draws of probability 1/4 have a standard deviation of 19.
    assert (labels[:2001] == 7).sum().item() == pytest.approx(500, abs=80)


def test_bernoulli_never_draws_a_batch_without_loss():
    rows = [{"input_ids": [7, 8], "loss_weights": [0.0, 0.1]}] * 2
    collate = LossMaskCollator(0, mode="bernoulli")
    for seed in range(20):
        torch.manual_seed(seed)
        assert (collate(rows)["labels"] != -100).any()


def test_rows_without_loss_can_be_skipped():
    empty = {"input_ids": [5, 6, 7, 8, 9], "labels": [5, -100, -100, -100, -100]}
    batch = LossMaskCollator(0, on_empty="skip")([empty, *ROWS])
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8], [9, 10, 0, 0]]
    with pytest.raises(ValueError, match="at least one row, got 2 without any token"):
        LossMaskCollator(0, on_empty="skip")([empty, empty])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"input_ids": [5, 6]},
            r"row 1 must have .* labels or weights .*, got input_ids",
        ),
        ({"input_ids": [5, 6], "labels": [6]}, "labels as long as its 2 input_ids, got 1"),
        (
            {"input_ids": [5, 6], "labels": [-100, 6], "loss_weights": [0, 1, 1]},
            "loss_weights as long as its 2 input_ids, got 3",
        ),
        (
            {"input_ids": [5, 6], "labels": [-100, 6], "seq_lengths": [1, 2]},
            r"seq_lengths that sum to its 2 tokens, got \[1, 2\]",
        ),
        (
            {"input_ids": [5, 6], "labels": [6, -100]},
            "labels that are the input_ids or -100, got 6",
        ),
        ({"input_ids": [5, 6], "labels": [5, -100]}, "row 1 keeps no token: its loss would be 0/0"),
        ({"input_ids": [5, 6], "assistant_masks": [0, 0]}, "row 1 keeps no token"),
        (
            {"input_ids": [5, 6], "loss_weights": [0, -1.0]},
            r"loss_weights of row 1 must be at least 0 and finite, got -1\.0 at index 1",
        ),
        ({"input_ids": [5, 6], "loss_weights": [0, float("nan")]}, "got nan at index 1"),
        ({"input_ids": [5, 6], "loss_weights": [0, float("inf")]}, "got inf at index 1"),
        (
            {"input_ids": [5, 6], "loss_weights": [0, 0.5]},
            "row 1 has weights that are neither 0 nor 1.*emit_weights=True",
        ),
    ],
)
def test_bad_rows_are_named(row, message):
    with pytest.raises(ValueError, match=message):
        LossMaskCollator(0)([ROWS[0], row])


def test_weights_above_1_cannot_be_drawn():
    with pytest.raises(
        ValueError, match=r"row 0 must have weights of at most 1 to be drawn, got 1.5"
    ):
        LossMaskCollator(0, mode="bernoulli")(SOFT)


def test_other_things_than_rows_are_refused():
    encoded = EncodedTrace(range(5), (0, 1), [(1, 3)], (4, 5))
    attribution = Attribution(torch.zeros(5), encoded, -1.0, -2.0, 1, "by hand")
    remedy = r"Pass rows of training_row\(attribution\.encoded, scores\)"
    with pytest.raises(TypeError, match=rf"row 0 must be a Mapping, got an Attribution\. {remedy}"):
        LossMaskCollator(0)([attribution])
    with pytest.raises(TypeError, match=rf"row 1 must be a Mapping, got a list\. {remedy}"):
        LossMaskCollator(0)([ROWS[0], [5, 6]])


def test_a_tokenizer_is_no_pad_token(tokenizer):
    kind = type(tokenizer).__name__
    message = rf"must be a token id, got a {kind}\. Pass tokenizer\.pad_token_id"
    with pytest.raises(ValueError, match=message):
        LossMaskCollator(tokenizer)


def test_a_collator_shows_its_settings():
    assert "pad_token_id=3, flatten=True, " in repr(LossMaskCollator(3, flatten=True))
    with pytest.raises(TypeError, match="positional argument"):
        LossMaskCollator(3, True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pad_token_id": None}, "must be a token id, got None"),
        ({"pad_token_id": -1}, "must be a token id, got -1"),
        ({"padding_side": "top"}, "'right', 'left', got 'top'"),
        ({"pad_to_multiple_of": 0}, "at least 1, got 0"),
        ({"mode": "soft"}, "'weight', 'mask', 'bernoulli', got 'soft'"),
        ({"threshold": -0.1}, "at least 0, got -0.1"),
        ({"threshold": 0.5}, r"threshold=0\.5 needs mode='mask', got mode='weight'"),
        ({"threshold": float("nan")}, "at least 0, got nan"),
        ({"normalize": "sum1"}, "None, 'mean1', 'trace', got 'sum1'"),
        ({"normalize": "mean1"}, "needs emit_weights=True and mode='weight', got"),
        (
            {"normalize": "trace", "emit_weights": True, "mode": "mask"},
            "normalize='trace' needs emit_weights=True and mode='weight', got .* mode='mask'",
        ),
        ({"on_empty": "drop"}, "'error', 'skip', got 'drop'"),
        ({"flatten": True, "padding_side": "left"}, "'right' with flatten=True, got 'left'"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        LossMaskCollator(**{"pad_token_id": 0, **settings})
