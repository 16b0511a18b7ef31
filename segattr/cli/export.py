"""``segattr export``: write scored traces in the format of a trainer."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, Suppress, arg

from segattr.checks import require_word
from segattr.cli.console import OK, SOME_FAILED, UserError, errors, in_flags, progress
from segattr.cli.loading import load_tokenizer
from segattr.cli.options import optional, requirements_of
from segattr.cli.student import StudentOptions, load_scorer, require_vocabulary, scorer_name
from segattr.dataset.flags import FLAGS, UnfitTraceError
from segattr.dataset.jsonl import read_scored
from segattr.dataset.record import ScoredTrace
from segattr.dataset.traces import BadLine
from segattr.export import TRAINERS, Exported, export
from segattr.export.selection import BY_TOKEN, SELECTIONS, WEIGHTINGS, Variant

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


NAMES = ["weights", *(field.name for field in fields(Variant))]


def spelled(message: str) -> str:
    """The command says weights where the library says weighting."""
    return message.replace("weighting", "weights")


@dataclass(frozen=True)
class Loss(Variant):
    """What carries loss."""

    select: Annotated[
        str,
        arg(
            metavar="SELECTION",
            help="; ".join(f"{name}: {what}" for name, what in SELECTIONS.items()) + ".",
        ),
    ] = "scored"
    weighting: Annotated[
        str,
        arg(
            name="weights",
            metavar="WEIGHTS",
            help=f"{' or '.join(WEIGHTINGS)}: 1 where there is loss, or more for stronger "
            "segments, for trainers that read weights.",
        ),
    ] = "mask"
    tau: Annotated[float | None, optional("X", "Share of the strength; as scored if left out.")] = (
        None
    )
    beta: Annotated[
        float | None, optional("X", "Highest direction consistency; as scored if left out.")
    ] = None
    share: Annotated[
        float, arg(metavar="X", help="Of the reasoning tokens, for selections of tokens.")
    ] = 0.45
    seed: Annotated[int, arg(metavar="N", help="Of the random selection.")] = 0
    max_length: Annotated[int | None, optional("T", "Most tokens of a row.")] = None
    train_response: Annotated[
        bool, arg(name="response", help="No loss on what follows the reasoning.")
    ] = True
    whole_below: Annotated[
        int | None,
        optional("T", "Train traces of fewer tokens whole, as the released code does with 4000."),
    ] = None
    keep_second_to_last: Annotated[
        bool, arg(help="Also keep the segment before the last, as the released code does.")
    ] = False
    normalize: Annotated[
        str | None,
        optional(
            "trace",
            "trace: scale each row's weights to sum 1, so that all traces count the same, for "
            "trainers that divide by weights.",
        ),
    ] = None
    too_long: Suppress[str] = "error"  # an option of the command, which knows one policy more

    def __post_init__(self) -> None:
        try:
            super().__post_init__()
        except ValueError as error:
            raise ValueError(in_flags(spelled(str(error)), NAMES)) from None


@dataclass(frozen=True)
class Export:
    """Write the training rows of a scored file in the format of a trainer.

    The folder gets a README.md that says how to use them. Other selections need no new attribution.

    Exit codes: 0 all exported, 1 some traces left out (named on stderr), 2 nothing could be done.
    """

    scored: Annotated[Positional[Path], arg(metavar="SCORED.jsonl")]
    """A file that segattr score wrote."""
    to: Annotated[str, arg(metavar="TRAINER", help=", ".join(TRAINERS) + ".")]
    out: Annotated[Path, arg(metavar="DIR")]
    """Folder to make."""
    loss: Loss
    student: StudentOptions
    require: Annotated[
        str,
        optional("NAMES", f"Leave out traces flagged with one of these: {', '.join(FLAGS)}."),
    ] = ""
    overwrite: bool = False
    """Replace an earlier export."""
    too_long: Annotated[
        Literal["error", "skip", "cut"],
        arg(
            help="A row of more than max-length tokens is an error, a skip, or cut: its last "
            "segments, as wholes, and the response are left out."
        ),
    ] = "error"
    tokenizer: Annotated[str | None, optional("TOKENIZER")] = None
    """Where the one scored with is now, for formats of text; its own name if left out."""
    trust_remote_code: bool = False
    """Run code that comes with the tokenizer."""

    def __post_init__(self) -> None:
        require_word("--to", self.to, TRAINERS)
        requirements_of(self.require)
        if self.tokenizer is not None and self.student.student is not None:
            raise ValueError(
                "--tokenizer must be left out with --student, which has its own, got both."
            )

    def run(self) -> int:
        left_out: list[BadLine] = []
        flagged: list[str] = []
        # To cut is the row's business; to skip, the command's, for which it is an error first.
        policy = "cut" if self.too_long == "cut" else "error"
        variant = Variant(**{f.name: getattr(self.loss, f.name) for f in fields(Variant)})
        try:
            records = self._records(left_out, flagged)
            first = next(records)
            by_token = variant.select in BY_TOKEN
            student = self.student.load(first, by_token, self.trust_remote_code)
            is_text = TRAINERS[self.to].line is not None and student is None
            done = export(
                progress(itertools.chain([first], records), self._count(), "exporting"),
                self.to,
                self.out,
                replace(variant, too_long=policy),
                tokenizer=self._tokenizer(first) if is_text else None,
                student=student,
                overwrite=self.overwrite,
            )
        except (OSError, ValueError, ImportError) as error:
            raise UserError(in_flags(spelled(str(error)), ["overwrite", *NAMES])) from None
        return self._report(done, left_out, flagged)

    def _records(self, left_out: list[BadLine], flagged: list[str]) -> Iterator[ScoredTrace]:
        """The records; those that are damaged, and those with a flag, are told to the lists."""
        requirements, found = requirements_of(self.require), False
        for scored in read_scored(self.scored, left_out):
            try:
                requirements.check(scored.flags)
            except UnfitTraceError as error:
                flagged.append(f"{scored.id}: left out: {error}")
                continue
            found = True
            yield scored
        if not found:
            reasons = [*(bad.error for bad in left_out), *flagged, "it is empty"]
            raise ValueError(
                f"SCORED must hold scored traces to export, got {self.scored}: {reasons[0]}"
            )

    def _count(self) -> int:
        with open(self.scored, "rb") as file:
            return sum(1 for _ in file)

    def _tokenizer(self, first: ScoredTrace) -> PreTrainedTokenizerBase:
        """The tokenizer given, or the one the traces were scored with."""
        scored_with = scorer_name(first)
        name: Any = self.tokenizer or scored_with
        if name is None:
            raise UserError(f"--tokenizer must be given, since {self.scored} does not name one.")
        tokenizer = load_tokenizer("--tokenizer", name, self.trust_remote_code)
        if scored_with not in (None, name):
            self._compare(tokenizer, first)
        return tokenizer

    def _compare(self, tokenizer: PreTrainedTokenizerBase, first: ScoredTrace) -> None:
        try:
            scored_by = load_scorer(first, self.trust_remote_code)
        except UserError as error:
            errors.print(f"control tokens of --tokenizer could not be compared: {error}")
        else:
            require_vocabulary(str(self.tokenizer), tokenizer, scored_by)

    def _report(self, done: Exported, left_out: list[BadLine], flagged: list[str]) -> int:
        skipped = done.too_long if self.too_long == "skip" else []
        failed = [(f"{self.scored}:{bad.line}", bad.error) for bad in left_out]
        failed += done.failed if skipped else [*done.failed, *done.too_long]
        for text in (*flagged, *(f"{name}: left out: {reason}" for name, reason in failed)):
            errors.print(text)
        if done.as_tokens:
            errors.print(
                f"{done.as_tokens} of {done.rows} rows would lose tokens or weights as text and "
                "are in a file of tokens instead"
            )
        if (fit := done.fit) is not None:
            errors.print(
                f"{fit.cuts} cuts between segments: {fit.moved} moved to the edge of one of the "
                f"student's tokens ({fit.moved_over_text} over more than white space); "
                f"{fit.merged} segments without tokens now, {fit.split} with tokens that had none"
            )
        print(
            f"{self.out}: {done.rows} rows, {done.tokens} tokens, {done.with_loss} with loss "
            f"({done.with_loss / done.tokens:.0%}); {len(failed)} failed, {len(skipped)} "
            f"skipped, {len(flagged)} left out as flagged, {len(done.cut)} cut. "
            f"How to train on it: {self.out / 'README.md'}"
        )
        return SOME_FAILED if failed else OK
