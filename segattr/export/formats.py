"""What each trainer reads: its columns of tokens, or its pieces of text.

What was run to check each, and with which versions: README.md, "Into your trainer".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from segattr.export.files import Opener, open_dataset_dict, open_jsonl, open_parquet
from segattr.export.text import Piece, decode, encode
from segattr.training.rows import (
    ASSISTANT_MASKS,
    ATTENTION_MASK,
    INPUT_IDS,
    LABELS,
    LOSS_MASK,
    LOSS_WEIGHTS,
    Row,
)

Line = dict[str, Any]


@dataclass(frozen=True)
class Format:
    """One trainer's format.

    Args:
        tokens: A row, whether rows are weighted, and the tokenizer, to the trainer's columns of
            tokens.
        open_tokens: How rows of tokens are written to disk.
        carries_weights: Whether rows carry weights other than 0 and 1.
        divides_by_tokens: Whether the trainer divides a batch's loss by the number of tokens with
            loss; else by the sum of their weights.
        line: A row as a line of text, from its pieces; None if the trainer would read it otherwise.
            Absent from formats of tokens.
        prepare: Makes the row one that the trainer leaves as it is; raises ValueError where it
            would change it in any format.
        hook: A file of `segattr.export.hooks` that the trainer reads the data with.
    """

    tokens: Callable[[Row, bool, Any], Line]
    open_tokens: Opener = open_parquet
    carries_weights: bool = False
    divides_by_tokens: bool = False
    line: Callable[[Row, Sequence[Piece], Any], Line | None] | None = None
    prepare: Callable[[Row, Any], Row] | None = None
    hook: str | None = None


def _trl(row: Row, is_weighted: bool, *_: Any) -> Line:
    """Both masks: TRL before 1.7 drops labels when it packs, and trains on everything."""
    names = [INPUT_IDS, LABELS, ASSISTANT_MASKS] + [LOSS_WEIGHTS] * is_weighted
    return {name: row[name] for name in names}


def _labels(row: Row, *_: Any) -> Line:
    """No other list may stand with these: ``DataCollatorForSeq2Seq`` cannot pad it."""
    return {name: row[name] for name in (INPUT_IDS, ATTENTION_MASK, LABELS)}


def _verl(row: Row, *_: Any) -> Line:
    return {INPUT_IDS: row[INPUT_IDS], LOSS_MASK: row[LOSS_WEIGHTS]}


def _openrlhf(row: Row, *_: Any) -> Line:
    return {INPUT_IDS: row[INPUT_IDS], LOSS_WEIGHTS: row[LOSS_WEIGHTS]}


def _torchtune(row: Row, *_: Any) -> Line:
    """Its mask is 1 where there is no loss."""
    return {"tokens": row[INPUT_IDS], "mask": [1 - int(on) for on in row[ASSISTANT_MASKS]]}


def _axolotl_text(row: Row, pieces: Sequence[Piece], tokenizer: Any) -> Line:
    return {"segments": [{"label": piece.weight > 0, "text": piece.text} for piece in pieces]}


def _swift_text(row: Row, pieces: Sequence[Piece], tokenizer: Any) -> Line | None:
    """The prompt as it is in the user's turn, then consecutive assistant messages, for masks.

    The end of turn is left to ms-swift, which puts one weight of 1 there.
    """
    first, *others = pieces
    last = list(others[-1].ids[:-1])
    text = decode(last, tokenizer)
    binary = all(piece.weight in (0, 1) for piece in pieces)
    if not (binary and last) or _adds_bos(tokenizer) or encode(text, tokenizer) != last:
        return None
    texts = [*(piece.text for piece in others[:-1]), text]
    said = [
        {"role": "assistant", "content": content, "loss": piece.weight > 0}
        for piece, content in zip(others, texts, strict=True)
    ]
    return {"messages": [{"role": "user", "content": first.text}, *said]}


def _swift_tokens(row: Row, is_weighted: bool, tokenizer: Any) -> Line:
    """One assistant message whose content is tokens (ms-swift >= 4.2).

    Weights have mean 1, since ms-swift divides by the number of tokens that have one.
    """
    start = int(_adds_bos(tokenizer))  # ms-swift puts one in front itself
    weights = row[LOSS_WEIGHTS][start:]
    scale = sum(weight > 0 for weight in weights) / sum(weights)
    content = {
        "token_ids": row[INPUT_IDS][start:],
        "loss_scale": [weight * scale for weight in weights],
    }
    return {"messages": [{"role": "assistant", "content": content}]}


def _swift_row(row: Row, tokenizer: Any) -> Row:
    """The row up to its end of turn: no loss stands after it, nor depends on what does."""
    length = len(row[INPUT_IDS])
    while length > 1 and not row[LOSS_WEIGHTS][length - 1]:
        if row[INPUT_IDS][length - 1] == tokenizer.eos_token_id:
            break
        length -= 1
    row = {name: column[:length] for name, column in row.items()}
    _refuse_what_swift_changes(row, tokenizer)
    return row


def _refuse_what_swift_changes(row: Row, tokenizer: Any) -> None:
    """Raise for rows whose first or last token ms-swift would change, as text and as tokens."""
    last, eos = row[INPUT_IDS][-1], tokenizer.eos_token_id
    if last != eos:
        raise ValueError(
            f"ms-swift ends every row by the tokenizer's EOS token {tokenizer.eos_token!r} and "
            f"trains it, got a row that ends by {decode([int(last)], tokenizer)!r}. Set the "
            "tokenizer's eos_token to the end of a turn; do not cut rows."
        )
    if row[LOSS_WEIGHTS][-1] == 0:
        raise ValueError(
            "ms-swift always trains the end of a turn, got a row that leaves it out. Put loss on "
            "the response."
        )
    if _adds_bos(tokenizer) and row[INPUT_IDS][0] != tokenizer.bos_token_id:
        raise ValueError(
            f"ms-swift starts every row by {tokenizer.bos_token!r}, which this tokenizer adds, got "
            "a row without it. Score with a chat template that has it."
        )


def _adds_bos(tokenizer: Any) -> bool:
    bos = tokenizer.bos_token_id
    return bos is not None and tokenizer("")["input_ids"][:1] == [bos]


TRAINERS = {
    "trl": Format(_trl, carries_weights=True),
    "llama-factory": Format(_labels, open_dataset_dict),
    "unsloth": Format(_labels),
    "axolotl": Format(_labels),
    "axolotl-text": Format(_labels, line=_axolotl_text),
    "ms-swift": Format(
        _swift_tokens,
        open_jsonl,
        carries_weights=True,
        divides_by_tokens=True,
        line=_swift_text,
        prepare=_swift_row,
    ),
    "verl": Format(_verl, carries_weights=True, hook="segattr_verl.py"),
    "openrlhf": Format(_openrlhf, carries_weights=True, hook="segattr_openrlhf.py"),
    "torchtune": Format(_torchtune, hook="segattr_torchtune.py"),
}
