"""Tables of what rounding makes of gradients, and what their columns mean."""

from __future__ import annotations

from markdown_rows import Row, markdown

EXPLAINED = """
Of noise (`evidence_noise.py`), by a path's points in a dtype and with the same weights in float64
(float32 for 16 bits of the real model); medians over the traces, in units of the dtype's eps where
nothing else is said:

- *point*, *worst*: L2 error of the tokens' integrands at a point, over their norm; median and worst
  point. *path*: the same of all points together. *common*, *own*, *floor*: its parts as
  `segattr.quadrature.noise.Noise` has them, as the standard deviations of most points. *F*, *worst
  F*: RMS and largest error of F, over its largest size.
- *beside*, *next*: cosine of the errors of points 1/512 apart, and of neighbours.
- *integral*, *worst integral*: relative L2 error of all points' trapezoids against the same rule;
  *if independent*: what the points' errors would make of it if they had nothing to do with each
  other; *said*: what `segattr.ig.rounding` says of it. *kept*: Jaccard index of the kept segments,
  mean.

Of `rule="auto"` in 16 bits, whose segments may be off by 2 %, against float64, whose may by 0.1 %:
*stopped*, on how many traces rounding stopped it; *error*, *claimed*: relative L2 error of the
token scores, and what it claims, medians; *covered*: share of the segments' strengths within their
claimed errors; *unknown*: the same of a rule that does not know of noise.
"""


def noise_table(rows: list[Row]) -> str:
    lines = [
        [
            f"{row['model']}, {row['scope']}: {row['dtype']}",
            f"{row['traces']} x {row['points']}",
            *(f"{row[key]:.1f}" for key in ("error", "worst_error", "weighted_error")),
            *(f"{row[key]:.1f}" for key in ("common", "own", "floor", "of_F", "worst_of_F")),
            *(f"{row[key]:.2f}" for key in ("beside", "next")),
            *(f"{row[key]:.1e}" for key in ("integral_error", "worst_integral_error")),
            *(f"{row[key]:.1e}" for key in ("if_independent", "said")),
            f"{row['kept']:.3f}",
        ]
        for row in rows
    ]
    return "\n" + markdown(
        "model | traces x points | point | worst | path | common | own | floor | F | worst F "
        "| beside | next | integral | worst integral | if independent | said | kept",
        lines,
    )


def noisy_auto_table(rows: list[Row]) -> str:
    lines = [
        [
            f"{row['model']}, {row['scope']}: {row['dtype']}" + ", unknown" * (not row["known"]),
            f"{row['evaluations']:.1f}",
            f"{row['stopped']} of {row['traces']}",
            *(f"{row[key]:.1%}" for key in ("error", "claimed")),
            f"{row['covered']:.0%}",
        ]
        for row in rows
    ]
    return "\n" + markdown("model | points | stopped | error | claimed | covered", lines)
