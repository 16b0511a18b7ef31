"""Errors of the library in the words of the command."""

from __future__ import annotations

import pytest

from segattr.cli.console import in_flags, progress, progress_by_share

NAMES = ["rule", "steps", "max_evaluations", "scope", "overwrite", "tau", "points"]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            "steps must be None with rule='auto', got 5. Set max_evaluations, or name a rule such "
            "as rule='midpoint'.",
            "--steps must be left out with --rule auto, got 5. Set --max-evaluations, or name a "
            "rule such as --rule midpoint.",
        ),
        ("tau must be in (0, 1], got 3.", "--tau must be in (0, 1], got 3."),
        ("Pass overwrite=True to replace it.", "Pass --overwrite to replace it."),
        ("the scope of a rule must fit", "the scope of a rule must fit"),
        ("points must be in 1..65, got 99.", "--points must be in 1..65, got 99."),
    ],
)
def test_names_of_arguments_become_flags(message, expected):
    assert in_flags(message, NAMES) == expected


def test_progress_passes_on_all_it_counts(capsys):
    assert list(progress("abc", 3, "waiting")) == ["a", "b", "c"]
    assert "3 traces 100%" in " ".join(capsys.readouterr().err.split())


def test_progress_counts_where_nobody_knows_how_much_there_is(capsys):
    for shares, expected in (((None, None), "2 traces"), ((0.0, 0.5), "2 traces 50%")):
        assert list(progress_by_share(zip("ab", shares, strict=True), "waiting")) == ["a", "b"]
        assert expected in " ".join(capsys.readouterr().err.split())
