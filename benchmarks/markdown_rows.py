"""Rows of results, grouped, and as tables in Markdown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from statistics import median
from typing import Any

Row = dict[str, Any]


def group_by(rows: Iterable[Row], *keys: str) -> dict[tuple, list[Row]]:
    groups: dict[tuple, list[Row]] = defaultdict(list)
    for row in rows:
        groups[tuple(row.get(key) for key in keys)].append(row)
    return groups


def mid(rows: list[Row], key: str) -> float:
    return median(row[key] for row in rows)


def markdown(head: str, lines: Iterable[Iterable[str]]) -> str:
    columns = head.split(" | ")
    ruler = ["---"] + ["---:"] * (len(columns) - 1)
    return "\n".join("| " + " | ".join(line) + " |" for line in (columns, ruler, *lines)) + "\n"
