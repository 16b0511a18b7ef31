"""Options of how a record becomes a trace, and a trace becomes tokens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import UseAppendAction, arg

from segattr.checks import require_word
from segattr.cli.console import UserError
from segattr.cli.options import one_of, optional, switches_of
from segattr.fields import FIELDS, LAYOUTS
from segattr.segments import PRESETS, SEGMENTERS

ENTROPY = "entropy"
CUTS = {**SEGMENTERS, ENTROPY: "where the model hesitates"}


@dataclass(frozen=True)
class TextOptions:
    """How a line becomes a trace, and a trace becomes tokens. \\n may be written out."""

    field: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="FIELD=NAME")] = ()
    r"""Your column for a field, such as reasoning=cot, reasoning=generations[0] or
    answer=solution:\boxed; with nothing after the =, there is none."""
    layout: Annotated[
        str, arg(metavar="NAME", help=f"What the columns mean: {one_of(LAYOUTS)}.")
    ] = "auto"
    marks: Annotated[tuple[str, str] | None, optional("OPENING CLOSING")] = None
    """What opens and closes the thinking in the file, if no usual pair such as <think> </think>."""
    segmenter: Annotated[
        str,
        arg(
            metavar="SEGMENTER",
            help="Where segments start: "
            + "; ".join(f"{name}, {what}" for name, what in CUTS.items())
            + ".",
        ),
    ] = "keywords"
    keywords: Annotated[
        str,
        arg(
            metavar="KEYWORDS",
            help=f"Of that segmenter: {one_of(PRESETS)}, or a file with one keyword a line.",
        ),
    ] = "paper"
    segment_tokens: Annotated[int | None, optional("N")] = None
    """Fewest tokens of a segment of the other segmenters; all tokens of a window."""
    opening: Annotated[str | None, optional("TEXT")] = None
    """What the model writes before its reasoning. As the template has it if left out, like:"""
    closing: Annotated[str | None, optional("TEXT")] = None
    """What it writes between reasoning and response, such as '</think>'."""
    end_of_turn: Annotated[str | None, optional("TEXT")] = None
    """What ends its turn, such as '<|im_end|>'."""
    stub: Annotated[str | None, optional("TEXT")] = None
    """Text between reasoning and answer; the closing mark and the paper's sentence if left out."""
    instruction: Annotated[str, arg(metavar="TEXT")] = ""
    """Text appended to every question."""
    prompt_template: Annotated[str | None, optional("TEXT")] = None
    """Prompt for a tokenizer without a chat template, such as '{question}\\n'."""
    chat_template_kwargs: Annotated[str | None, optional("JSON")] = None
    """Switches of the chat template, such as '{"thinking": true}'."""
    strip_final_answer: bool = False
    """Leave the trace's own final answer out of the attributed text."""
    split_special_tokens: bool = False
    """Read special tokens that a trace spells out as letters."""
    max_length: Annotated[int | None, optional("T")] = None
    """Most tokens of a trace; the model's context if left out."""

    def __post_init__(self) -> None:
        for text in self.field:
            name, named, _ = text.partition("=")
            if name not in FIELDS or not named:
                raise ValueError(
                    f"--field must be FIELD=NAME with FIELD one of {one_of(FIELDS)}, got {text!r}."
                )
        require_word("--layout", self.layout, LAYOUTS)
        require_word("--segmenter", self.segmenter, CUTS)
        if self.segment_tokens is not None and self.segmenter == "keywords":
            raise ValueError("--segment-tokens is read by other segmenters than keywords.")
        if self.segment_tokens is None and self.segmenter == "windows":
            raise ValueError("--segment-tokens must be given for windows. Such as 64.")
        for name in ("segment_tokens", "max_length"):
            value = getattr(self, name)
            if value is not None and value < 1:
                flag = name.replace("_", "-")
                raise ValueError(f"--{flag} must be at least 1, got {value}.")
        if self.prompt_template is not None and "{question}" not in self.prompt_template:
            raise ValueError("--prompt-template must hold {question}, got one that does not.")
        self._switches()

    def fields(self) -> dict[str, str | None]:
        """Names of fields, for `read_traces`."""
        parts = (text.partition("=") for text in self.field)
        return {name: column or None for name, _, column in parts}

    def reading(self) -> dict[str, Any]:
        """Other arguments of `read_traces`."""
        marks = self.marks and tuple(_unescape(mark) for mark in self.marks)
        return {"layout": self.layout, "marks": marks}

    def encoding(self) -> dict[str, Any]:
        """Arguments of `encode`.

        Raises:
            UserError: If the keywords cannot be read.
        """
        texts = ("opening", "closing", "end_of_turn", "stub", "instruction", "prompt_template")
        return {
            "keywords": self._keywords(),
            "segmenter": self.segmenter,
            "segment_tokens": self.segment_tokens,
            **{name: _unescape(getattr(self, name)) for name in texts},
            "chat_template_kwargs": self._switches(),
            "strip_final_answer": self.strip_final_answer,
            "split_special_tokens": self.split_special_tokens,
            "max_length": self.max_length,
        }

    def _switches(self) -> dict[str, Any]:
        return switches_of("--chat-template-kwargs", self.chat_template_kwargs)

    def _keywords(self) -> str | list[str]:
        if self.keywords in PRESETS:
            return self.keywords
        try:
            # With or without the byte-order mark that editors on Windows write.
            lines = Path(self.keywords).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError):
            raise UserError(
                f"--keywords must be {' or '.join(PRESETS)} or a file with one keyword a line, "
                f"got {self.keywords!r}."
            ) from None
        if keywords := [_unescape(line) for line in lines if line]:
            return keywords
        raise UserError(f"--keywords must hold keywords, got {self.keywords}, which is empty.")


def _unescape(text: Any) -> Any:
    return text and text.replace("\\n", "\n")
