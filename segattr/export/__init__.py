"""Scored traces to the files of other trainers, each with a README that says how to use them.

    scored record -> training row [T] -> the trainer's own columns -> OUT/

Every export is a folder: the data, ``README.md``, ``export.json`` (where it comes from, what is in
it) and, where a trainer needs code to read it, that code.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segattr import __version__
from segattr.dataset.record import ScoredTrace
from segattr.export.files import is_ours
from segattr.export.formats import TRAINERS, Format
from segattr.export.guide import guide
from segattr.export.selection import Variant
from segattr.export.text import pieces_of
from segattr.trace import TraceTooLongError
from segattr.training.rows import Row

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
        too_long: Ids of traces left out because they are longer than ``max_length``, and why.
        failed: Ids of traces left out for another reason, and why.
        cut: Ids of the traces that were cut to ``max_length``.
        as_tokens: Rows that the trainer would read otherwise as text; they are in a file of tokens
            instead.
        scored_with: What was asked when the first record was scored.
    """

    rows: int = 0
    tokens: int = 0
    supervised: int = 0
    longest: int = 0
    too_long: list[tuple[str, str]] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)
    as_tokens: int = 0
    scored_with: Mapping[str, Any] = field(default_factory=dict)


def export(
    records: Iterable[ScoredTrace],
    to: str,
    out: str | Path,
    variant: Variant | None = None,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    overwrite: bool = False,
) -> Exported:
    """Write scored records in the format of one trainer.

    Args:
        records: As from `segattr.dataset.jsonl.read_scored`.
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
    variant, folder = variant or Variant(), Path(out).resolve()
    _require_able(to, variant, tokenizer)
    _require_new(folder, overwrite)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as made:
        partial = Path(made) / folder.name
        partial.mkdir()
        exported = _write(records, TRAINERS[to], variant, tokenizer, partial)
        files = sorted([path.name for path in partial.iterdir()] + ["README.md", "export.json"])
        facts = {"segattr": __version__, "to": to, "files": files, "variant": vars(variant)}
        facts |= vars(exported)
        text = json.dumps(facts, ensure_ascii=False, indent=1) + "\n"
        (partial / "export.json").write_text(text, encoding="utf-8")
        text = guide(to, str(folder), exported, variant)
        (partial / "README.md").write_text(text, encoding="utf-8")
        _replace(folder, partial)
    return exported


def _replace(folder: Path, partial: Path) -> None:
    """Put the new export in place of an earlier one, whose files alone are removed."""
    folder.mkdir(exist_ok=True)
    earlier = _files_of(folder)
    for path in partial.iterdir():
        if (folder / path.name).exists() and folder / path.name not in earlier:
            raise FileExistsError(
                f"out must have room for {path.name}, got {folder / path.name}, which no export "
                "made. Move it away."
            )
    for old in earlier:
        if old.is_dir():
            shutil.rmtree(old)
        else:
            old.unlink(missing_ok=True)
    for path in partial.iterdir():
        path.rename(folder / path.name)


def _require_able(to: str, variant: Variant, tokenizer: Any) -> None:
    if to not in TRAINERS:
        raise ValueError(f"to must be one of {', '.join(TRAINERS)}, got {to!r}.")
    if variant.weights != "mask" and not TRAINERS[to].weights:
        able = ", ".join(name for name, other in TRAINERS.items() if other.weights)
        raise ValueError(
            f"to must be a trainer that reads weights ({able}), got {to!r}, which reads masks "
            "only. Leave out weights='strength'."
        )
    if TRAINERS[to].line is not None and tokenizer is None:
        raise ValueError(f"to={to!r} is a format of text and needs the tokenizer, got None.")


def _require_new(out: Path, overwrite: bool) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not _files_of(out):
        raise FileExistsError(
            f"out must be a new folder, got {out}, which holds something else. Choose another."
        )
    if not overwrite:
        raise FileExistsError(
            f"out must be a new folder, got {out}, an earlier export. Pass --overwrite to replace "
            "it."
        )


def _files_of(folder: Path) -> list[Path]:
    """What an earlier export has written into a folder; nothing for other folders.

    ``export.json`` may come from anywhere, so it is believed only about names that an export can
    write, and never about a link or about a folder that holds something else.
    """
    try:
        names = json.loads((folder / "export.json").read_text(encoding="utf-8"))["files"]
        paths = [folder / name for name in names if name in _writable_names()]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return []
    return [path for path in paths if not path.is_symlink() and (path.is_file() or is_ours(path))]


def _writable_names() -> set[str]:
    """Every name that some export gives a file or a folder."""
    kinds = ("parquet", "jsonl")
    data = {f"{name}.{kind}" for name in ("data", "tokens") for kind in kinds}
    hooks = {target.hook for target in TRAINERS.values() if target.hook is not None}
    return {"README.md", "export.json", "data"} | data | hooks


def _write(
    records: Iterable[ScoredTrace],
    target: Format,
    variant: Variant,
    tokenizer: Any,
    folder: Path,
) -> Exported:
    """Write the data, and the code to read it, into an empty folder."""
    exported = Exported()
    rows = _rows(records, variant, target, tokenizer, exported)
    if target.line is not None:
        _write_text(target, rows, tokenizer, folder, exported)
    else:
        target.write(rows, folder, "data", weighted=variant.weights != "mask")
    if not exported.rows:
        left_out = [*exported.failed, *exported.too_long, ("", "the file is empty")]
        raise ValueError(f"records must give rows to export, got none: {left_out[0][1]}")
    if target.hook is not None:
        shutil.copy(Path(__file__).parent / "hooks" / target.hook, folder)
    return exported


def _rows(
    records: Iterable[ScoredTrace],
    variant: Variant,
    target: Format,
    tokenizer: Any,
    exported: Exported,
) -> Iterator[Row]:
    """The records' rows; counts them, and notes which records give none."""
    for record in records:
        exported.scored_with = exported.scored_with or record.asked
        name = record.id
        try:
            row, is_cut = _row(record, variant)
            if target.check is not None:
                target.check(row, tokenizer)
        except TraceTooLongError as error:
            exported.too_long.append((name, str(error)))
        except ValueError as error:
            exported.failed.append((name, str(error)))
        else:
            exported.cut += [name] * is_cut
            exported.rows += 1
            exported.tokens += len(row["input_ids"])
            exported.supervised += int(sum(row["assistant_masks"]))
            exported.longest = max(exported.longest, len(row["input_ids"]))
            yield row


def _row(record: ScoredTrace, variant: Variant) -> tuple[Row, bool]:
    """A record's row, and whether it had to be cut."""
    try:
        return replace(variant, too_long="error").row(record), False
    except TraceTooLongError:
        if variant.too_long == "error":
            raise
        return variant.row(record), True


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
