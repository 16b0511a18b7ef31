"""Text to tokens with their characters: one tokenisation, and one owner for every token.

A token belongs to what holds its first non-white character (its first character if it has none).
"""

from __future__ import annotations

import bisect
import itertools
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from segattr.trace import Span

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ANCHORS = ("\n", "{", ":", "a")
SHOWN = 24  # characters of a text in an error


@dataclass(frozen=True)
class Tokens:
    """A text's tokens.

    Args:
        text: What was tokenised.
        ids: Their ids.
        spans: Their characters; white space at their edges may be missing.
    """

    text: str
    ids: list[int]
    spans: list[Span]

    def edge(self, character: int) -> int:
        """Return the first token that belongs to what starts at a character."""
        return bisect.bisect_left(self._anchors, character)

    def index(self, character: int) -> int:
        """Return the first token that starts at a character or after it."""
        return bisect.bisect_left(self._starts, character)

    def is_border(self, character: int) -> bool:
        """Whether no token has characters on both sides."""
        before = self.index(character)
        return before == 0 or self.spans[before - 1][1] <= character

    @cached_property
    def _starts(self) -> list[int]:
        return [start for start, _ in self.spans]

    @cached_property
    def _anchors(self) -> list[int]:
        """The character that decides each token's owner."""
        starts = self._starts
        # Up to where the next token starts, since trimmed offsets lack white space; or to its own
        # end, since tokens of one character's bytes overlap.
        following = [*starts[1:], len(self.text)]
        stops = [max(pair) for pair in zip(following, (s for _, s in self.spans), strict=True)]
        anchors = [
            next((at for at in range(start, stop) if not self.text[at].isspace()), start)
            for start, stop in zip(starts, stops, strict=True)
        ]
        if any(a > b for a, b in itertools.pairwise(anchors)):
            raise ValueError(
                "tokenizer must give offsets in reading order, got offsets that go back. "
                "Build an EncodedTrace by hand for this tokenizer."
            )
        return anchors


def tokenise(tokenizer: PreTrainedTokenizerBase, text: str, plain: Sequence[Span] = ()) -> Tokens:
    """Tokenise a text, adding nothing.

    Args:
        tokenizer: A fast one.
        text: What to tokenise; special tokens in it become control tokens.
        plain: Characters where they become text instead.

    Raises:
        ValueError: If the tokens do not give the text back.
    """
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, spans = list(encoding["input_ids"]), [tuple(span) for span in encoding["offset_mapping"]]
    if plain:
        ids, spans = _spelled(tokenizer, text, ids, spans, plain)
    decoded = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    if (at := _lost(text, str(decoded))) is not None:
        raise ValueError(
            "tokenizer must give the text back, got tokens that lose it after "
            f"{text[max(0, at - SHOWN) : at]!r}: {text[at : at + SHOWN]!r}. Load the tokenizer "
            "with the transformers that it was made for, and check its files."
        )
    return Tokens(text, ids, spans)


def ids_after(tokenizer: PreTrainedTokenizerBase, before: str, text: str) -> list[int]:
    """Return the tokens of a text that follows another one, none of them shared by both.

    SentencePiece puts a space before every text that it is given; there the text is tokenised with
    what stands before, or with a character in its place, and cut off at its first token.
    """
    ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    if not text or _joins(tokenizer, ids, text):
        return ids
    for context in (before, *ANCHORS):
        tokens = tokenise(tokenizer, context + text)
        if tokens.is_border(len(context)):
            return tokens.ids[tokens.index(len(context)) :]
    raise ValueError(
        f"tokenizer must have tokens of its own for {text!r:.60}, got none that stand alone. "
        "Build an EncodedTrace by hand for this tokenizer."
    )


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """Return the special tokens by id."""
    added = tokenizer.added_tokens_decoder.items()
    return {index: str(token) for index, token in added if token.special}


def _joins(tokenizer: PreTrainedTokenizerBase, ids: list[int], text: str) -> bool:
    """Whether these tokens, after others, are this text and nothing more."""
    before = list(tokenizer(ANCHORS[-1], add_special_tokens=False)["input_ids"])
    decoded = tokenizer.decode(
        before + ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
    return str(decoded).lstrip() == ANCHORS[-1] + text


def _spelled(
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    ids: list[int],
    spans: list[Span],
    plain: Sequence[Span],
) -> tuple[list[int], list[Span]]:
    """Replace control tokens inside the plain characters by the tokens of their letters."""
    control = control_tokens(tokenizer)
    new_ids: list[int] = []
    new_spans: list[Span] = []
    for index, (start, stop) in zip(ids, spans, strict=True):
        if index in control and any(a <= start and stop <= b for a, b in plain):
            letters = tokenizer(
                text[start:stop],
                add_special_tokens=False,
                return_offsets_mapping=True,
                split_special_tokens=True,
            )
            new_ids += letters["input_ids"]
            new_spans += [(start + a, start + b) for a, b in letters["offset_mapping"]]
        else:
            new_ids.append(index)
            new_spans.append((start, stop))
    return new_ids, new_spans


def _lost(text: str, decoded: str) -> int | None:
    """Return the first character of a text that its decoded tokens lack; spaces may be added."""
    if text == decoded:
        return None
    # Another way to write the same characters is no loss; NFKC, which makes 2 of \u00b2, is one.
    wanted, found = (unicodedata.normalize("NFC", each) for each in (text, decoded))
    if _first_missing(wanted, found) is None:
        return None
    return _first_missing(text, decoded) or 0


def _first_missing(wanted: str, found: str) -> int | None:
    place = 0
    for at, character in enumerate(wanted):
        while found[place : place + 1] == " " != character:
            place += 1
        if found[place : place + 1] != character:
            # A decoder may take off the space in front that its encoder puts there.
            if at == 0 and character == " ":
                continue
            return at
        place += 1
    return None
