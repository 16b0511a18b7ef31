"""Rows of one trace and method each, as `evidence_secant.py` measures them, to rows of a table.

Axes: ``S`` segments.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import chain
from statistics import mean, median
from typing import Any

import numpy as np
import torch
from yardsticks import interval, pearson, relative_error, spearman

from segattr import SegmentScorer
from segattr.demo.showcase import auroc
from segattr.scores import SegmentSums, jaccard

YARDSTICKS = "yardsticks"
REFERENCE = "IG, 129 points"
GAMES = ("Shapley", "leave one out", "deletion", "blocked attention")
# One piece, and what may say how far it can be trusted.
BARS = {
    "mean split, content split": ("secant, 1, mean", "secant, 1, content"),
    "1 piece, 2 pieces": ("secant, 1, mean", "secant, 2, mean"),
}
SCORER = SegmentScorer(tau=0.7, beta=1.0)
Row = dict[str, Any]
Traces = dict[int, Row]  # of one kind and method, by their number


def summaries(rows: Iterable[Row]) -> Iterator[Row]:
    """Return a row for every kind and method, then rows for the error bars of every kind."""
    kinds: dict[str, dict[str, Traces]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        kinds[row["kind"]][row["method"]][row["trace"]] = row
    for kind, methods in kinds.items():
        truth = methods.pop(YARDSTICKS)
        yield {"group": "secant traces", "kind": kind, **described(list(truth.values()))}
        for game in GAMES:
            methods[game] = {
                number: as_scores(row, game) for number, row in truth.items() if game in row
            }
        for method, found in methods.items():
            if found:
                row = summarise(found, truth, methods.get(REFERENCE, {}))
                yield {"group": "secant", "kind": kind, "method": method, **row}
    for kind, methods in kinds.items():
        for bar, (one, other) in BARS.items():
            if methods[one].keys() & methods[other].keys() & methods["Shapley"].keys():
                truth = methods["leave one out"]
                row = error_bar(methods[one], methods[other], methods["Shapley"], truth)
                yield {"group": "secant error bars", "kind": kind, "bar": bar, **row}


def described(rows: list[Row]) -> Row:
    """What the traces of a kind are like; medians, but for the least fall."""
    falls = [row["target_logprob"] - row["logprob_without_necessary"] for row in rows]
    errors = [
        np.linalg.norm(r["error"]) / np.linalg.norm(r["Shapley"]) for r in rows if "error" in r
    ]
    return {
        "traces": len(rows),
        "tokens": median(row["tokens"] for row in rows),
        "segments": median(len(row["lengths"]) for row in rows),
        "log_p": median(row["target_logprob"] for row in rows),
        "at_baseline": median(row["baseline_logprob"] for row in rows),
        "without_necessary": median(row["logprob_without_necessary"] for row in rows),
        "least_fall": min(falls),
        "Shapley_error,_%": 100 * float(median(errors)),
    }


def as_scores(row: Row, game: str) -> Row:
    """A yardstick judged as a method is; its segments have one score each."""
    values = torch.tensor(row[game], dtype=torch.float64)
    sums = SegmentSums(values, values.abs(), values.square(), torch.tensor(row["lengths"]))
    scores = SCORER.select(sums)
    return {
        "necessary": row["necessary"],
        "signed": row[game],
        "strength": scores.strength.tolist(),
        "important": scores.important.tolist(),
    }


def summarise(found: Traces, truth: Traces, reference: Traces) -> Row:
    """How one method did."""
    labels = {number: truth[number]["necessary"] for number in found}
    areas = [ranking(row["strength"], labels[number]) for number, row in found.items()]
    areas = [area for area in areas if area is not None]
    agreement = [
        jaccard(*(torch.tensor(one[number]["important"]) for one in (found, reference)))
        for number in found.keys() & reference.keys()
    ]
    result = {
        "traces": len(found),
        "auroc": mean(areas),
        "auroc_interval": interval(areas),
        **{
            f"{name}_{key}": share(found, labels, key, wanted)
            for key in ("important", "important_at_beta")
            for name, wanted in (("necessary", True), ("redundant", False))
        },
        "agreement": mean(agreement) if agreement else None,
        **correlations(found, truth),
    }
    for key in ("units", "seconds"):
        result[key] = median(row[key] for row in found.values()) if has(found, key) else None
    if has(found, "consistency"):
        result["necessary_consistency"] = median(labelled(found, labels, "consistency", True))
        result["incompleteness"] = median(
            abs(row["total"] - change(truth[number])) / abs(change(truth[number]))
            for number, row in found.items()
        )
    return result


def has(found: Traces, key: str) -> bool:
    return all(key in row for row in found.values())


def change(row: Row) -> float:
    return row["target_logprob"] - row["baseline_logprob"]


def ranking(strength: list[float], labels: list[bool | None]) -> float | None:
    return auroc(
        *(
            [value for value, label in zip(strength, labels, strict=True) if label is wanted]
            for wanted in (True, False)
        )
    )


def labelled(found: Traces, labels: dict[int, list], key: str, wanted: bool) -> list[Any]:
    """The values of all segments with this label, of all traces."""
    return [
        value
        for number, row in found.items()
        for value, label in zip(row[key], labels[number], strict=True)
        if label is wanted
    ]


def share(found: Traces, labels: dict[int, list], key: str, wanted: bool) -> float | None:
    return mean(labelled(found, labels, key, wanted)) if has(found, key) else None


def correlations(found: Traces, truth: Traces) -> Row:
    """With every yardstick, over the segments of a trace; means over the traces."""
    result: Row = {}
    for game in GAMES:
        pairs = [(row["signed"], truth[n][game]) for n, row in found.items() if game in truth[n]]
        if not pairs:
            continue
        values = [pearson(*pair) for pair in pairs]
        result[f"pearson {game}"] = mean(values)
        result[f"interval {game}"] = interval(values)
        result[f"spearman {game}"] = mean(spearman(*pair) for pair in pairs)
        result[f"error {game}"] = median(relative_error(*pair) for pair in pairs)
    return result


def error_bar(one: Traces, other: Traces, shapley: Traces, truth: Traces) -> Row:
    """Whether two variants that differ are wrong: by Shapley values, and by labels."""
    common = one.keys() & other.keys()
    both = [(one[n]["signed"], other[n]["signed"], shapley[n]["signed"])
            for n in sorted(common & shapley.keys())]  # fmt: skip
    bars = [relative_error(b, a) for a, b, _ in both]
    errors = [relative_error(a, s) for a, _, s in both]
    within = [
        spearman(np.abs(np.subtract(a, b)).tolist(), np.abs(np.subtract(a, s)).tolist())
        for a, b, s in both
    ]
    result = {
        "traces": len(both),
        "median_bar": median(bars),
        "median_error": median(errors),
        "between_traces": spearman(bars, errors),
        "within_traces": mean(within),
        "within_traces_interval": interval(within),
    }
    return result | misjudged({n: one[n] for n in common}, other, truth)


def misjudged(one: Traces, other: Traces, truth: Traces) -> Row:
    """Whether strengths differ more where a labelled segment is on the wrong side."""
    gaps: dict[bool, list[float]] = {True: [], False: []}
    for number, row in one.items():
        columns = (row["strength"], other[number]["strength"], row["important"])
        for a, b, important, label in zip(*columns, truth[number]["necessary"], strict=True):
            if label is not None:
                gaps[important != label].append(abs(a - b))
    return {
        "segments": len(list(chain(*gaps.values()))),
        "misjudged": len(gaps[True]),
        "misjudged_auroc": auroc(gaps[True], gaps[False]),
    }
