"""Scored records to the folder of one trainer.

    scored record (-> the student's tokens) -> training row [T] -> the trainer's columns, or text
        -> OUT/

Every export is a folder: the data, ``README.md``, ``export.json`` (where it comes from, what is in
it) and, where a trainer needs code to read it, that code.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segattr.checks import require_word
from segattr.dataset.record import ScoredTrace
from segattr.dataset.student import Fit, Student, StudentTrace
from segattr.export.exported import Exported
from segattr.export.files import Opener, Put, open_jsonl
from segattr.export.folder import new_folder
from segattr.export.formats import TRAINERS, Format, Line
from segattr.export.guide import guide
from segattr.export.selection import Variant
from segattr.export.text import pieces_of, require_tokenizer_of
from segattr.trace import TraceTooLongError
from segattr.training.rows import Row
from segattr.version import __version__

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

HOOKS = Path(__file__).parent / "hooks"


def export(
    records: Iterable[ScoredTrace],
    to: str,
    out: str | Path,
    variant: Variant | None = None,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    student: Student | None = None,
    overwrite: bool = False,
) -> Exported:
    """Write scored records in the format of one trainer.

    Args:
        records: As from `segattr.dataset.jsonl.read_scored`.
        to: The trainer, one of `TRAINERS`.
        out: The folder to make.
        variant: What carries loss; ``None``: what is kept in the records.
        tokenizer: The tokenizer that the traces were scored with; formats of text need it.
        student: The model to train, if that is another one, with its own tokenizer.
        overwrite: Replace an earlier export.

    Returns:
        What was written and what was left out; one bad trace does not stop the others.

    Raises:
        ValueError: If the trainer is unknown or cannot carry what the variant asks for, a tokenizer
            is missing or is another one than the traces' tokens are of, or nothing could be
            exported.
        FileExistsError: If ``out`` exists and is not to be replaced, or is no export.
        ImportError: If the format needs a library that is not installed.
    """
    variant, folder = variant or Variant(), Path(out).resolve()
    if student is not None:
        tokenizer = _of_student(student, tokenizer)
    _require_able(to, variant, tokenizer)
    with new_folder(folder, overwrite) as partial:
        maker = _Maker(TRAINERS[to], variant, tokenizer, student)
        exported = _write(records, maker, partial)
        files = sorted([path.name for path in partial.iterdir()] + ["README.md", "export.json"])
        facts: dict[str, Any] = {
            "segattr": __version__,
            "to": to,
            "files": files,
            "variant": vars(variant),
        }
        facts |= vars(exported) | {"fit": exported.fit and vars(exported.fit)}
        facts["student"] = student and student.described()
        text = json.dumps(facts, ensure_ascii=False, indent=1) + "\n"
        (partial / "export.json").write_text(text, encoding="utf-8")
        text = guide(to, str(folder), exported, variant)
        (partial / "README.md").write_text(text, encoding="utf-8")
    return exported


def _require_able(to: str, variant: Variant, tokenizer: Any) -> None:
    require_word("to", to, TRAINERS)
    if variant.is_weighted:
        _require_weights(to, variant)
    if TRAINERS[to].line is not None and tokenizer is None:
        raise ValueError(f"to={to!r} is a format of text and needs the tokenizer, got None.")


def _require_weights(to: str, variant: Variant) -> None:
    """Raise unless the trainer makes of weights what the variant asks for."""
    able = [name for name, target in TRAINERS.items() if target.carries_weights]
    asked = {"weighting": variant.weighting, "normalize": variant.normalize}
    if to not in able:
        given = " and ".join(f"{k}={v!r}" for k, v in asked.items() if v not in ("mask", None))
        raise ValueError(
            f"to must be a trainer that reads weights ({', '.join(able)}), got {to!r}, which "
            f"reads masks only. Leave out {given}."
        )
    if variant.normalize is not None and TRAINERS[to].divides_by_tokens:
        able = [name for name in able if not TRAINERS[name].divides_by_tokens]
        raise ValueError(
            f"normalize={variant.normalize!r} needs a trainer that divides by the sum of weights "
            f"({', '.join(able)}), got {to!r}, which divides by the number of tokens with loss. "
            "Leave it out."
        )


def _of_student(student: Student, tokenizer: Any) -> Any:
    """The student's tokenizer, which is then the only one."""
    if tokenizer not in (None, student.tokenizer):
        raise ValueError(
            "tokenizer must be None with student, which has its own, got another one. Leave it out."
        )
    return student.tokenizer


def _write(records: Iterable[ScoredTrace], maker: _Maker, folder: Path) -> Exported:
    """Write the data, and the code to read it, into an empty folder."""
    exported, target = Exported(), maker.target
    with _Data(target, folder, maker.tokenizer, maker.variant.is_weighted) as data:
        for record in records:
            exported.scored_with = exported.scored_with or record.asked
            try:
                made = maker.make(record)
            except ValueError as error:
                exported.leave_out(record.id, error)
            else:
                in_tokens = data.write(made.row)
                exported.add(
                    record.id, made.row, as_tokens=in_tokens, is_cut=made.is_cut, fit=made.fit
                )
    if not exported.rows:
        left_out = [*exported.failed, *exported.too_long, ("", "the file is empty")]
        raise ValueError(f"records must give rows to export, got none: {left_out[0][1]}")
    if target.hook is not None:
        shutil.copy(HOOKS / target.hook, folder)
    return exported


@dataclass(frozen=True)
class _Made:
    """A row, whether it had to be cut, and how well the segments fit the student's tokens."""

    row: Row
    is_cut: bool
    fit: Fit | None


@dataclass(frozen=True)
class _Maker:
    """What makes a row of a record, for one trainer."""

    target: Format
    variant: Variant
    tokenizer: Any
    student: Student | None

    def make(self, record: ScoredTrace) -> _Made:
        """Return the record's row.

        Raises:
            ValueError: If it gives none, or one that the trainer would change.
        """
        trace: ScoredTrace | StudentTrace = record
        if self.student is not None:
            trace = self.student.read(record)
        elif self.target.line is not None:
            require_tokenizer_of(record, self.tokenizer)
        row, is_cut = self._row(trace)
        if self.target.prepare is not None:
            row = self.target.prepare(row, self.tokenizer)
        return _Made(row, is_cut, trace.fit if isinstance(trace, StudentTrace) else None)

    def _row(self, trace: ScoredTrace | StudentTrace) -> tuple[Row, bool]:
        """A row, and whether it had to be cut."""
        try:
            return replace(self.variant, too_long="error").row_as(trace), False
        except TraceTooLongError:
            if self.variant.too_long == "error":
                raise
            return self.variant.row_as(trace), True


class _Data(ExitStack):
    """The files of rows in an export's folder, each made when its first row comes."""

    def __init__(self, target: Format, folder: Path, tokenizer: Any, is_weighted: bool) -> None:
        super().__init__()
        self.target, self.folder = target, folder
        self.tokenizer, self.is_weighted = tokenizer, is_weighted
        self.puts: dict[str, Put] = {}

    def write(self, row: Row) -> bool:
        """Write a row; return whether it had to be written as tokens instead of text."""
        if (line := self._line(row)) is not None:
            self._put("data", open_jsonl)(line)
            return False
        is_text = self.target.line is not None
        put = self._put("tokens" if is_text else "data", self.target.open_tokens)
        put(self.target.tokens(row, self.is_weighted, self.tokenizer))
        return is_text

    def _line(self, row: Row) -> Line | None:
        """The row as text, if the trainer reads that as the row's very tokens."""
        if self.target.line is None or (pieces := pieces_of(row, self.tokenizer)) is None:
            return None
        return self.target.line(row, pieces, self.tokenizer)

    def _put(self, name: str, opener: Opener) -> Put:
        if name not in self.puts:
            self.puts[name] = self.enter_context(opener(self.folder, name))
        return self.puts[name]
