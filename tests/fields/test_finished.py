"""Generations that were cut off are refused, wherever a record says so."""

from __future__ import annotations

import pytest

from segattr.fields.finished import require_finished, require_finished_record


@pytest.mark.parametrize("reason", ["length", "LENGTH", "max_tokens", ["stop", "length"]])
def test_a_generation_that_was_cut_off_is_refused(reason):
    with pytest.raises(ValueError, match=r"must have come to its end, got .* in finish_reason"):
        require_finished(reason, "finish_reason")


@pytest.mark.parametrize("reason", ["stop", None, 151645, [], ["stop"], "end_turn"])
def test_a_generation_that_came_to_its_end_is_fine(reason):
    require_finished(reason, "finish_reason")


@pytest.mark.parametrize(
    "record",
    [
        {"finish_reason": "length"},
        {"stop_reason": "max_tokens"},
        {"finish_reasons": ["length"]},
        {"metadata": {"finish_reason": "length"}},
        {"meta": [{"a": 1}, {"choices": [{"finish_reason": "LENGTH"}]}]},
        {"generation": {"finishReason": "MAX_TOKENS"}},
        {"r1_finish_reason": "length"},
        {"truncated": True},
        {"truncated": 1},
        {"is_truncated": "true"},
        {"hit_max_tokens": True},
        {"is_finished": False},
        {"stop_reason": "token_limit"},
        {"is_reasoning_complete": False},
        {"is_reasoning_complete": [False]},
    ],
)
def test_a_record_may_say_it_at_any_depth(record):
    with pytest.raises(ValueError, match="must have come to its end, got"):
        require_finished_record(record, chosen=False)


@pytest.mark.parametrize(
    "record",
    [
        {"finish_reason": "stop", "stop_reason": 151645},
        {"truncated": False, "is_reasoning_complete": True},
        {"is_reasoning_complete": [True, False]},
        {"length": "length", "text": "finish_reason: length"},
    ],
)
def test_a_record_that_does_not_is_fine(record):
    require_finished_record(record, chosen=False)


def test_lists_that_a_generation_was_chosen_by_are_not_read():
    record = {"finish_reasons": ["stop", "length"]}
    require_finished_record(record, chosen=True)
    with pytest.raises(ValueError, match="got length in finish_reasons"):
        require_finished_record(record, chosen=False)
