"""Tables of what finite propagation is worth; `table.py` says what their columns mean."""

from __future__ import annotations

from collections.abc import Sequence

from markdown_rows import Row, group_by, markdown

DEFAULT = "secant, 1, mean"
OTHERS = ("leave one out", "deletion", "blocked attention")
COLUMNS = (
    "method | cost | s | AUROC | necessary | redundant | consistency | at 0.8 | r Shapley "
    "| rank r | error | r leave one out | r deletion | r blocked | as IG"
)


def secant_table(rows: list[Row]) -> str:
    """One table a model, scope and baseline."""
    text = ""
    for (kind,), of_kind in group_by(rows, "kind").items():
        judged = next(row["traces"] for row in of_kind if row["method"] == "Shapley")
        traces = max(row["traces"] for row in of_kind)
        text += f"\n**{kind}**, {traces} traces, {judged} with Shapley values\n\n"
        text += markdown(COLUMNS, map(cells, of_kind))
    return text


def cells(row: Row) -> list[str]:
    method = row["method"]
    return [
        f"**{method}**" if method == DEFAULT else method,
        number(row["units"], ".0f"),
        number(row["seconds"], ".2f"),
        with_interval(row["auroc"], row["auroc_interval"], ".3f"),
        number(row["necessary_important"], ".0%"),
        number(row["redundant_important"], ".0%"),
        number(row.get("necessary_consistency"), ".2f"),
        number(row["necessary_important_at_beta"], ".0%"),
        with_interval(row["pearson Shapley"], row["interval Shapley"], ".2f"),
        number(row["spearman Shapley"], ".2f"),
        number(row["error Shapley"], ".2f"),
        *(number(row[f"pearson {game}"], ".2f") for game in OTHERS),
        number(row["agreement"], ".2f"),
    ]


def error_bars_table(rows: list[Row]) -> str:
    lines = [
        [
            f"{row['kind']}: {row['bar']}",
            str(row["traces"]),
            f"{row['median_bar']:.2f}",
            f"{row['median_error']:.2f}",
            f"{row['between_traces']:.2f}",
            with_interval(row["within_traces"], row["within_traces_interval"], ".2f"),
            f"{row['misjudged']} of {row['segments']}",
            number(row["misjudged_auroc"], ".2f"),
        ]
        for row in rows
    ]
    return "\n" + markdown(
        "bar | traces | bar, median | error, median | between traces | within traces | misjudged "
        "| AUROC",
        lines,
    )


def number(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"


def with_interval(value: float, interval: Sequence[float], form: str) -> str:
    low, high = interval
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"
