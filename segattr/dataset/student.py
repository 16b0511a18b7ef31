"""A trace that one model was scored with, in the tokens of another, the student.

    record's texts -> student's chat template -> student's tokens -> weights by text -> training row

Weights of segments stay those of the segments. Weights of tokens go by characters: a character has
the weight of the token that was scored with it, and a student's token that of its first
non-whitespace character, by which it also belongs to its segment.

Axes: ``S`` segments, ``N`` reasoning tokens that were scored, ``M`` of the student.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from segattr.encoding import encode
from segattr.trace import EncodedTrace, Span

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from segattr.dataset.record import ScoredTrace
    from segattr.training.rows import Row

NOT_OPTIONS = {"tokenizer", "scored_by"}  # all other fields are arguments of `encode`
AS_SCORED = ("instruction", "split_special_tokens")  # what is not a matter of the tokenizer


@dataclass(frozen=True, eq=False)
class Student:
    """A tokenizer, and how it writes a turn: the model to train, where another one scored.

    Args:
        tokenizer: A fast one, with the chat template to write the turns in.
        scored_by: The tokenizer of the traces' own tokens, with the options that they were encoded
            with. Only weights of tokens need it.
        instruction: Text appended to the question; ``None``: as scored.
        opening: As in `segattr.encode`; so are the next four.
        closing: What the model writes between reasoning and response.
        end_of_turn: What ends the turn.
        prompt_template: The whole prompt for tokenizers without a chat template.
        chat_template_kwargs: Switches of the chat template.
        split_special_tokens: As in `segattr.encode`; ``None``: as scored.
    """

    tokenizer: PreTrainedTokenizerBase
    _: KW_ONLY
    scored_by: Student | None = None
    instruction: str | None = None
    opening: str | None = None
    closing: str | None = None
    end_of_turn: str | None = None
    prompt_template: str | None = None
    chat_template_kwargs: Mapping[str, Any] | None = None
    split_special_tokens: bool | None = None

    @classmethod
    def that_scored(cls, tokenizer: PreTrainedTokenizerBase, asked: Mapping[str, Any]) -> Student:
        """Return the tokenizer that scored, with the options recorded in ``ScoredTrace.asked``."""
        names = {field.name for field in fields(cls)} - NOT_OPTIONS
        return cls(tokenizer, **{name: asked[name] for name in names & asked.keys()})

    def read(self, scored: ScoredTrace) -> StudentTrace:
        """Return a scored trace in the student's tokens, with the very segments that were scored.

        Raises:
            ValueError: If the student's chat template or tokenizer cannot write it; see
                `segattr.encode`.
        """
        texts, stop = scored.texts, scored.segments[-1].characters[1]
        rest = scored.reasoning[stop:]  # left out of the attributed text, but trained
        trace = replace(scored.trace, segments=[*texts, rest] if rest else texts)
        encoded = encode(trace, self.tokenizer, **self._options(scored.asked))
        encoded = _last_to_response(encoded) if rest else encoded
        return StudentTrace(self, scored, encoded)

    def described(self) -> dict[str, Any]:
        """What it is, as JSON has it."""
        names = [field.name for field in fields(self) if field.name not in NOT_OPTIONS]
        options = {name: getattr(self, name) for name in names}
        given = {name: value for name, value in options.items() if value is not None}
        return {"tokenizer": self.tokenizer.name_or_path, **given}

    def _options(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments of `encode`."""
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in NOT_OPTIONS}
        given |= {name: asked[name] for name in AS_SCORED if given[name] is None and name in asked}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class Fit:
    """How well the segments' cuts fall between the student's tokens; numbers of one or many traces.

    Args:
        cuts: Where one segment stops and the next one starts.
        moved: Cuts inside a token, which goes to one side as a whole.
        moved_over_text: Of these, cuts that more than white space has changed sides at.
        merged: Segments that had tokens when they were scored, and have none of the student's.
        split: Segments that had no tokens when they were scored, and have some of the student's.
    """

    cuts: int = 0
    moved: int = 0
    moved_over_text: int = 0
    merged: int = 0
    split: int = 0

    def __add__(self, other: Fit) -> Fit:
        return Fit(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))


@dataclass(frozen=True, eq=False)
class StudentTrace:
    """A scored trace in a student's tokens; `Student.read` makes it.

    Args:
        student: Whose tokens.
        scored: The record.
        encoded: The trace in the student's tokens, in the record's ``S`` segments.
    """

    student: Student
    scored: ScoredTrace
    encoded: EncodedTrace

    def token_weights(self, weights: Tensor) -> Tensor:
        """Return the weights of the student's tokens from those of the tokens that were scored.

        Args:
            weights: ``[N]``, at least 0.

        Returns:
            float64 ``[M]``.

        Raises:
            ValueError: If it is not known which characters the scored tokens stand for.
        """
        text = self.scored.reasoning
        by_character = [0.0] * len(text)
        spans = self._scored_characters()
        for (start, stop), weight in zip(spans, weights.double().tolist(), strict=True):
            for at in range(start, stop):  # bytes of one character: the highest of their weights
                by_character[at] = max(by_character[at], weight)
        owners = [_owner(text, span) for span in _characters(self.encoded)]
        return torch.tensor([by_character[at] for at in owners], dtype=torch.float64)

    @property
    def fit(self) -> Fit:
        """How well the cuts fall between the student's tokens."""
        text, spans = self.scored.reasoning, _characters(self.encoded)
        cuts = sorted({start for start, _ in self.encoded.characters or ()} - {0, len(text)})
        starts = [start for start, _ in spans]
        inside = []
        for cut in cuts:
            before = bisect.bisect_left(starts, cut) - 1  # the last token that starts before it
            if before >= 0 and spans[before][1] > cut:
                inside.append((cut, spans[before]))
        pairs = zip(_lengths(self.scored.encoded), _lengths(self.encoded), strict=True)
        changes = [(bool(scored), bool(mine)) for scored, mine in pairs]
        return Fit(
            cuts=len(cuts),
            moved=len(inside),
            moved_over_text=sum(
                bool(text[start:cut].strip() and text[cut:stop].strip())
                for cut, (start, stop) in inside
            ),
            merged=changes.count((True, False)),
            split=changes.count((False, True)),
        )

    def _scored_characters(self) -> list[Span]:
        """The characters of the scored tokens, ``N``, from writing the trace as it was scored."""
        if (scored_by := self.student.scored_by) is None:
            raise ValueError(
                "scored_by must be given to carry weights of tokens over, got None. Pass "
                "Student(tokenizer, scored_by=Student.that_scored(scorer_tokenizer, asked))."
            )
        mine, again = self.scored.encoded, scored_by.read(self.scored).encoded
        stop = mine.reasoning[1]
        if (again.prompt, again.segments) != (mine.prompt, mine.segments) or not torch.equal(
            again.input_ids[:stop], mine.input_ids[:stop]
        ):
            raise ValueError(
                f"scored_by must give the tokens of trace {self.scored.id!r} that were scored, got "
                "others. Pass the tokenizer that it was scored with, and the options of encode."
            )
        return _characters(again)


def student_row(scored: ScoredTrace, tokenizer: PreTrainedTokenizerBase, **options: Any) -> Row:
    """Return the training row of a scored trace's kept segments in another model's tokens.

    Args:
        scored: The record.
        tokenizer: Of the model to train.
        options: Those of `Student` and of `training_row`.

    Raises:
        ValueError: As `Student.read` and `training_row` do.
    """
    names = {field.name for field in fields(Student)} & options.keys()
    student = Student(tokenizer, **{name: options.pop(name) for name in names})
    return scored.row(student=student, **options)


def _last_to_response(encoded: EncodedTrace) -> EncodedTrace:
    """Move the tokens of the last segment to the response, as ``strip_final_answer`` does."""
    ids, (start, stop), prompt = encoded.input_ids, encoded.segments[-1], encoded.prompt[1]
    first, last = encoded.target
    return replace(
        encoded,
        input_ids=torch.cat([ids[:start], ids[stop:]]),
        segments=encoded.segments[:-1],
        target=(first - (stop - start), last - (stop - start)),
        response_ids=torch.cat([ids[start:stop], encoded.response_ids]),
        characters=None if encoded.characters is None else encoded.characters[:-1],
        token_characters=_characters(encoded)[: start - prompt],
        untrained=[(a, min(b, start)) for a, b in encoded.untrained if a < start],
    )


def _characters(encoded: EncodedTrace) -> list[Span]:
    assert encoded.token_characters is not None  # encode() knows them
    return list(encoded.token_characters)


def _lengths(encoded: EncodedTrace) -> list[int]:
    return [stop - start for start, stop in encoded.segments]


def _owner(text: str, span: Span) -> int:
    """The character whose owner a token has: the first that is not white, or its first."""
    start, stop = span
    return next((at for at in range(start, stop) if not text[at].isspace()), start)
