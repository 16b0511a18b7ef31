"""Errors that say what is expected, what came, and what helps."""

from __future__ import annotations

import re

import pytest
import torch

from segattr.checks import require_nonnegative, require_type, require_word


def test_a_word_that_is_accepted_passes():
    require_word("scope", "all", ("all", "reasoning"))
    require_word("normalize", None, (None, "mean1"))


@pytest.mark.parametrize("value", ["ALL", "", None, 3, ["all"], {}])
def test_other_words_are_listed(value):
    message = f"scope must be one of 'all', 'reasoning', got {value!r}. Choose."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        require_word("scope", value, {"all": 1, "reasoning": 2}, "Choose.")


def test_a_wrong_type_is_named():
    require_type("trace", 3, int, "")
    with pytest.raises(
        TypeError, match=r"^trace must be an int or str, got a dict\. Convert it\.$"
    ):
        require_type("trace", {}, (int, str), "Convert it.")


def test_weights_are_finite_and_at_least_0():
    require_nonnegative("weights", torch.tensor([0.0, 1e300], dtype=torch.float64), "")
    require_nonnegative("weights", torch.tensor([False, True]), "")
    require_nonnegative("weights", torch.empty(0), "")


@pytest.mark.parametrize("bad", [-0.5, float("nan"), float("inf"), -float("inf")])
def test_the_first_bad_number_is_named_with_its_place(bad):
    values = torch.tensor([[0.0, 1.0, 2.0], [3.0, bad, -9.0]])
    for name, given, index in (("row", values[1], "1"), ("batch", values, "(1, 1)")):
        message = f"{name} must be at least 0 and finite, got {bad} at index {index}. Clamp it."
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            require_nonnegative(name, given, "Clamp it.")
