"""Special tokens that a trace's own texts spell out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from segattr.encoding.tokens import control_tokens
from segattr.encoding.turn import Turn
from segattr.fields import texts_in
from segattr.trace import Span, Trace

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def control_tokens_in(trace: Trace, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return the special tokens that stand in question, reasoning, response or answer."""
    texts = list(texts_in([trace.question, trace.reasoning, trace.response, trace.answer]))
    special = control_tokens(tokenizer).values()
    return [token for token in special if any(token in text for text in texts)]


def texts_within(trace: Trace, turn: Turn) -> list[Span]:
    """Return where question, reasoning and response stand in the training text."""
    response = turn.start + len(turn.reasoning) + len(turn.closing)
    return [
        *_questions(trace, turn.prompt),
        (turn.start, turn.start + len(turn.reasoning)),
        (response, response + len(turn.response)),
    ]


def _questions(trace: Trace, prompt: str) -> Iterator[Span]:
    at = 0
    messages = [{"content": trace.question}] if isinstance(trace.question, str) else trace.question
    for content in texts_in([message.get("content") for message in messages]):
        text = content.strip()  # templates may trim it
        if (start := prompt.find(text, at)) >= 0:
            at = start + len(text)
            yield start, at
