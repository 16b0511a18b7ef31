"""A scored trace in the terminal: kept segments bright, dropped ones dim, each under its scores.

What a trace, an id or a message holds is shown and never obeyed: `Terminal` prints control
characters as ``\\x1b``.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from segattr.dataset.record import reasoning_tokens

BAR = 20
# They reorder the text around them, so that it reads as something else.
BIDIRECTIONAL = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def visible(text: str) -> str:
    """Return the text with its control characters spelled out, but for line ends and tabs.

    Of Unicode's controls, line and paragraph separators, lone surrogates and marks that change the
    reading direction.
    """
    return "".join(_spelled(char) if _is_control(char) else char for char in text)


def _is_control(char: str) -> bool:
    if char in "\n\t":
        return False
    return char in BIDIRECTIONAL or unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp")


def _spelled(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


class Terminal(Console):
    """A console that takes text as it is: no markup, no wrapping, control characters visible.

    Args:
        stderr: Print there instead of to stdout.
    """

    def __init__(self, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*map(_shown, objects), **options)


def _shown(thing: Any) -> Any:
    if isinstance(thing, str):
        return visible(thing)
    if isinstance(thing, Text):  # of one style, as all here are
        return Text(visible(thing.plain), style=thing.style)
    if isinstance(thing, Rule):
        return Rule(_shown(thing.title), align=thing.align)
    return thing


def print_trace(record: Mapping[str, Any], console: Console) -> None:
    """Print one record of a scored file.

    A mark stands before every segment, so kept and dropped can be told apart without colours too.
    """
    console.print(Rule(Text(f"trace {record['id']}"), align="left"))
    console.print(Text(f"question  {_question(record['question'])}"))
    console.print(Text(f"answer    {record['answer']}"))
    console.print(Text(_facts(record)))
    strongest = max(segment["strength"] for segment in record["segments"])
    for number, segment in enumerate(record["segments"], start=1):
        console.print()
        console.print(_heading(number, segment, strongest))
        console.print(Text(segment["text"].strip("\n"), style="bold" if segment["kept"] else "dim"))
    console.print()
    console.print(Text(_summary(record)))


def _heading(number: int, segment: Mapping[str, Any], strongest: float) -> Text:
    filled = round(BAR * segment["strength"] / strongest)
    verdict = "kept" if segment["kept"] else "dropped"
    if segment["kept"] and not segment["important"]:
        verdict = "kept as an end"
    if segment.get("undecided"):
        verdict += ", undecided"
    mark, style = ("+", "green") if segment["kept"] else ("-", "red dim")
    kind = f"  [{segment['kind']}]" if "kind" in segment else ""
    text = (
        f"{mark} {number:>3}  {'█' * filled}{'░' * (BAR - filled)}  strength "
        f"{segment['strength']:6.1%}"
        f"  consistency {segment['consistency']:.2f}  {verdict}{kind}"
    )
    return Text(text, style=style)


def _facts(record: Mapping[str, Any]) -> str:
    settings = record["settings"]
    return (
        f"log p(answer) {record['baseline_logprob']:.2f} at the {settings['baseline']} baseline, "
        f"{record['target_logprob']:.2f} with the trace; "
        f"{record['evaluations']} points ({settings['rule']}), completeness gap "
        f"{record['completeness_gap']:.1%}"
        f"{', not converged' if record.get('converged') is False else ''}"
    )


def _summary(record: Mapping[str, Any]) -> str:
    flags = [segment["kept"] for segment in record["segments"]]
    kept, tokens = reasoning_tokens(record)
    settings = record["settings"]
    return (
        f"{sum(flags)} of {len(flags)} segments kept, {kept} of {tokens} reasoning tokens "
        f"({kept / tokens:.0%}); tau {settings['tau']}, beta {settings['beta']}"
    )


def _question(question: str | list[Mapping[str, str]]) -> str:
    if isinstance(question, str):
        return question
    return "\n".join(f"{message['role']}: {message['content']}" for message in question)
