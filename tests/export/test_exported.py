"""What is counted, row by row."""

from __future__ import annotations

from segattr import TraceTooLongError
from segattr.export import Exported
from segattr.training.rows import row_of


def test_counts_are_true_after_every_row():
    exported = Exported()
    assert (exported.rows, exported.tokens, exported.longest) == (0, 0, 0)
    exported.add("a", row_of([5, 6, 7], [0, 1, 0.5]), as_tokens=False, is_cut=False)
    assert (exported.rows, exported.tokens, exported.with_loss, exported.longest) == (1, 3, 2, 3)
    exported.add("b", row_of([5, 6], [0, 1]), as_tokens=True, is_cut=True)
    assert (exported.rows, exported.tokens, exported.with_loss, exported.longest) == (2, 5, 3, 3)
    assert (exported.as_text, exported.as_tokens, exported.cut) == (1, 1, ["b"])


def test_what_is_too_long_is_told_from_what_failed():
    exported = Exported()
    exported.leave_out("a", TraceTooLongError("9 tokens"))
    exported.leave_out("b", ValueError("no token"))
    assert exported.too_long == [("a", "9 tokens")]
    assert exported.failed == [("b", "no token")]
    assert exported.rows == 0
