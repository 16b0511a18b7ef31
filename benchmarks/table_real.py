"""Tables and the picture of a real model's paths and scores, and what their columns mean."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import mean, median

from markdown_rows import Row, group_by, markdown
from table_secant import number, with_interval

EXPLAINED = """
Of paths of a real model (`evidence_integrands.py`), SmolLM2-135M-Instruct in float32:

- *log p*: of the answer, at the baseline and with the trace. *variation*: how far F goes up and
  down in all, over its change. *half at*: where it has made half of that way. *idle*: the
  stretches of the path where it makes the last tenth of its way; their share of the path, and of
  the integral of \\|v\\|_1, v the tokens' integrands. *peak*: largest \\|v\\|_1, over that at the
  input, and where.
- The truth of *token error* (relative L2) and *kept* (Jaccard index; tau 0.7, beta 0.8) is the
  integral of the monotone cubic through all points known of a path: 129 equally spaced ones or
  more, those of the published code and those of refinement. It is no better than its own gap.
  *gap*: completeness gap. Medians and worst traces; *kept*: means.
- *auto*: by the agreement asked for and the limit on points; *converged*: on how many traces it
  says so. *real*, *expected*: Jaccard index of its kept segments with the truth's, and what it
  expects that to be. *inside*: share of the tokens whose error is within the estimated one.

Of scores of a real model (`evidence_real.py`), on traces that it reads (the reasoning adds at
least 1 nat to log p of the answer), means over the traces with 95 % bootstrap intervals:

- *cost*: forward passes, 3 a path point, 3 a piece and 1 a piece's end; one a segment for what
  takes segments out. *s*: seconds, one thread of a busy machine.
- *AUROC*: how often a necessary segment is stronger than one that is not.
- *deletion*, *blocked*: rank correlation of the strengths with how far log p of the answer moves
  when a segment is taken out of the text, or when no later token can attend to it. *given*: of
  what is left of both ranks when position and length (and headroom, where it is known) are
  accounted for. *importance*: the same with what resampling a sentence changes for the model that
  wrote the trace.
- *left*: share of what the reasoning adds to log p that is left when the strongest quarter and
  half of the segments is deleted, mean of both, median trace; lower is better. *alone*: when it
  alone stays; higher is better.
- *position* (later is stronger) and *length* are controls.
"""
DEFAULT = "secant, 1, mean"


def traces_table(rows: list[Row]) -> str:
    lines = [
        [
            row["trace"],
            str(row["tokens"]),
            str(row["segments"]),
            number(row["necessary"], "d"),
            f"{row['without']:.2f}",
            f"{row['logprob']:.2f}",
        ]
        for row in rows
    ]
    return "\n" + markdown("trace | tokens | segments | necessary | log p without | with", lines)


def integrands_table(rows: list[Row]) -> str:
    text = ""
    for (kind,), of_kind in group_by(rows, "kind").items():
        lines = [
            [
                row["trace"],
                f"{row['tokens']:,}",
                str(row["points"]),
                f"{row['baseline_logprob']:.1f}",
                f"{row['target_logprob']:.1f}",
                f"{row['variation']:.1f}",
                f"{row['moved_half_at']:.2f}",
                f"{row['idle_path']:.0%}",
                f"{row['idle_size']:.0%}",
                f"{row['peak']:.1f}",
                f"{row['peak_at']:.2f}",
            ]
            for row in of_kind
        ]
        text += f"\n**{kind}**\n\n" + markdown(
            "trace | tokens | points | log p at baseline | with | variation | half at | idle path "
            "| idle \\|v\\|_1 | peak | at",
            lines,
        )
    return text


def by_kind(
    head: str, keys: tuple[str, ...], cells: Callable[[tuple, list[Row]], Iterable[str]]
) -> Callable[[list[Row]], str]:
    """One table a kind of path, one line for each value of some keys."""

    def table(rows: list[Row]) -> str:
        text = ""
        for (kind,), of_kind in group_by(rows, "kind").items():
            lines = [cells(values, group) for values, group in group_by(of_kind, *keys).items()]
            traces = len({row["trace"] for row in of_kind})
            text += f"\n**{kind}**, {traces} traces\n\n" + markdown(head, lines)
        return text

    return table


def middle_and_worst(rows: list[Row], key: str, form: str) -> list[str]:
    values = [row[key] for row in rows]
    return [f"{median(values):{form}}", f"{max(values):{form}}"]


def rules_cells(values: tuple, rows: list[Row]) -> Iterable[str]:
    rule, points = values
    agreements = [row["kept"] for row in rows]
    yield "**linspace, as published**" if values == ("linspace", 50) else rule
    yield from (str(points), str(len(rows)))
    yield from middle_and_worst(rows, "gap", ".1%")
    yield from middle_and_worst(rows, "token_error", ".1%")
    yield from (f"{mean(agreements):.2f}", f"{min(agreements):.2f}")


def auto_cells(values: tuple, rows: list[Row]) -> Iterable[str]:
    agreement, limit = values
    sure = [row["kept"] for row in rows if row["converged"]]
    yield f"agreement {agreement:g}, at most {limit} points"
    yield f"{median(row['evaluations'] for row in rows):g}"
    yield f"{len(sure)} of {len(rows)}"
    yield from middle_and_worst(rows, "gap", ".1%")
    yield f"{mean(row['kept'] for row in rows):.2f}"
    yield f"{mean(sure):.2f}" if sure else ""
    yield f"{min(sure):.2f}" if sure else ""


def errors_cells(values: tuple, rows: list[Row]) -> Iterable[str]:
    yield str(*values)
    yield f"{mean(row['plausible'] for row in rows):.0%}"
    yield f"{mean(row['inside'] for row in rows):.0%}"
    for key in ("estimated_error", "real_error"):
        yield f"{median(row[key] for row in rows):.1%}"
    for key in ("expected_agreement", "real_agreement"):
        yield f"{mean(row[key] for row in rows):.2f}"


rules_table = by_kind(
    "rule | points | traces | gap | worst | token error | worst | kept | worst",
    ("rule", "evaluations"),
    rules_cells,
)
auto_table = by_kind(
    "auto | points | converged | gap | worst | kept | kept if converged | worst",
    ("agreement", "limit"),
    auto_cells,
)
errors_table = by_kind(
    "points | plausible | inside | estimated error | real | expected agreement | real",
    ("evaluations",),
    errors_cells,
)


def scores_table(rows: list[Row]) -> str:
    """One table a kind of path and of traces."""
    text = ""
    for (kind, source), of_kind in group_by(rows, "kind", "source").items():
        traces = max(row["traces"] for row in of_kind)
        text += f"\n**{kind}; {source}**, {traces} traces\n\n" + markdown(
            "method | traces | cost | s | AUROC | deletion | given | blocked | given | importance "
            "| given | left | alone",
            map(scores_cells, of_kind),
        )
    return text


def scores_cells(row: Row) -> Iterable[str]:
    method = row["method"]
    yield f"**{method}**" if method == DEFAULT else method
    yield from (str(row["traces"]), f"{row['units']:g}", f"{row['seconds']:.1f}")
    for key in ("auroc", "deletion", "deletion given controls", "blocked attention",
                "blocked attention given controls", "importance",
                "importance given controls"):  # fmt: skip
        value = row[key]
        yield "" if value is None else with_interval(value, row[f"{key}_interval"], ".2f")
    yield from (f"{row['deleted']:.2f}", f"{row['kept']:.2f}")


def draw(rows: list[Row], path: Path) -> None:
    """F and the size of the integrand along the path, a line a trace."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    kinds = group_by(rows, "kind")
    figure, axes = plt.subplots(2, len(kinds), figsize=(3.2 * len(kinds), 5.2), squeeze=False)
    for ((kind,), of_kind), (upper, lower) in zip(kinds.items(), axes.T, strict=True):
        for row in of_kind:
            alphas = [index / (row["points"] - 1) for index in range(row["points"])]
            upper.plot(alphas, row["logprobs"], lw=0.9, alpha=0.8)
            lower.plot(alphas, row["sizes"], lw=0.9, alpha=0.8)
        upper.set_title(kind.removeprefix("SmolLM2, "))
        lower.set(yscale="log", xlabel="alpha")
        for axis in (upper, lower):
            axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel("F, nats")
    axes[1, 0].set_ylabel("|v|_1, nats")
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": None})
