"""Errors that say what is expected, what came, and what helps."""

from __future__ import annotations

import re

import pytest

from segattr.checks import require_type, require_word


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
    with pytest.raises(TypeError, match=r"^trace must be a int or str, got a dict\. Convert it\.$"):
        require_type("trace", {}, (int, str), "Convert it.")
