"""A trace as the text of one turn, written as the model's own chat template writes it.

    training text:   prompt | opening | reasoning | closing | response | end | trailing

Where the template renders thinking, joined they equal ``apply_chat_template(messages)``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from segattr.encoding.template import Template
from segattr.encoding.thinking import Thinking, closing_of, find_thinking
from segattr.fields import MARKS
from segattr.trace import Trace

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

REMEDY = "Say how it writes a turn with opening=, closing= and end_of_turn=."


@dataclass(frozen=True)
class Turn:
    """The parts of a training text.

    Args:
        prompt: Up to where the model goes on, with the generation prompt.
        opening: What opens the thinking, where the model itself must write it.
        reasoning: The trace's, or what the template leaves of its outer white space.
        skipped: How many characters of the trace's reasoning the template leaves out in front.
        closing: What closes the thinking; empty if the turn has no response.
        mark: What closes the thinking in any case, for the stub.
        response: The trace's, or what the template leaves of its outer white space.
        end: The end of the turn.
        trailing: White space that the template writes after it.
    """

    prompt: str
    opening: str
    reasoning: str
    skipped: int
    closing: str
    mark: str
    response: str
    end: str
    trailing: str

    @property
    def start(self) -> int:
        """Where the reasoning starts in the text."""
        return len(self.prompt) + len(self.opening)

    def place(self, character: int) -> int:
        """Return where a character of the trace's reasoning stands in the text."""
        return self.start + min(max(character - self.skipped, 0), len(self.reasoning))

    @property
    def text(self) -> str:
        """The training text."""
        tail = self.closing + self.response + self.end + self.trailing
        return self.prompt + self.opening + self.reasoning + tail


def turn_of(
    trace: Trace,
    tokenizer: PreTrainedTokenizerBase,
    *,
    opening: str | None = None,
    closing: str | None = None,
    end_of_turn: str | None = None,
    instruction: str = "",
    prompt_template: str | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> Turn:
    """Return the parts of a trace's training text; see `segattr.encode` for the arguments.

    Raises:
        ValueError: If the template, the trace and what is given contradict each other.
    """
    template = Template.of(trace, tokenizer, instruction, prompt_template, chat_template_kwargs)
    trace = _without_end(trace, end_of_turn or template.end_of_turn())
    prompt = template.prompt()
    _require_open(prompt, template)
    thinking = find_thinking(template, prompt, trace)
    if thinking.writes is None or None not in (opening, closing):
        turn = _written(trace, template, thinking)
    else:
        turn = _rendered(trace, template, thinking)
    turn = _with_given(turn, opening, closing, end_of_turn)
    _require_marked_once(trace, turn)
    return turn


def _without_end(trace: Trace, end: str) -> Trace:
    """Take off an end of turn that a raw completion still has: it is written anyway."""
    end, response = end.strip(), (trace.response or "").rstrip()
    if not end:
        return trace
    if trace.reasoning.rstrip().endswith(end):
        raise ValueError(
            f"reasoning must stop before the end of the turn, got one that ends with {end!r}. Take "
            "it off."
        )
    if not response.endswith(end):
        return trace
    while response.endswith(end):
        response = response.removesuffix(end).rstrip()
    return replace(trace, response=response)


def _written(trace: Trace, template: Template, thinking: Thinking) -> Turn:
    """A turn whose texts stand as they are between marks that the template does not write."""
    end = template.end_of_turn()
    return Turn(
        prompt=thinking.prompt,
        opening=thinking.opening,
        reasoning=trace.reasoning,
        skipped=0,
        closing="" if trace.response is None else thinking.mark,
        mark=thinking.mark,
        response=trace.response or "",
        end=end.rstrip(),
        trailing=end[len(end.rstrip()) :],
    )


def _with_given(turn: Turn, opening: str | None, closing: str | None, end: str | None) -> Turn:
    """The turn with the marks that were given; a known opening mark brings its closing one."""
    changes: dict[str, Any] = {}
    if opening is not None:
        changes["opening"] = opening
        closing = closing_of(opening) if closing is None else closing
    if closing is not None:
        changes |= {"mark": closing} | ({"closing": closing} if turn.closing else {})
    if end is not None:
        changes |= {"end": end.rstrip(), "trailing": end[len(end.rstrip()) :]}
    return replace(turn, **changes)


def _rendered(trace: Trace, template: Template, thinking: Thinking) -> Turn:
    """A turn taken from what the template makes of it, so that nothing can differ."""
    assert thinking.writes is not None
    response = trace.response or ""
    text = template.render(thinking.writes(trace.reasoning, response))
    end = thinking.end or ""
    # A template that trims the whole turn leaves no white space before an empty response.
    for closing in (thinking.closing, thinking.closing.rstrip()):
        head = thinking.prompt + thinking.opening
        reasoning = _kept(text, len(head), trace.reasoning, closing or end)
        if not text.startswith(head) or reasoning is None:
            continue
        rest = _kept(text, len(head) + len(reasoning) + len(closing), response, end)
        whole = None if rest is None else head + reasoning + closing + rest + end
        if rest is not None and whole == text:
            return Turn(
                prompt=thinking.prompt,
                opening=thinking.opening,
                reasoning=reasoning,
                skipped=trace.reasoning.index(reasoning) if reasoning.strip() else 0,
                closing=closing,
                mark=thinking.mark,
                response=rest,
                # Templates of turns that the next one ends do not say how the last one stops.
                end=end.rstrip() or template.end_of_turn(),
                trailing=end[len(end.rstrip()) :],
            )
    raise ValueError(
        "the chat template must write reasoning and response as they are, up to white space at "
        f"their edges, got a turn that ends with {text[-60:]!r}. {REMEDY}"
    )


def _kept(text: str, at: int, piece: str, then: str) -> str | None:
    """Return the piece as it stands there before ``then``: some outer white space may be gone."""
    core = piece.strip()
    lead = piece[: len(piece) - len(piece.lstrip())]
    trail = piece[len(piece.rstrip()) :] if core else ""
    for skipped in range(len(lead) + 1):
        head = lead[skipped:] + core
        for stop in range(len(trail) + 1):
            if text.startswith(head + trail[:stop] + then, at):
                return head + trail[:stop]
    return None


def _require_open(prompt: str, template: Template) -> None:
    """Raise if the generation prompt has ended the thinking before the model could start."""
    ended = [mark for mark in MARKS if prompt.rstrip().endswith(mark.closing)]
    if not ended:
        return
    switch = template.switch_for(lambda text: not text.rstrip().endswith(ended[0].closing))
    how = "Pass the template's own switch in chat_template_kwargs."
    if switch is not None:
        as_json = json.dumps({switch: True})
        how = f"Pass chat_template_kwargs={{{switch!r}: True}} (in the command '{as_json}')."
    raise ValueError(
        "the prompt must leave the thinking open, got a chat template that ends it with "
        f"{ended[0].closing!r} unless it is asked to think. {how}"
    )


def _require_marked_once(trace: Trace, turn: Turn) -> None:
    head = (turn.prompt + turn.opening).rstrip()
    start, response = trace.reasoning.lstrip(), (trace.response or "").lstrip()
    closings = sorted({turn.mark.strip(), *(mark.closing for mark in MARKS)} - {""})
    for mark in MARKS:
        if start.startswith(mark.opening) and head.endswith(mark.opening):
            raise ValueError(
                f"reasoning must start after {mark.opening}, got a trace that opens it again. "
                "Take the tag off; Trace.from_record does that for chat data."
            )
    for closing in closings:
        is_inside = closing == turn.mark.strip() and closing in trace.reasoning
        if is_inside or trace.reasoning.rstrip().endswith(closing):
            raise ValueError(
                f"reasoning must stop before {closing!r}, got one that holds it. What follows it "
                "is the response: Trace.from_record cuts a whole completion there."
            )
        if response.startswith(closing):
            raise ValueError(
                f"response must start after {closing!r}, got one that starts with it. Take it off."
            )
    if turn.mark.strip() and turn.mark.strip() in response:
        raise ValueError(
            f"response must not end the thinking again, got {turn.mark.strip()!r} in it. Give what "
            "follows the last one."
        )
