"""Rows of tokens as text, in pieces of one weight each, if the text gives the very tokens back.

Trainers that are handed pieces of text tokenise each piece by itself. Cut where tokens end, most
pieces come out as the tokens they were; what does not must stay tokens.
"""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from segattr.training.rows import Row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from segattr.dataset.record import ScoredTrace

SHOWN = 10  # tokens of a reasoning in an error


@dataclass(frozen=True)
class Piece:
    """Text whose own tokenisation is ``ids``, all of one weight."""

    text: str
    ids: Sequence[int]
    weight: float


def pieces_of(row: Row, tokenizer: PreTrainedTokenizerBase) -> list[Piece] | None:
    """Return the row as pieces of text, or None where tokenising a piece gives other tokens.

    The first piece begins with the row's first token, which has no weight.
    """
    pieces = []
    tokens = zip(row["loss_weights"], row["input_ids"], strict=True)
    for weight, run in itertools.groupby(tokens, key=lambda token: token[0]):
        ids = [int(token) for _, token in run]
        text = decode(ids, tokenizer)
        if encode(text, tokenizer) != ids:
            return None
        pieces.append(Piece(text, ids, weight))
    return pieces


def require_tokenizer_of(scored: ScoredTrace, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise ValueError unless a record's tokens are those of a tokenizer, as far as text tells.

    White space may differ, as a token that reaches over an edge or a normaliser leaves it.
    """
    encoded = scored.encoded
    ids = encoded.input_ids[: encoded.reasoning[1]].tolist() + encoded.response_ids.tolist()
    wanted = _bare(scored.reasoning[: scored.segments[-1].characters[1]])
    if wanted not in _bare(decode(ids, tokenizer)):
        start, stop = encoded.reasoning
        raise ValueError(
            "tokenizer must be the one that the traces were scored with, got one whose tokens read "
            f"{decode(ids[start : min(stop, start + SHOWN)], tokenizer)!r} where the trace says "
            f"{scored.reasoning.strip()[:40]!r}. To train another model, pass --student, or "
            "student=Student(its_tokenizer)."
        )


def _bare(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text).split())


def decode(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> str:
    """The tokens' text, special tokens written out, spaces as they are."""
    return str(
        tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    )


def encode(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The text's tokens by itself, nothing added."""
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])
