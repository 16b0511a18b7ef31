"""A scored trace in the terminal: kept segments bright, dropped ones dim, each under its scores.

What a trace, an id or a message holds is shown and never obeyed: `Terminal` prints control
characters as ``\\x1b``.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from segattr.dataset.flags import FLAGS
from segattr.dataset.record import ScoredTrace
from segattr.dataset.segment import ScoredSegment

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


def print_trace(scored: ScoredTrace, console: Console, labels: Sequence[str] | None = None) -> None:
    """Print a scored trace.

    A mark stands before every segment, so kept and dropped can be told apart without colours too.

    Args:
        scored: The trace.
        console: Where to print it.
        labels: What is known about each segment, printed beside its scores, ``[S]``.
    """
    console.print(Rule(Text(f"trace {scored.id}"), align="left"))
    console.print(Text(f"question  {_question(scored.question)}"))
    console.print(Text(f"answer    {scored.answer}"))
    console.print(Text(_facts(scored)))
    for flag in scored.flags:
        console.print(Text(f"flagged   {FLAGS.get(flag, flag)}"))
    strongest = max(segment.strength for segment in scored.segments)
    for number, (segment, text) in enumerate(zip(scored.segments, scored.texts, strict=True)):
        label = "" if labels is None else f"  [{labels[number]}]"
        console.print()
        console.print(_heading(number + 1, segment, strongest, label))
        console.print(Text(text.strip("\n"), style="bold" if segment.kept else "dim"))
    console.print()
    console.print(Text(_summary(scored)))


def _heading(number: int, segment: ScoredSegment, strongest: float, label: str) -> Text:
    filled = round(BAR * segment.strength / strongest) if strongest else 0
    verdict = "kept" if segment.kept else "dropped"
    if segment.kept and not segment.important:
        verdict = "kept as an end"
    if segment.undecided:
        verdict += ", undecided"
    mark, style = ("+", "green") if segment.kept else ("-", "red dim")
    text = (
        f"{mark} {number:>3}  {'█' * filled}{'░' * (BAR - filled)}  strength "
        f"{segment.strength:6.1%}  consistency {segment.consistency:.2f}  {verdict}{label}"
    )
    return Text(text, style=style)


def _facts(scored: ScoredTrace) -> str:
    start, gap, agreement, rule = "", "", "", ""
    if scored.baseline_logprob is not None:
        baseline = scored.ran.get("baseline", "")
        start = f"{scored.baseline_logprob:.2f} at the {baseline} baseline, "
    if scored.completeness_gap is not None:
        gap = f", completeness gap {scored.completeness_gap:.1%}"
    if scored.agreement is not None:
        agreement = f", kept segments expected to agree to {scored.agreement:.1%}"
    if "rule" in scored.ran:
        rule = f" ({scored.ran['rule']})"
    return (
        f"log p(answer) {start}{scored.target_logprob:.2f} with the trace; {scored.evaluations} "
        f"evaluation{'s' * (scored.evaluations != 1)}{rule}{gap}"
        f"{agreement}{', not converged' if scored.converged is False else ''}"
    )


def _summary(scored: ScoredTrace) -> str:
    flags = [segment.kept for segment in scored.segments]
    kept, tokens = scored.reasoning_tokens
    return (
        f"{sum(flags)} of {len(flags)} segments kept, {kept} of {tokens} reasoning tokens "
        f"({kept / max(1, tokens):.0%}); tau {scored.scorer.tau}, beta {scored.scorer.beta}"
    )


def _question(question: str | list[dict[str, Any]]) -> str:
    if isinstance(question, str):
        return question
    return "\n".join(f"{message['role']}: {message['content']}" for message in question)
