"""Names that lead to values inside records."""

from __future__ import annotations

import json

import pytest

from segattr.fields.names import lookup, root, same

RECORD = {
    "a": {"b": [{"c": 1}, {"c": 2}]},
    "a.b": "a column of this very name",
    "text": json.dumps([{"content": "r"}]),
    "words": "plain [text]",
    "none": None,
}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("a.b", "a column of this very name"),
        ("a.b[0].c", 1),
        ("a.b[-1].c", 2),
        ("a.b[2].c", None),
        ("a.b[-3]", None),
        ("a.x", None),
        ("a[0]", None),
        ("words[0]", None),
        ("words.x", None),
        ("text[-1].content", "r"),
        ("none", None),
        ("none.x", None),
    ],
)
def test_a_path_leads_to_a_value_or_to_none(path, value):
    record = {key: item for key, item in RECORD.items() if key != "a.b" or path == key}
    assert lookup(record, path) == value


@pytest.mark.parametrize("path", ["a", "a.b", "a[0].b", r"a:\boxed", "a:####"])
def test_the_root_of_a_path_is_its_column(path):
    assert root(path) == "a"


def test_texts_are_the_same_but_for_white_space_around_them():
    assert same(" a\n", "a")
    assert not same("a b", "ab")
    assert same([1], [1])
    assert not same(1, "1")
