"""How a chat template writes thinking, found by having it write some."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from segattr.encoding.template import REASONING, RESPONSE, Template
from segattr.fields import MARKS
from segattr.trace import Trace

Message = dict[str, Any]
Writer = Callable[[str, str], Message]  # of reasoning and response
DEFAULT_MARKS = ("<think>\n", "</think>")
KEYS = ("reasoning_content", "thinking", "reasoning")  # of a message, where templates look for it


@dataclass(frozen=True)
class Thinking:
    """What stands around the reasoning.

    Args:
        prompt: Up to where the model goes on.
        mark: What closes the thinking.
        opening: What the model writes before its reasoning.
        closing: What stands between reasoning and response in what the template renders.
        end: What stands after the response there.
        writes: Makes the message that the template renders with its thinking; None if there is no
            template, or it leaves the thinking out.
    """

    prompt: str
    mark: str
    opening: str = ""
    closing: str = ""
    end: str = ""
    writes: Writer | None = None


def find_thinking(template: Template, prompt: str, trace: Trace) -> Thinking:
    """Return what stands around a trace's reasoning.

    In turn: the marks that the template writes itself; the mark that the prompt leaves open; the
    trace's own marks, in a content that the template writes as it is.
    """
    for writes in _writers(template):
        if (found := _around(template, prompt, writes)) and not _is_echo(found):
            return found
    if (mark := closing_of(prompt)) is not None:
        return Thinking(prompt, mark)
    opening, closing = trace.marks or DEFAULT_MARKS
    if trace.response is None:
        opening, writes = "", _whole
    else:
        writes = _inline(opening, closing)
    found = _around(template, prompt, writes)
    return replace(found, mark=closing) if found else Thinking(prompt, closing, opening)


def closing_of(text: str) -> str | None:
    """Return what closes the mark that a text ends with, if it ends with one."""
    text = text.rstrip()
    marks = [mark for mark in MARKS if text.endswith(mark.opening)]
    return max(marks, key=lambda mark: len(mark.opening)).closing if marks else None


def _writers(template: Template) -> Iterator[Writer]:
    """The ways in which templates take the thinking of a turn apart from its response."""
    source = template.text
    yield from (_under(key) for key in KEYS if key in source)
    if "thinking" in source:
        yield _parts
    yield from (_inline(mark.opening, mark.closing) for mark in MARKS if mark.closing in source)


def _under(key: str) -> Writer:
    return lambda reasoning, response: {"role": "assistant", "content": response, key: reasoning}


def _parts(reasoning: str, response: str) -> Message:
    thinking = {"type": "thinking", "thinking": reasoning}
    return {"role": "assistant", "content": [thinking, {"type": "text", "text": response}]}


def _inline(opening: str, closing: str) -> Writer:
    return lambda reasoning, response: {
        "role": "assistant",
        "content": opening + reasoning + closing + response,
    }


def _whole(reasoning: str, response: str) -> Message:
    return {"role": "assistant", "content": reasoning}


def _is_echo(found: Thinking) -> bool:
    """Whether the template only writes a content as it was handed in, marks included."""
    assert found.writes is not None
    content = found.writes("", "")["content"]
    return content == found.opening + found.closing


def _around(template: Template, prompt: str, writes: Writer) -> Thinking | None:
    """Return what stands around probes of reasoning and response, if the template writes both."""
    before, _, rest = template.try_render(writes(REASONING, RESPONSE)).partition(REASONING)
    has_response = RESPONSE in str(writes(REASONING, RESPONSE))
    closing, found, end = rest.partition(RESPONSE) if has_response else ("", " ", rest)
    if not found or not rest or REASONING in rest or RESPONSE in end:
        return None
    if not before.startswith(prompt):
        prompt = prompt.rstrip()  # white space of the prompt that rendered turns lack
    if not before.startswith(prompt):
        return None
    return Thinking(prompt, closing, before[len(prompt) :], closing, end, writes)
