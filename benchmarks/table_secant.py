"""Tables of what finite propagation is worth, and what their columns mean."""

from __future__ import annotations

from collections.abc import Sequence

from markdown_rows import Row, group_by, markdown

EXPLAINED = """
Of finite propagation (`evidence_secant.py`), on fresh traces of the bundled model (float64) and
made-up ones of SmolLM2-135M-Instruct (float32); `[low, high]` are 95 % bootstrap intervals over
the traces:

- *log p*: of the answer, with the whole trace, at the baseline, and with the necessary segments
  taken out; medians, and the least fall of a trace. *Shapley error*: standard error of the
  sampling, median. Steps that a later one repeats count as neither necessary nor redundant.
- *secant, 2, mean*: two pieces, split "mean". The package has the splits mean and content;
  `secant_splits.py` has chord (every op's Jacobian averaged along its chord) and sdpa (attention's
  only). *IG, 129 points*: trapezoids between equally spaced points; 16 points are midpoints.
  *gradient x input*: the integrand at the input.
- *Shapley*: Shapley values of the segments (with scope "all", all else that moves is one more
  player), by all coalitions of up to 8 players, by 64 permutations, half of them the others'
  reverse, of more. *leave one out*: F falls so much when a segment alone is put at the baseline.
  *deletion*: when it is taken out of the text. *blocked attention*: when no later token can attend
  to it, positions staying. All four are also judged as if they were methods.
- *cost*: forward passes, 3 a path point, 2 a sweep of secants (whose quadrature chord and sdpa
  pay on top); *s*: median time of a trace on one thread of a busy machine.
  *gap*: by how much the token scores miss the change of F, median. *traces*: of the method; the
  cheap ones ran on more.
- *AUROC*: how often a necessary segment is stronger than a redundant one, mean over the traces;
  *necessary*, *redundant*: share of these segments that is important at tau 0.7, beta 1 (so
  without the ends, which are kept whatever they are); *consistency*: median of the necessary ones;
  *at 0.8*: share of them that is important with the paper's beta.
- *r*: correlation of the segments' signed sums with the yardstick's values, *rank r* of their
  ranks, means over the traces; *error*: relative L2 error, median. *as IG*: Jaccard index of the
  important segments with those of 129 points.
- *error bars*: whether two variants that differ (*bar*, relative to the first) are wrong (*error*,
  of the first against Shapley values). *between traces*: rank correlation of both; *within
  traces*: the same over the segments of a trace, mean; *misjudged*: labelled segments on the wrong
  side of tau, and how often the bar of one is larger than that of another (AUROC).

Of its precision (`evidence_precision.py`): *gap*, completeness gap; *token error*, relative L2
error against float64 with the same weights, median and worst trace; *of a gradient*, the same of
the integrand at the input; *kept*, Jaccard index of the kept segments with those of float64, mean.
"""
DEFAULT = "secant, 1, mean"
OTHERS = ("leave one out", "deletion", "blocked attention")
COLUMNS = (
    "method | traces | cost | s | gap | AUROC | necessary | redundant | consistency | at 0.8 "
    "| r Shapley | rank r | error | r leave one out | r deletion | r blocked | as IG"
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
        str(row["traces"]),
        number(row["units"], ".0f"),
        number(row["seconds"], ".2f"),
        number(row.get("incompleteness"), ".1%"),
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


def precision_table(rows: list[Row]) -> str:
    lines = [
        [
            f"{row['model']}, {row['scope']}: {row['dtype']}",
            str(row["traces"]),
            *(f"{row[f'{kind}_gap']:.1e}" for kind in ("median", "worst")),
            *(f"{row[f'{kind}_error']:.1e}" for kind in ("median", "worst")),
            f"{row['median_gradient_error']:.1e}",
            f"{row['mean_kept']:.3f}",
        ]
        for row in rows
    ]
    return "\n" + markdown(
        "model | traces | gap | worst | token error | worst | of a gradient | kept", lines
    )
