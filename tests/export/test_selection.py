"""One scored record, many rows."""

from __future__ import annotations

import pytest

from segattr import TraceTooLongError
from segattr.export.selection import SELECTIONS, Variant

# Prompt 2, segments 2 + 1 + 3 + 2, stub 1, answer 1; response 2. Strengths by hand:
# 2/sqrt(2), 3, 6/sqrt(3), 0.2/sqrt(2) = 1.41, 3, 3.46, 0.14; sum 8.02: 18, 37, 43, 2 %.
SCORES = [0.0, 0.0, 1.0, -1.0, 3.0, 2.0, -2.0, 2.0, 0.1, 0.1, 0.0, 0.0]
SPANS = [(2, 4), (4, 5), (5, 8), (8, 10)]


@pytest.fixture
def record() -> dict:
    columns = {"strength": 0.25, "consistency": 0.5, "effective_tokens": 1.0, "important": True}
    kept = [True, False, False, True]
    return {
        "id": "a",
        "segments": [
            {"span": list(span), **columns, "kept": flag}
            for span, flag in zip(SPANS, kept, strict=True)
        ],
        "input_ids": [*range(20, 30), 7, 8],
        "tail_ids": [40, 41],
        "token_scores": SCORES,
        "prompt": [0, 2],
        "target": [11, 12],
        "target_logprob": -1.0,
        "baseline_logprob": -9.0,
        "evaluations": 9,
        "settings": {"tau": 0.7, "beta": 0.8},
    }


def supervised(record, **options) -> list[int]:
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
    assert supervised(record, **options) == expected


def test_random_segments_are_as_many_as_important_ones(record):
    """Two are important without beta; with both ends, 2 to 4 are kept."""
    seen = {tuple(supervised(record, select="random", beta=1.0, seed=seed)) for seed in range(20)}
    assert len(seen) > 2
    assert all({22, 23, 28, 29} <= set(tokens) for tokens in seen)


def test_random_segments_are_counted_with_beta(record):
    """One segment is important with a beta of 0.8; random draws may fall on the ends too."""
    counts = {
        beta: {len(supervised(record, select="random", beta=beta, seed=s)) for s in range(30)}
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
    for segment, strength in zip(record["segments"], [0.1, 0.2, 0.3, 0.4], strict=True):
        segment["strength"] = strength
    weights = Variant(weights="strength").row(record)["loss_weights"]
    assert weights[:2] == [0, 0]
    assert weights[2:8] == [0.25, 0.25, 0, 0, 0, 0]
    assert weights[8] == weights[9] == pytest.approx(2.4326, abs=1e-4)
    assert weights[10:] == [1, 1]
    everything = Variant(select="all", weights="strength").row(record)["loss_weights"]
    assert all(weight > 0 for weight in everything[2:])


def test_length_is_a_policy(record):
    with pytest.raises(TraceTooLongError, match="max_length = 9 tokens, got 12"):
        Variant(max_length=9).row(record)
    assert Variant(max_length=9, too_long="cut").row(record)["input_ids"] == [*range(20, 28)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"select": "best"}, f"must be one of {', '.join(SELECTIONS)}, got 'best'"),
        ({"weights": "soft"}, "mask, strength, got 'soft'"),
        ({"select": "top-tokens", "prune": True}, "chooses tokens, got prune or weights"),
        ({"select": "top-tokens", "weights": "strength"}, "chooses tokens, got prune or weights"),
        ({"tau": 0.5}, "select='scored' does not read tau"),
        ({"select": "all", "beta": 0.5}, "select='all' does not read beta"),
        ({"select": "high-strength", "beta": 0.5}, "does not read beta"),
    ],
)
def test_contradictions_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Variant(**options)


def test_a_record_without_thresholds_needs_them(record):
    record["settings"] = {}
    with pytest.raises(ValueError, match="tau must be given"):
        Variant(select="important").row(record)
    assert supervised(record, select="important", tau=0.7, beta=0.8)
