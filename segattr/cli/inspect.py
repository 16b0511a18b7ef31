"""``segattr inspect``: see how traces are read, before anything is spent on them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from rich.rule import Rule
from rich.text import Text
from tyro.conf import Positional, arg

from segattr.cli.console import OK, SOME_FAILED, UserError
from segattr.cli.inspected import Inspected
from segattr.cli.loading import load_tokenizer
from segattr.cli.options import optional
from segattr.cli.reading import readable
from segattr.cli.text_options import ENTROPY, TextOptions
from segattr.dataset.json_text import BadLine
from segattr.dataset.sources import Place, find_sources, read_records
from segattr.encoding import encode
from segattr.fields import Reading, trace_fields
from segattr.report.terminal import Terminal
from segattr.segments import split_reasoning
from segattr.trace import EncodedTrace, Trace

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

EDGE = 300  # characters of a text's beginning and end
FIRST = 60  # of a segment
FIELDS = ("question", "reasoning", "response", "answer")


@dataclass(frozen=True)
class Inspect:
    """Show how traces are read: fields, where the thinking was cut, texts, segments and lengths.

    The first traces are shown, all are counted. No model is loaded.

    Exit codes: 0 all can be scored, 1 some cannot (counted by reason), 2 nothing could be read.
    """

    traces: Annotated[Positional[tuple[str, ...]], arg(metavar="TRACES.jsonl")]
    """Files as for score, or - for standard input."""
    text: TextOptions
    model: Annotated[str | None, optional("MODEL")] = None
    """Folder or hub name whose tokenizer shows the texts to attribute and to train on."""
    tokenizer: Annotated[str | None, optional("TOKENIZER")] = None
    """Folder or hub name of another tokenizer."""
    first: Annotated[int, arg(metavar="N")] = 1
    """How many traces to show."""
    trust_remote_code: bool = False
    """Run code that comes with the tokenizer."""

    def run(self) -> int:
        encoding = self.text.encoding()
        if encoding["segmenter"] == ENTROPY:
            raise UserError("--segmenter entropy needs the model, which inspect does not load.")
        tokenizer = self._tokenizer()
        console, all_traces = Terminal(), Inspected(self.text.max_length)
        for place, record in self._records():
            try:
                reading, trace = self._read(record)
                encoded = None
                if tokenizer is not None:
                    encoded = encode(trace, tokenizer, **{**encoding, "max_length": None})
            except Exception as error:  # whatever a record holds, the others are read
                all_traces.refuse(place, error)
                continue
            segments = _segments(trace, encoded, encoding)
            if all_traces.count < self.first:
                lines = _shown(place, reading, trace, segments)
                lines += [] if encoded is None else _tokens(encoded, tokenizer)
                for line in lines:
                    console.print(line)
            all_traces.add(reading.layout, trace, len(segments), encoded)
        if not all_traces.total:
            raise UserError(f"TRACES must hold traces, got {', '.join(self.traces)} without any.")
        console.print(Rule(Text("all traces"), align="left"))
        for text in all_traces.lines():
            console.print(Text(text))
        sys.stdout.flush()
        return SOME_FAILED if all_traces.refused else OK

    def _tokenizer(self) -> PreTrainedTokenizerBase | None:
        flag, name = "--tokenizer", self.tokenizer
        if name is None:
            flag, name = "--model", self.model
        return None if name is None else load_tokenizer(flag, name, self.trust_remote_code)

    def _records(self) -> Iterator[tuple[Place, dict[str, Any] | BadLine]]:
        with readable(self.traces):
            yield from read_records(find_sources(self.traces))

    def _read(self, record: dict[str, Any] | BadLine) -> tuple[Reading, Trace]:
        if isinstance(record, BadLine):
            raise ValueError(record.error)
        reading = trace_fields(record, self.text.fields(), **self.text.reading())
        return reading, Trace(**reading.values)


def _segments(trace: Trace, encoded: EncodedTrace | None, encoding: dict[str, Any]) -> list[str]:
    """The segments' texts; without a tokenizer, every word counts as a token."""
    if encoded is not None and encoded.characters is not None:
        spans = list(encoded.characters)
    else:
        words = [at for at, char in enumerate(trace.reasoning) if char.isspace()]
        how = [encoding[name] for name in ("segmenter", "keywords", "segment_tokens")]
        spans = split_reasoning(trace, how[0], how[1], how[2], words)
    return [trace.reasoning[start:stop] for start, stop in spans]


def _shown(place: Place, reading: Reading, trace: Trace, segments: list[str]) -> list[Any]:
    """What was read from where."""
    name = f"{place}  {trace.id}" if trace.id else str(place)
    lines: list[Any] = [Rule(), Text(f"{name}  (layout {reading.layout})", style="bold")]
    for field in FIELDS:
        value = getattr(trace, field)
        where = reading.columns.get(field)
        head = f"{field}, from {where}" if where else field
        if value is None:
            lines.append(Text(f"{field}: none"))
            continue
        text = value if isinstance(value, str) else "\n".join(map(_message, value))
        lines.append(Text(f"{head}, {len(text):,} characters", style="bold"))
        lines.append(Text(_elided(text)))
    others = [name for name in reading.columns if name not in FIELDS]
    for field in others:
        lines.append(Text(f"{field}, from {reading.columns[field]}", style="bold"))
    if trace.metadata:
        lines.append(Text(f"not read: {', '.join(map(str, trace.metadata))}"))
    lines.append(Text(f"{len(segments)} segments", style="bold"))
    for number, segment in enumerate(segments, start=1):
        beginning = " ".join(segment.split())[:FIRST]
        lines.append(Text(f"  {number:>3}  {len(segment):>6,} characters  {beginning}"))
    return lines


def _tokens(encoded: EncodedTrace, tokenizer: Any) -> list[Any]:
    """The two texts, special tokens shown, and their lengths."""
    ids, response = encoded.input_ids, encoded.response_ids
    start, stop = encoded.reasoning
    trained = [*ids[:stop].tolist(), *response.tolist(), *encoded.trailing_ids.tolist()]
    texts = {
        f"text to attribute, {len(ids):,} tokens: prompt {start:,}, reasoning {stop - start:,}, "
        f"answer {encoded.target[1] - encoded.target[0]:,}": ids.tolist(),
        f"text to train on, {len(trained):,} tokens: response and end of turn {len(response):,}, "
        f"opening that is trained {encoded.opening_tokens:,}": trained,
    }
    lines: list[Any] = []
    for head, tokens in texts.items():
        lines.append(Text(head, style="bold"))
        lines.append(Text(_elided(tokenizer.decode(tokens, skip_special_tokens=False))))
    if encoded.control_tokens:
        names = ", ".join(encoded.control_tokens)
        lines.append(Text(f"the texts spell out {names}: see --split-special-tokens"))
    return lines


def _message(message: Any) -> str:
    extra = sorted(set(message) - {"role", "content"})
    also = f" (and {', '.join(extra)})" if extra else ""
    return f"{message['role']}{also}: {message['content']}"


def _elided(text: str) -> str:
    """A text with its middle left out if it is long."""
    left_out = len(text) - 2 * EDGE
    if left_out <= 0:
        return text
    return f"{text[:EDGE]}\n[... {left_out:,} characters ...]\n{text[-EDGE:]}"
