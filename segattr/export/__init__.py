"""Scored traces to the files of other trainers, each with a README that says how to use them.

    scored record -> training row [T] -> the trainer's own columns -> OUT/

Every export is a folder: the data, ``README.md``, ``export.json`` (where it comes from, what is in
it) and, where a trainer needs code to read it, that code.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segattr import __version__
from segattr.export.formats import TRAINERS, Format
from segattr.export.guide import guide
from segattr.export.text import pieces_of
from segattr.rows import Row
from segattr.trace import TraceTooLongError
from segattr.variants import Variant

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["TRAINERS", "Exported", "export"]


@dataclass
class Exported:
    """What came of an export.

    Args:
        rows: Rows written.
        tokens: Their tokens.
        supervised: Those of them that carry loss.
        longest: Tokens of the longest row.
        too_long: Traces left out because they are longer than ``max_length``, and why.
        failed: Traces left out for another reason, and why.
        as_tokens: Rows that the trainer would read otherwise as text; they are in a file of tokens
            instead.
    """

    rows: int = 0
    tokens: int = 0
    supervised: int = 0
    longest: int = 0
    too_long: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    as_tokens: int = 0


def export(
    records: Iterable[Mapping[str, Any]],
    to: str,
    out: str | Path,
    variant: Variant | None = None,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    overwrite: bool = False,
) -> Exported:
    """Write scored records in the format of one trainer.

    Args:
        records: As from `segattr.dataset.read_scored`.
        to: The trainer, one of `TRAINERS`.
        out: The folder to make.
        variant: What carries loss; ``None``: what is kept in the records.
        tokenizer: Of the model to train; needed by formats of text, which it must give back as the
            very same tokens.
        overwrite: Replace an earlier export.

    Returns:
        What was written and what was left out; one bad trace does not stop the others.

    Raises:
        ValueError: If the trainer is unknown or cannot carry what the variant asks for, a tokenizer
            is missing, or nothing could be exported.
        FileExistsError: If ``out`` exists and is not to be replaced, or is no export.
        ImportError: If the format needs a library that is not installed.
    """
    if to not in TRAINERS:
        raise ValueError(f"to must be one of {', '.join(TRAINERS)}, got {to!r}.")
    target, out, variant = TRAINERS[to], Path(out), variant or Variant()
    if variant.weights != "mask" and not target.weights:
        able = ", ".join(name for name, other in TRAINERS.items() if other.weights)
        raise ValueError(
            f"to must be a trainer that reads weights ({able}), got {to!r}, which reads masks "
            "only. Leave out weights='strength'."
        )
    if target.line is not None and tokenizer is None:
        raise ValueError(f"to={to!r} is a format of text and needs the tokenizer, got None.")
    _require_new(out, overwrite)
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        exported = Exported()
        rows = _rows(records, variant, target, tokenizer, exported)
        if target.line is not None:
            _write_text(target, rows, tokenizer, partial, exported)
        else:
            target.write(rows, partial, "data", weighted=variant.weights != "mask")
        if not exported.rows:
            reasons = [*exported.failed.values(), *exported.too_long.values(), "the file is empty"]
            raise ValueError(f"records must give rows to export, got none: {reasons[0]}")
        if target.hook is not None:
            shutil.copy(Path(__file__).parent / "hooks" / target.hook, partial)
        _describe(to, str(out), variant, exported, partial)
        if out.exists():
            shutil.rmtree(out)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return exported


def _require_new(out: Path, overwrite: bool) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    is_export = (out / "export.json").is_file()
    if not is_export:
        raise FileExistsError(
            f"out must be a new folder, got {out}, which holds something else. Choose another."
        )
    if not overwrite:
        raise FileExistsError(
            f"out must be a new folder, got {out}, an earlier export. Pass --overwrite to replace "
            "it."
        )


def _rows(
    records: Iterable[Mapping[str, Any]],
    variant: Variant,
    target: Format,
    tokenizer: Any,
    exported: Exported,
) -> Iterator[Row]:
    """The records' rows; counts them, and notes which records give none."""
    for record in records:
        try:
            row = variant.row(record)
            if target.check is not None:
                target.check(row, tokenizer)
        except TraceTooLongError as error:
            exported.too_long[str(record["id"])] = str(error)
        except ValueError as error:
            exported.failed[str(record["id"])] = str(error)
        else:
            exported.rows += 1
            exported.tokens += len(row["input_ids"])
            exported.supervised += int(sum(row["assistant_masks"]))
            exported.longest = max(exported.longest, len(row["input_ids"]))
            yield row


def _write_text(
    target: Format,
    rows: Iterable[Row],
    tokenizer: Any,
    folder: Path,
    exported: Exported,
) -> None:
    """Rows as text where that gives their very tokens back, else as tokens in a file beside it."""
    assert target.line is not None
    as_tokens: list[Row] = []
    with open(folder / "data.jsonl", "w", encoding="utf-8") as file:
        for row in rows:
            pieces = pieces_of(row, tokenizer)
            line = None if pieces is None else target.line(row, pieces, tokenizer)
            if line is None:
                as_tokens.append(row)
            else:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
    exported.as_tokens = len(as_tokens)
    if exported.as_tokens == exported.rows:
        (folder / "data.jsonl").unlink()
    if not as_tokens:
        return
    if target.tokens is None:
        target.write(as_tokens, folder, "tokens", weighted=False)
        return
    with open(folder / "tokens.jsonl", "w", encoding="utf-8") as file:
        for row in as_tokens:
            file.write(json.dumps(target.tokens(row, tokenizer)) + "\n")


def _describe(to: str, name: str, variant: Variant, exported: Exported, folder: Path) -> None:
    facts = {"segattr": __version__, "to": to, "variant": vars(variant), **vars(exported)}
    text = json.dumps(facts, ensure_ascii=False, indent=1)
    (folder / "export.json").write_text(text + "\n", encoding="utf-8")
    (folder / "README.md").write_text(guide(to, name, exported, variant), encoding="utf-8")
