"""A trace's text to token ids and spans.

attributed:   [ prompt | segment_1 ... segment_S | stub | answer | brace ]    T tokens
trained:      [ prompt | segment_1 ... segment_S | response | trailing ]
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from segattr.encoding.final_answer import final_answer_start
from segattr.encoding.special import control_tokens_in, texts_within
from segattr.encoding.tokens import Tokens, ids_after, tokenise
from segattr.encoding.turn import Turn, turn_of
from segattr.segments import split_reasoning
from segattr.trace import EncodedTrace, Span, Trace, check_length

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SENTENCE = "So, the final answer is \\boxed{"
STUB = f"</think> {SENTENCE}"
BRACE = "}"
INSTRUCTION = "\nPlease reason step by step, and put your final answer within \\boxed{}."


def encode(
    trace: Trace,
    tokenizer: PreTrainedTokenizerBase,
    *,
    keywords: str | Sequence[str] = "paper",
    segmenter: str | Callable[[str], Sequence[Span]] = "keywords",
    segment_tokens: int | None = None,
    opening: str | None = None,
    closing: str | None = None,
    stub: str | None = None,
    brace: str = BRACE,
    end_of_turn: str | None = None,
    instruction: str = "",
    prompt_template: str | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
    strip_final_answer: bool = False,
    split_special_tokens: bool = False,
    max_length: int | None = None,
) -> EncodedTrace:
    """Tokenise a trace, as text to attribute and as text to train on.

    Where the chat template writes a turn with its thinking (as Qwen3's does), the training text is
    what ``tokenizer.apply_chat_template`` makes of the whole conversation, token for token. Other
    templates leave a mark open in the generation prompt (as R1's do), and the trace's texts follow
    as they are; for templates that know of no thinking, the trace's own marks are written.

    A token belongs to the segment that holds its first non-whitespace character (its first
    character if it has none), so every token has exactly one owner even where a cut falls inside a
    token: with Qwen's tokenizer ``".\\n\\n"`` is one token, and stays with the sentence before it.
    The published training script tokenises every segment alone instead. Its spans then stop one
    token late at 93 % of the boundaries (969 of 1046 in 40 traces of DeepSeek-R1-Distill-Qwen-7B),
    and it trains the first word, "Wait", of segments that it means to mask.

    Args:
        trace: The trace.
        tokenizer: A fast tokenizer. The prompt is its chat template with the generation prompt.
        keywords: Where the segmenter ``"keywords"`` cuts; see `split_segments`.
        segmenter: How to cut a trace without segments of its own: one of
            `segattr.segments.SEGMENTERS`, or a function of the reasoning's text that returns
            half-open character spans that cover it.
        segment_tokens: The fewest tokens of a paragraph or sentence, shorter ones are merged with
            the next; or the tokens of a window.
        opening: What the model writes before its reasoning, such as ``"<think>\\n"``; it carries
            loss. ``None``: found from the template.
        closing: What it writes between reasoning and response, such as ``"</think>"``. ``None``:
            found from the template.
        stub: Text between reasoning and answer, in the attributed sequence only. ``None``:
            ``closing`` and `SENTENCE`; after R1's mark that is `STUB`, the published one.
        brace: Text after the answer, in the attributed sequence only.
        end_of_turn: What ends the turn. ``None``: found from the template.
        instruction: Text appended to the question; the published pipeline uses `INSTRUCTION`.
        prompt_template: The whole prompt for tokenizers without a chat template, such as
            ``"{question}\\n"``.
        chat_template_kwargs: Switches of the chat template, such as ``{"thinking": True}``; the
            trace's own come first.
        strip_final_answer: Leave the trace's own last statement of the answer (from a
            ``**Final Answer**``, or the last sentence with ``\\boxed``), if the last segment holds
            it, out of the attributed text; its tokens move to ``response_ids`` and are trained.
        split_special_tokens: Read special tokens that the trace's texts spell out, such as
            ``<|im_end|>``, as letters; otherwise they become control tokens, and
            ``control_tokens`` names them.
        max_length: The most tokens that the attributed sequence may have; ``None`` sets no limit.

    Returns:
        The attributed sequence with its spans, in tokens and, as ``characters``, in the reasoning:
        from 0 to its length, or to where ``strip_final_answer`` cuts it off.

    Raises:
        TraceTooLongError: If there are more than ``max_length`` tokens.
        ValueError: If the tokenizer has no offsets or no chat template or loses text, the answer
            has no tokens, the template ends the thinking before it begins or writes the turn
            otherwise, a text holds marks that stand around it, or nothing is left of the reasoning.
    """
    _require_fit(tokenizer, trace)
    turn = turn_of(
        trace,
        tokenizer,
        opening=opening,
        closing=closing,
        end_of_turn=end_of_turn,
        instruction=instruction,
        prompt_template=prompt_template,
        chat_template_kwargs=chat_template_kwargs,
    )
    row = tokenise(tokenizer, turn.text, texts_within(trace, turn) if split_special_tokens else [])
    starts = [start + turn.skipped - turn.start for start, _ in row.spans]
    spans = split_reasoning(trace, segmenter, keywords, segment_tokens, starts)
    cuts = _cuts(trace, spans, strip_final_answer)
    texts = (_stub(turn) if stub is None else stub, trace.answer, brace)
    encoded = _encoded(tokenizer, trace, turn, row, cuts, texts)
    if not split_special_tokens:
        encoded = replace(encoded, control_tokens=control_tokens_in(trace, tokenizer))
    check_length(encoded, max_length, "max_length")
    return encoded


def _require_fit(tokenizer: PreTrainedTokenizerBase, trace: Trace) -> None:
    if not tokenizer.is_fast:
        raise ValueError(
            f"tokenizer must be a fast one with character offsets, got {type(tokenizer).__name__}. "
            "Load it with AutoTokenizer.from_pretrained(..., use_fast=True), or build an "
            "EncodedTrace by hand."
        )
    if not tokenizer(trace.answer, add_special_tokens=False)["input_ids"]:
        raise ValueError(
            f"answer must have at least one token, got none for {trace.answer!r}. "
            "Does this tokenizer drop its characters?"
        )


def _encoded(
    tokenizer: PreTrainedTokenizerBase,
    trace: Trace,
    turn: Turn,
    row: Tokens,
    cuts: Sequence[int],
    texts: Sequence[str],
) -> EncodedTrace:
    """Put both sequences together.

    Args:
        tokenizer: A fast one.
        trace: The trace.
        turn: Its training text.
        row: The tokens of that.
        cuts: Where segments start, and the last one stops, in characters of the reasoning.
        texts: Stub, answer and brace.
    """
    places = [turn.place(cut) for cut in cuts]
    edges = [row.edge(place) for place in places]
    pieces = _pieces(tokenizer, row, (places[-1], edges[-1]), texts)
    target = edges[-1] + len(pieces[0])
    end = row.edge(len(turn.text) - len(turn.trailing))
    return EncodedTrace(
        input_ids=torch.tensor([*row.ids[: edges[-1]], *itertools.chain(*pieces)]),
        prompt=(0, edges[0]),
        segments=list(itertools.pairwise(edges)),
        target=(target, target + len(pieces[1])),
        response_ids=torch.tensor(row.ids[edges[-1] : end], dtype=torch.int64),
        id=trace.id,
        characters=list(itertools.pairwise(cuts)),
        opening_tokens=edges[0] - row.edge(len(turn.prompt)),
        untrained=_untrained(trace, turn, row, edges),
        trailing_ids=torch.tensor(row.ids[end:], dtype=torch.int64),
        token_characters=_token_characters(trace, turn, row, (edges[0], edges[-1])),
    )


def _stub(turn: Turn) -> str:
    return turn.mark + (SENTENCE if turn.mark[-1:].isspace() else f" {SENTENCE}")


def _cuts(trace: Trace, spans: Sequence[Span], strip_final_answer: bool) -> list[int]:
    """Return the characters at which segments start, and the one where the last of them stops."""
    stop = len(trace.reasoning)
    if strip_final_answer:
        stop = final_answer_start(trace.reasoning, spans[-1][0])
        if any(last > stop for _, last in trace.untrained):
            raise ValueError(
                "strip_final_answer trains what it cuts off, got a trace whose untrained spans "
                f"reach into it, after character {stop}. Leave it out."
            )
    starts = [start for start, _ in spans if start < stop or stop == len(trace.reasoning)]
    return [*starts, stop]


def _untrained(trace: Trace, turn: Turn, row: Tokens, edges: Sequence[int]) -> list[Span]:
    """Return the tokens that belong to what is not to be trained."""
    spans = [[row.edge(turn.place(at)) for at in span] for span in trace.untrained]
    inside = [(max(start, edges[0]), min(stop, edges[-1])) for start, stop in spans]
    return [(start, stop) for start, stop in inside if start < stop]


def _token_characters(trace: Trace, turn: Turn, row: Tokens, tokens: Span) -> list[Span]:
    """Return the characters of each token in the trace's reasoning.

    White space that offsets leave out belongs to the token after it.
    """
    before = [0, *(stop for _, stop in row.spans)]
    spans = [(min(before[n], row.spans[n][0]), row.spans[n][1]) for n in range(*tokens)]
    shift, last = turn.skipped - turn.start, len(trace.reasoning)
    return [(max(start + shift, 0), min(stop + shift, last)) for start, stop in spans]


def _pieces(
    tokenizer: PreTrainedTokenizerBase, row: Tokens, stop: tuple[int, int], texts: Sequence[str]
) -> list[list[int]]:
    """Return the ids of the texts that follow the reasoning in the attributed sequence.

    No token reaches over the edge of a text, so that the target is the answer and nothing else.

    Args:
        tokenizer: A fast one.
        row: The training text.
        stop: Where the reasoning stops there, in characters and in tokens.
        texts: Stub, answer and brace.
    """
    before, pieces = row.text[: stop[0]], []
    for text in (_continued(tokenizer, row, stop, texts[0]), *texts[1:]):
        pieces.append(ids_after(tokenizer, before, text))
        before += text
    return pieces


def _continued(
    tokenizer: PreTrainedTokenizerBase, row: Tokens, stop: tuple[int, int], stub: str
) -> str:
    """Return what is left of the stub if the reasoning's last token reaches into it."""
    character, token = stop
    last = str(tokenizer.decode(row.ids[token - 1]))
    reached = (n for n in range(len(last), 0, -1) if row.text[: character + n].endswith(last))
    covered = row.text[character : character + next(reached, 0)]
    if stub.startswith(covered):
        return stub[len(covered) :]
    if covered.strip():
        raise ValueError(
            f"stub must begin as the training text goes on, with {covered!r}, since one token "
            f"holds it and the end of the reasoning, got {stub!r}. Leave it out, or let it begin "
            "so."
        )
    return stub
