"""The model to train, where another one scored: its tokenizer and its chat template."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from segattr.cli.console import UserError
from segattr.cli.loading import load_tokenizer, require_encoding
from segattr.cli.options import optional, switches_of
from segattr.dataset.student import Student

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from segattr.dataset.record import ScoredTrace


@dataclass(frozen=True)
class StudentOptions:
    """Another model to train than the one that scored. Only its tokenizer is loaded."""

    student: Annotated[str | None, optional("MODEL")] = None
    """Folder or hub name of the model or its tokenizer: rows are written anew, in its tokens."""
    student_template: Annotated[Path | None, optional("FILE")] = None
    """A chat template (Jinja) instead of the tokenizer's own."""
    student_instruction: Annotated[str | None, optional("TEXT")] = None
    """Text appended to every question; as scored if left out. \\n may be written out."""
    student_template_kwargs: Annotated[str | None, optional("JSON")] = None
    """Switches of the chat template, such as '{"thinking": true}'."""

    def __post_init__(self) -> None:
        for flag, value in (
            ("--student-template", self.student_template),
            ("--student-instruction", self.student_instruction),
            ("--student-template-kwargs", self.student_template_kwargs),
        ):
            if self.student is None and value is not None:
                raise ValueError(f"{flag} needs --student, got none. Name the model to train.")
        self._switches()

    def load(
        self, first: ScoredTrace, needs_scorer: bool, trust_remote_code: bool
    ) -> Student | None:
        """Load the student.

        Args:
            first: The first record, which says what the others were scored with too.
            needs_scorer: Load the tokenizer that scored as well.
            trust_remote_code: Run code that comes with a tokenizer.

        Raises:
            UserError: If there is none, or it cannot write a turn.
        """
        if self.student is None:
            return None
        tokenizer = load_tokenizer("--student", self.student, trust_remote_code)
        if self.student_template is not None:
            tokenizer.chat_template = _read(self.student_template)
        require_encoding(tokenizer, {"chat_template_kwargs": self._switches()})
        scored_by = None
        if needs_scorer:
            scored_by = Student.that_scored(load_scorer(first, trust_remote_code), first.asked)
        instruction = self.student_instruction
        return Student(
            tokenizer,
            scored_by=scored_by,
            chat_template_kwargs=self._switches(),
            instruction=None if instruction is None else instruction.replace("\\n", "\n"),
        )

    def _switches(self) -> dict[str, Any]:
        return switches_of("--student-template-kwargs", self.student_template_kwargs)


def scorer_name(first: ScoredTrace) -> Any:
    """The name of the tokenizer that scored; None if it is not recorded."""
    return first.asked.get("tokenizer") or first.asked.get("model")


def load_scorer(first: ScoredTrace, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    """Load the tokenizer that the traces were scored with.

    Raises:
        UserError: If there is none.
    """
    if (name := scorer_name(first)) is None:
        raise UserError(
            "SCORED must name the tokenizer it was scored with, for selections of tokens, got a "
            "file without. Select segments."
        )
    return load_tokenizer("SCORED's tokenizer", name, trust_remote_code)


def require_vocabulary(
    name: str, given: PreTrainedTokenizerBase, scored_by: PreTrainedTokenizerBase
) -> None:
    """Raise unless each id is the same token in both vocabularies.

    Models of one family often differ in their control tokens alone.

    Raises:
        UserError: If they differ.
    """
    mine, theirs = ({i: t for t, i in each.get_vocab().items()} for each in (given, scored_by))
    if other := [index for index in theirs if mine.get(index) != theirs[index]]:
        index = min(other)
        raise UserError(
            f"--tokenizer must have the vocabulary that the traces were scored with, got {name}, "
            f"where token {index} is {mine.get(index)!r} instead of {theirs[index]!r}. Pass "
            f"--student {name} to write the rows in its tokens."
        )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--student-template must be a file to read, got {path}: {error}") from None
