"""Which columns of a record hold its fields: the user's, the layout's, or those of `FIELDS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from segattr.checks import require_word
from segattr.fields.answers import answer_text, split_finder
from segattr.fields.layouts import ALWAYS, PLAIN, Layout, chosen
from segattr.fields.names import (
    FIELDS,
    RESPONSE_OF,
    SURE_RESPONSES,
    Found,
    as_field,
    lookup,
    naming,
    root,
    same,
)
from segattr.fields.thinking import Mark


def _as_it_is(found: Found) -> Any:
    return found.value


def _asked(found: Found) -> Any:
    """Return the text of a question, if it is one message."""
    turns = found.value if isinstance(found.value, list) else []
    if len(turns) == 1 and isinstance(turns[0], Mapping):
        return turns[0].get("content", turns[0].get("value"))
    return found.value


COMPARED: dict[str, Callable[[Found], Any]] = {"answer": answer_text, "question": _asked}


class Columns:
    """The columns of one record.

    Args:
        record: One JSON object.
        own: The user's column for a field; None: the record has no such field.
        layout: What other columns mean.

    Raises:
        ValueError: If ``own`` names no field, one column twice, or a column that is not there.
    """

    def __init__(
        self, record: Mapping[str, Any], own: Mapping[str, str | None], layout: Layout
    ) -> None:
        self.record, self.own, self.layout = record, own, layout
        self.used: set[str] = set()
        for name in own:
            remedy = "Your own key stands on the other side: {'reasoning': 'cot'}."
            require_word("a key of fields", name, FIELDS, remedy)
        paths = [path for path in own.values() if path]
        if twice := [path for path in paths if paths.count(path) > 1]:
            raise ValueError(
                f"fields must name a column once, got {twice[0]!r} for two fields. Name another."
            )
        # An answer inside a text leaves the text to others.
        self.claimed = {root(path) for path in paths if not split_finder(path)[1]}

    def names(self, field: str) -> tuple[str, ...]:
        """Return where a field is looked for."""
        if field in self.own:
            return (self.own[field],) if self.own[field] else ()  # type: ignore[return-value]
        fields = self.layout.fields
        names = fields.get(field, FIELDS[field] if field in ALWAYS else ())
        if field == "messages" or not self.claimed:
            return names
        return tuple(name for name in names if root(name) not in self.claimed)

    def find(self, field: str, marks: tuple[Mark, ...] = ()) -> Found | None:
        """Return what a record has of a field.

        Raises:
            ValueError: If two columns of `FIELDS` hold different values, or a named one is missing.
        """
        if field in self.own:
            return self._named(field)
        if field == "response" and self.layout.verdicts:
            there = [name for name in self.names(field) if self.record.get(name) is not None]
            return self._use([chosen(self.record, self.layout, name) for name in there])
        found = self._candidates(field)
        if field == "response":
            self._require_of_the_reasoning(found)
        if self.layout is not PLAIN or field in ("id", "finish_reason"):
            return self._use(found[:1])
        if field == "reasoning":
            found = self._without_answers(found)
        if field == "response":
            self._require_said()
            found = [one for one in found if self._is_response(one, marks)]
        plain = COMPARED.get(field, _as_it_is)
        if field == "question":  # messages say more than a text
            found.sort(key=lambda one: isinstance(one.value, str))
        for other in found[1:]:
            if not same(plain(found[0]), plain(other)):
                raise ValueError(
                    f"{field} must be read from one place, got {found[0].column} and "
                    f"{other.column}, which differ. {naming(field, found[0].column, other.column)}"
                )
        return self._use(found)

    def _use(self, found: list[Found]) -> Found | None:
        self.used.update(root(one.column) for one in found)
        return found[0] if found else None

    def _named(self, field: str) -> Found | None:
        path = self.own[field]
        if not path:
            return None
        column, _ = split_finder(path) if field == "answer" else (path, "")
        value = lookup(self.record, column) if column else ""
        if value is None and root(column) not in self.record:
            raise ValueError(
                f"{field} must be given, got a record with the fields {self._listed()}. Looked "
                f"for: {path}. Name your own with fields={{{field!r}: ...}}."
            )
        return None if value is None else self._use([Found(value, path, named=True)])

    def _candidates(self, field: str) -> list[Found]:
        """Return the columns that hold something; an empty one only if no other does."""
        found = []
        for name in self.names(field):
            column, finder = split_finder(name)
            value = lookup(self.record, column) if column else None
            if finder or value is not None:
                found.append(Found(value, name))
        full = [one for one in found if one.value not in ("", [], {})]
        return full or found[:1]

    def _without_answers(self, found: list[Found]) -> list[Found]:
        """Leave out a solution that is the answer, and what is no text beside one that is."""
        answers = [str(self.record.get(name)) for name in FIELDS["answer"]]
        kept = [
            one
            for one in found
            if one.column != "solution" or not any(same(one.value, answer) for answer in answers)
        ]
        texts = [one for one in kept if isinstance(one.value, (str, list))]
        return texts or kept

    def _require_said(self) -> None:
        """Raise where a service returned a thought, and nothing after it."""
        for content, thoughts in RESPONSE_OF.items():
            for thought in thoughts:
                cut_off = content in self.record and not self.record[content]
                if cut_off and self.record.get(thought) and "reasoning" not in self.own:
                    raise ValueError(
                        f"{content} must hold what follows {thought}, got "
                        f"{self.record[content]!r}: the generation was cut off. Drop this trace. "
                        f"If all of it is reasoning: {as_field('reasoning', thought)}."
                    )

    def _require_of_the_reasoning(self, found: list[Found]) -> None:
        """Raise for a response that goes with another reasoning than the user's."""
        mine = root(self.own.get("reasoning") or "")
        for one in found:
            layout_s = () if self.layout is PLAIN else self.layout.fields.get("reasoning", ())
            thoughts = RESPONSE_OF.get(one.column) or layout_s
            there = [thought for thought in thoughts if self.record.get(thought)]
            if mine and one.value and there and mine not in there:
                raise self._unnamed(one, there[0])

    def _unnamed(self, found: Found, beside: str) -> ValueError:
        return ValueError(
            f"response must be named, got {found.column} beside {beside}, which may be one. "
            f"{naming('response', found.column)} If it is none: {as_field('response', None)}."
        )

    def _is_response(self, found: Found, marks: tuple[Mark, ...]) -> bool:
        """Whether a column holds the response; raises where nobody can tell."""
        beside = [one.column for one in self._candidates("reasoning") if one.value]
        beside += [self.own["reasoning"]] if self.own.get("reasoning") else []  # type: ignore[list-item]
        beside += [one.column for one in self._candidates("messages") if one.value]
        if not self._is_text(found.value):
            return found.column in SURE_RESPONSES and found.value not in ([], {})
        if found.column in SURE_RESPONSES or not beside:
            return True
        if not found.value:
            return False
        with_it = RESPONSE_OF.get(found.column, ())
        marked = any(mark.closing in str(found.value) for mark in marks)
        if marked or any(name in with_it for name in beside):
            return True
        if found.column == "output" and self.record.get("instruction"):
            return True
        raise self._unnamed(found, beside[0])

    @staticmethod
    def _is_text(value: Any) -> bool:
        return isinstance(value, str) or (isinstance(value, (list, dict)) and bool(value))

    def text(self, column: str) -> Found:
        """Return the column that an answer is looked for in."""
        return Found(lookup(self.record, column), column)

    def _listed(self) -> str:
        return ", ".join(map(str, self.record)) or "none"

    def missing(self, field: str) -> ValueError:
        """Return the error of a record that lacks a field."""
        remedy = f"Name your own with fields={{{field!r}: ...}}"
        if field == "answer":
            remedy += r", or fields={'answer': '\\boxed'} for the last box of the trace"
        names = ", ".join(self.names(field)) or "none"
        return ValueError(
            f"{field} must be given, got a record with the fields {self._listed()}. Looked for: "
            f"{names}. {remedy}."
        )
