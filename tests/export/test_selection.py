"""One scored record, many rows."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny import make_scored

from segattr import LossMaskCollator, SegmentScorer, TraceTooLongError
from segattr.dataset import ScoredTrace
from segattr.export.selection import SELECTIONS, Variant

# Strengths of `make_scored` by hand:
# 2/sqrt(2), 3, 6/sqrt(3), 0.2/sqrt(2) = 1.41, 3, 3.46, 0.14; sum 8.02: 18, 37, 43, 2 %.


@pytest.fixture
def record() -> ScoredTrace:
    found = make_scored()
    kept = [True, False, False, True]
    segments = [replace(s, kept=flag) for s, flag in zip(found.segments, kept, strict=True)]
    return replace(found, segments=segments)


def with_loss(record, **options) -> list[int]:
    row = Variant(**options).row(record)
    assert [int(label != -100) for label in row["labels"]] == row["assistant_masks"]
    return [label for label in row["labels"] if label != -100]


ENDS, RESPONSE = [22, 23, 28, 29], [7, 8]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [22, 23, 28, 29, 7, 8]),
        ({"train_response": False}, [22, 23, 28, 29]),
        # Both strong segments reach 80 %; segment 1 has a consistency of 1.
        ({"select": "important"}, [22, 23, 25, 26, 27, 28, 29, 7, 8]),
        ({"select": "important", "beta": 1.0}, [*range(22, 30), 7, 8]),
        ({"select": "high-strength"}, [*range(22, 30), 7, 8]),
        ({"select": "high-strength", "tau": 0.4}, [22, 23, 25, 26, 27, 28, 29, 7, 8]),
        ({"select": "all"}, [*range(22, 30), 7, 8]),
        # 3 of 8 tokens: 24 and the first two of 25, 26, 27.
        ({"select": "top-tokens", "share": 0.375}, [22, 23, 24, 25, 26, 28, 29, 7, 8]),
        ({"select": "top-signed-tokens", "share": 0.375}, [22, 23, 24, 25, 27, 28, 29, 7, 8]),
    ],
)
def test_what_carries_loss(record, options, expected):
    assert with_loss(record, **options) == expected


def test_random_segments_are_as_many_as_important_ones(record):
    """Two are important without beta; with both ends, 2 to 4 are kept."""
    seen = {tuple(with_loss(record, select="random", beta=1.0, seed=seed)) for seed in range(20)}
    assert len(seen) > 2
    assert all({22, 23, 28, 29} <= set(tokens) for tokens in seen)


def test_random_segments_are_counted_with_beta(record):
    """One segment is important with a beta of 0.8; random draws may fall on the ends too."""
    counts = {
        beta: {len(with_loss(record, select="random", beta=beta, seed=s)) for s in range(30)}
        for beta in (0.8, 1.0)
    }
    ends, one, three, all_inner = 6, 7, 9, 10
    assert counts[0.8] == {ends, one, three}
    assert counts[1.0] == {ends, one, three, all_inner}


def test_pruning_removes_the_text(record):
    row = Variant(prune=True).row(record)
    assert row["input_ids"] == [20, 21, 22, 23, 28, 29, 7, 8]
    assert row["labels"] == [-100, -100, 22, 23, 28, 29, 7, 8]


def test_soft_weights_are_on_what_is_selected(record):
    strengths = [0.1, 0.2, 0.3, 0.4]
    segments = [replace(s, strength=x) for s, x in zip(record.segments, strengths, strict=True)]
    record = replace(record, segments=segments)
    weights = Variant(weighting="strength").row(record)["loss_weights"]
    assert weights[:2] == [0, 0]
    assert weights[2:8] == [0.25, 0.25, 0, 0, 0, 0]
    assert weights[8] == weights[9] == pytest.approx(2.4326, abs=1e-4)
    assert weights[10:] == [1, 1]
    everything = Variant(select="all", weighting="strength").row(record)["loss_weights"]
    assert all(weight > 0 for weight in everything[2:])


def test_length_is_a_policy(record):
    with pytest.raises(TraceTooLongError, match="max_length = 9 tokens, got 12"):
        Variant(max_length=9).row(record)
    assert Variant(max_length=9, too_long="cut").row(record)["input_ids"] == [*range(20, 28)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"select": "best"}, f"must be one of {', '.join(map(repr, SELECTIONS))}, got 'best'"),
        ({"weighting": "soft"}, "'mask', 'strength', got 'soft'"),
        ({"select": "top-tokens", "prune": True}, "chooses tokens, got prune or weighting"),
        (
            {"select": "top-tokens", "weighting": "strength"},
            "chooses tokens, got prune or weighting",
        ),
        ({"too_long": "skip"}, "too_long must be one of 'error', 'cut', got 'skip'"),
        ({"tau": 0.5}, "select='scored' does not read tau"),
        ({"select": "all", "beta": 0.5}, "select='all' does not read beta"),
        ({"select": "high-strength", "beta": 0.5}, "does not read beta"),
        ({"keep_second_to_last": True}, "select='scored' does not read keep_second_to_last"),
        ({"select": "all", "keep_second_to_last": True}, "does not read keep_second_to_last"),
        ({"select": "all", "whole_below": 9}, "trains every trace whole, got whole_below too"),
        ({"normalize": "mean1"}, "normalize must be one of None, 'trace', got 'mean1'"),
    ],
)
def test_contradictions_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Variant(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"select": "important", "tau": 0.0}, r"tau must be in \(0, 1\], got 0\.0"),
        ({"select": "important", "beta": 1.5}, r"beta must be in \[0, 1\], got 1\.5"),
        ({"select": "random", "beta": float("nan")}, r"beta must be in \[0, 1\], got nan"),
        ({"select": "top-tokens", "share": 0.0}, r"share must be in \(0, 1\], got 0\.0"),
        ({"share": 1.5}, r"share must be in \(0, 1\], got 1\.5"),
        ({"max_length": 0}, "max_length must be at least 1, got 0"),
        ({"whole_below": 0}, "whole_below must be at least 1, got 0"),
    ],
)
def test_values_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Variant(**options)


def test_values_at_the_border_of_their_range_are_accepted():
    Variant(select="important", tau=1.0, beta=0.0, share=1.0, max_length=1)
    Variant(select="random", beta=1.0)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"select": "important"},
        {"select": "random", "seed": 3},
        {"select": "top-tokens", "share": 0.1},
        {"weighting": "strength"},
        {"prune": True},
        {"train_response": False},
        {"normalize": "trace"},
    ],
    ids=str,
)
def test_short_traces_can_be_trained_whole(record, options):
    """The row has 12 tokens: prompt 2, reasoning 8, response 2."""
    assert Variant(**options, whole_below=12).row(record) == Variant(**options).row(record)
    whole = Variant(**options, whole_below=13).row(record)
    assert whole == Variant(**{**options, "select": "all"}).row(record)
    assert whole["labels"][:10] == [-100, -100, *range(22, 30)]
    assert whole != Variant(**options).row(record)


def test_a_trace_is_as_long_as_it_was_before_anything_left(record):
    cut = {"max_length": 9, "too_long": "cut"}
    assert with_loss(record, **cut, whole_below=12) == [22, 23]
    assert with_loss(record, **cut, whole_below=13) == list(range(22, 28))
    assert len(Variant(prune=True, whole_below=12).row(record)["input_ids"]) == 8


SECOND = {"keep_second_to_last": True}
BOTH = [22, 23, 25, 26, 27, 28, 29, 7, 8]  # both ends, and the segment before the last


@pytest.mark.parametrize(
    ("options", "without", "expected"),
    [
        ({"select": "important", "tau": 0.4, "beta": 0.5}, [*ENDS, *RESPONSE], BOTH),
        (
            {"select": "high-strength", "tau": 0.4},
            [22, 23, 24, 28, 29, 7, 8],
            [*range(22, 30), 7, 8],
        ),
        (
            {"select": "top-tokens", "share": 0.1},
            [22, 23, 24, 28, 29, 7, 8],
            [*range(22, 30), 7, 8],
        ),
        (
            {"select": "top-signed-tokens", "share": 0.1},
            [22, 23, 24, 28, 29, 7, 8],
            [*range(22, 30), 7, 8],
        ),
        # One segment is drawn, with this seed one that is kept anyway.
        ({"select": "random", "tau": 0.4, "beta": 1.0, "seed": 1}, [*ENDS, *RESPONSE], BOTH),
    ],
    ids=lambda value: value.get("select") if isinstance(value, dict) else None,
)
def test_the_segment_before_the_last_can_be_kept_too(record, options, without, expected):
    """By length, segment 1 is the strongest, as its token is."""
    record = replace(record, scorer=SegmentScorer(normalization="length"))
    assert with_loss(record, **options) == without
    assert with_loss(record, **options, **SECOND) == expected
    scored_so = replace(record, scorer=replace(record.scorer, **SECOND))
    assert with_loss(scored_so, **options) == expected


@pytest.mark.parametrize("select", ["important", "random", "top-tokens"])
def test_ends_are_kept_as_scored(record, select):
    scorer = SegmentScorer(tau=0.4, beta=0.0, normalization="length", keep_ends=False)
    record = replace(record, scorer=scorer)
    kept = with_loss(record, select=select, share=0.1, train_response=False, **SECOND)
    assert kept == ([24] if select == "top-tokens" else []) + [25, 26, 27]


def test_weights_of_a_row_can_sum_to_1(record):
    options = {"normalize": "trace"}
    row = Variant(**options).row(record)
    assert row["loss_weights"] == [on / 6 for on in row["assistant_masks"]]
    for more in (
        {"weighting": "strength"},
        {"max_length": 9, "too_long": "cut"},
        {"select": "top-tokens"},
        {"prune": True},
    ):
        plain, row = Variant(**more).row(record), Variant(**options, **more).row(record)
        total = sum(plain["loss_weights"])
        assert row["loss_weights"] == pytest.approx([w / total for w in plain["loss_weights"]])
        assert {**row, "loss_weights": 0} == {**plain, "loss_weights": 0}
        assert sum(row["loss_weights"]) == pytest.approx(1, rel=1e-12)


def test_the_collator_finds_nothing_left_to_scale(record):
    row = Variant(normalize="trace", weighting="strength").row(record)
    once, again = (
        LossMaskCollator(0, emit_weights=True, normalize=scaled)([row])["loss_weights"]
        for scaled in (None, "trace")
    )
    torch.testing.assert_close(once, again)


def test_thresholds_and_normalization_are_as_scored_unless_given(record):
    """By length, strengths are 1, 3, 2, 0.1 of 6.1: segment 1 alone reaches a tau of 0.4."""
    scorer = SegmentScorer(tau=0.4, beta=1.0, normalization="length", keep_ends=False)
    record = replace(record, scorer=scorer)
    assert with_loss(record, select="important") == [24, 7, 8]
    assert with_loss(record, select="important", tau=0.6) == [24, 25, 26, 27, 7, 8]


def test_selecting_segments_needs_no_token_scores(record):
    without = replace(record, token_scores=None)
    for select in ("important", "high-strength", "random", "scored", "all"):
        assert with_loss(without, select=select) == with_loss(record, select=select)
    with pytest.raises(ValueError, match="'a' must have token_scores, got a record without"):
        Variant(select="top-tokens").row(without)
