r"""Layouts of well-known data sets: which column becomes which field, and how a record is known.

A column is written as in ``fields``: dotted, indexed, and with ``:\boxed`` or ``:####`` for an
answer inside a text. Of several, the first that a record has is taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from segattr.checks import require_word
from segattr.fields.answers import BOXED
from segattr.fields.names import FIELDS, Found, lookup, naming, root

Columns = tuple[str, ...]


@dataclass(frozen=True)
class Layout:
    """What the columns of a data set mean.

    Args:
        name: As in ``layout=``.
        fields: Columns of each field. Fields that decide about the text and are not named here are
            not looked for.
        columns: A record that has all of these is of this layout, when nothing is said; none: only
            when it is asked for.
        beside: Columns that would otherwise be read as something, and are not. Any other one makes
            a record another layout's.
        holds: A column and a text that it must hold, for the same purpose.
        verdicts: Lists that say which of several generations are correct; any of them may.
        whole: Lists that say which of them were not cut off.
    """

    name: str
    fields: Mapping[str, Columns]
    columns: Columns = ()
    beside: Columns = ()
    holds: tuple[str, str] | None = None
    verdicts: Columns = ()
    whole: Columns = ()

    def fits(self, record: Mapping[str, Any]) -> bool:
        """Whether a record is of this layout, by its columns."""
        if not self.columns or not all(lookup(record, name) is not None for name in self.columns):
            return False
        known = {root(name) for names in self.fields.values() for name in names}
        known |= {*map(root, self.columns), *self.beside}
        rivals = (name for field in RIVALS for name in FIELDS[field] if record.get(name))
        if any(name not in known for name in rivals):
            return False
        return self.holds is None or self.holds[1] in str(lookup(record, self.holds[0]))


CHAT = {"messages": ("messages", "conversations")}
ALWAYS = (
    *("system", "tools", "chat_template_kwargs", "id", "segments", "untrained", "marks"),
    "finish_reason",
)
RIVALS = ("question", "reasoning", "answer", "response", "messages")
PLAIN = Layout("plain", FIELDS)
NAMED = (
    Layout(
        "segattr",  # what segattr score wrote; segments are cut anew
        {name: (name,) for name in ("question", "reasoning", "answer", "response")}
        | {"segments": ()},
        columns=("schema", "digest", "input_ids", "question", "reasoning"),
        beside=("prompt",),
    ),
    Layout(
        "limo",
        {"question": ("question",), "reasoning": ("solution",), "answer": ("answer",)},
    ),
    Layout(
        "s1k-1.1",
        {
            "question": ("question",),
            "reasoning": ("deepseek_thinking_trajectory",),
            "response": ("deepseek_attempt",),
            "answer": ("answer", rf"solution:{BOXED}", "solution"),
        },
        columns=("question", "solution", "deepseek_thinking_trajectory"),
    ),
    Layout(
        "s1k",
        {
            "question": ("question",),
            "reasoning": ("thinking_trajectories",),
            "response": ("attempt",),
            "answer": ("answer", rf"solution:{BOXED}", "solution"),
        },
        columns=("question", "solution", "thinking_trajectories"),
    ),
    Layout(
        "openthoughts-metadata",
        {
            "question": ("problem",),
            "reasoning": ("deepseek_reasoning",),
            "response": ("deepseek_solution",),
            "answer": (rf"ground_truth_solution:{BOXED}", "ground_truth_solution"),
        },
        columns=("problem", "deepseek_reasoning", "deepseek_solution"),
    ),
    Layout(
        "openthoughts",  # Bespoke-Stratos has the same columns
        {**CHAT, "answer": (BOXED,)},
        columns=("system", "conversations"),
    ),
    Layout("bespoke-stratos", {**CHAT, "answer": (BOXED,)}),
    Layout(
        "openthoughts2",
        {**CHAT, "answer": (BOXED,)},
        columns=("question", "conversations", "source", "id"),
        beside=("question",),
    ),
    Layout(
        "openthoughts3",
        {**CHAT, "answer": (BOXED,)},
        columns=("conversations", "difficulty", "source", "domain"),
    ),
    Layout(
        "openr1-math",
        {"question": ("problem",), "response": ("generations",), "answer": ("answer",)},
        columns=("problem", "answer", "generations", "correctness_math_verify"),
        verdicts=("correctness_math_verify", "correctness_llama"),
        beside=("solution", "messages"),
        whole=("is_reasoning_complete", "finish_reasons"),
    ),
    Layout(
        "mixture-of-thoughts",
        {**CHAT, "answer": (BOXED,)},
        columns=("messages", "num_tokens", "source"),
    ),
    Layout(
        "openmathreasoning",
        {
            "question": ("problem",),
            "response": ("generated_solution",),
            "answer": ("expected_answer",),
        },
        columns=("problem", "generated_solution", "expected_answer"),
    ),
    Layout(
        "am-deepseek-r1",
        {**CHAT, "answer": ("messages[0].info.reference_answer",)},
        columns=("messages[0].info.reference_answer",),
    ),
    Layout(
        "numinamath-cot",  # MATH too
        {
            "question": ("problem",),
            "reasoning": ("solution",),
            "answer": (rf"solution:{BOXED}",),
            "messages": ("messages",),
        },
        columns=("problem", "solution"),
        holds=("solution", BOXED),
    ),
    Layout(
        "gsm8k",
        {"question": ("question",), "reasoning": ("answer",), "answer": ("answer:####",)},
        columns=("question", "answer"),
        holds=("answer", "\n####"),
    ),
    Layout(
        "chinese-deepseek-r1",
        {
            "question": ("input",),
            "reasoning": ("reasoning_content",),
            "response": ("content",),
            "answer": ("answer", rf"content:{BOXED}"),
        },
        columns=("input", "reasoning_content", "content"),
    ),
    Layout(
        "trl",
        {
            **{"question": ("prompt",), "response": ("completion",), "messages": ("messages",)},
            "answer": ("answer", "solution", "ground_truth", BOXED),
        },
    ),
    Layout(
        "alpaca",
        {
            **{"question": ("instruction",), "input": ("input",), "history": ("history",)},
            **{"response": ("output",), "answer": ("answer", BOXED)},
        },
        columns=("instruction", "output"),
    ),
    Layout("sharegpt", {"messages": ("conversations",), "answer": ("answer", BOXED)}),
    Layout(
        "verl",
        {
            "question": ("prompt",),
            "response": ("response", "responses", "output"),
            "answer": ("reward_model.ground_truth",),
        },
        columns=("prompt", "reward_model.ground_truth"),
    ),
)
LAYOUTS = ("auto", *(layout.name for layout in (PLAIN, *NAMED)))


def layout_of(record: Mapping[str, Any], name: str = "auto") -> Layout:
    """Return the layout of that name, or the one that a record's columns are known by.

    Raises:
        ValueError: If there is no such layout, or the record is known as two.
    """
    require_word("layout", name, LAYOUTS)
    if name != "auto":
        return next(layout for layout in (PLAIN, *NAMED) if layout.name == name)
    fitting = [layout for layout in NAMED if layout.fits(record)]
    if len(fitting) > 1:
        names = " and ".join(layout.name for layout in fitting)
        raise ValueError(
            f"layout must be said, got a record that fits {names}. Pass "
            f"layout={fitting[0].name!r} (--layout {fitting[0].name})."
        )
    return fitting[0] if fitting else PLAIN


def chosen(record: Mapping[str, Any], layout: Layout, column: str) -> Found:
    """Return the first of several generations that is correct and was not cut off.

    Raises:
        ValueError: If none is, or the lists are not of one length.
    """
    texts = record[root(column)]
    lists = {
        name: record[name]
        for name in (*layout.verdicts, *layout.whole)
        if isinstance(record.get(name), list) and record[name]
    }
    verdicts = [name for name in layout.verdicts if name in lists]
    if not isinstance(texts, list) or any(len(found) != len(texts) for found in lists.values()):
        raise ValueError(
            f"{column} must be a list with a verdict for each, got other lengths. Mend the record."
        )
    for index, text in enumerate(texts):
        correct = any(lists[name][index] is True for name in verdicts)
        whole = all(lists[name][index] not in (False, "length") for name in layout.whole
                    if name in lists)  # fmt: skip
        if correct and whole:
            return Found(text, f"{column}[{index}]")
    raise ValueError(
        f"{column} must have a correct and complete generation, got none of {len(texts)} by "
        f"{' and '.join(layout.verdicts)}. Drop this record, or choose one: "
        f"{naming('reasoning', f'{column}[0]')}"
    )
