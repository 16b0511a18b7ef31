"""What the terminal shows of texts that would rather command it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from segattr.cli.main import main
from segattr.dataset import ScoredTrace
from segattr.report.terminal import Terminal, visible

# Clear the screen, hide text, set the title, copy to the clipboard, a link, C1, backspaces, turn
# the reading direction, end a line unseen.
HOSTILE = [
    "\x1b[2J\x1b[H",
    "\x1b[8m",
    "\x1b]0;title\x07",
    "\x1b]52;c;aGk=\x07",
    "\x1b]8;;http://x\x1b\\",
    "\x9b31m",
    "\x9d0;t\x9c",
    "\b\b\b",
    "\r+ kept",
    "\x7f",
    "\u202etpek",
    "\u2066a\u2069",
    "\u200f",
    "\u2028",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_control_characters_are_spelled_out(text):
    shown = visible(text)
    assert shown.isprintable()
    plain = [char for char in text if char.isprintable()]
    assert [char for char in plain if char not in shown] == []
    assert len(shown) > len(text)


@pytest.mark.parametrize("text", ["a\nb\tc", "naïve 😀 👩‍👩‍👧", "می‌خواهم", "x² ≤ 3", ""])
def test_other_text_is_shown_as_it_is(text):
    assert visible(text) == text


def hostile_file(scored: ScoredTrace, text: str, folder: Path) -> Path:
    """A scored file whose only trace has the text wherever it can."""
    first = scored.segments[0].characters
    reasoning = text.ljust(first[1])[: first[1]] + scored.reasoning[first[1] :]
    texts = {"question": f"q{text}", "reasoning": reasoning, "answer": f"a{text}"}
    record = replace(
        scored,
        id=f"a{text}",
        digest=replace(scored.trace, **texts).digest,
        **texts,
    ).to_record()
    path = folder / "scored.jsonl"
    path.write_text(json.dumps(record) + "\n")
    return path


@pytest.mark.parametrize("text", HOSTILE)
def test_a_trace_cannot_command_the_terminal(scored_traces, tmp_path, capsys, text):
    """Whatever holds it: id, question, answer, segments; in `show` and in errors."""
    path = hostile_file(scored_traces[0], text, tmp_path)
    assert main(["show", str(path)]) == 0
    assert main(["show", str(path), "--id", "another"]) == 2
    options = ["--to", "trl", "--out", str(tmp_path / "out"), "--max-length", "3"]
    assert main(["export", str(path), *options]) == 2
    printed = "".join(capsys.readouterr())
    assert visible(text) in printed
    assert all(char.isprintable() for char in printed.replace("\n", ""))


def test_styles_are_kept(monkeypatch, capsys):
    """The console's own colours are no part of the text."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    Terminal().print("a\x1b[2J", style="red")
    assert capsys.readouterr().out.startswith("\x1b[31ma\\x1b[2J\x1b[0m")
