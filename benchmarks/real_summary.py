"""Rows of one trace and candidate each, as `evidence_real.py` measures them, to rows of a table.

Axis: ``S`` segments.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from statistics import mean, median
from typing import Any

import numpy as np
from evidence_summary import ranking
from yardsticks import interval, ranks, spearman

FACTS, ANY = "facts", "any path"
GAMES = ("deletion", "blocked attention")
# Nats that the reasoning must add to log p(answer): of a trace that the model does not read, no
# score can be right.
READ = 1.0
Row = dict[str, Any]
Traces = dict[str, Row]  # of one kind and method, by their names


def summaries(rows: Iterable[Row]) -> Iterator[Row]:
    """Return a row for every trace, then one for every kind of trace, path and method."""
    kinds: dict[str, dict[str, Traces]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        kinds[row["kind"]][row["method"]][row["trace"]] = row
    facts = {
        model_of(kind): methods.pop(FACTS) for kind, methods in kinds.items() if FACTS in methods
    }
    for model, traces in facts.items():
        for name, row in traces.items():
            yield {"group": "real traces", "model": model, "trace": name, **described(row)}
    for kind, methods in kinds.items():
        games = kinds[f"{model_of(kind)}, {ANY}, -"]
        for source in dict.fromkeys(map(source_of, facts[model_of(kind)])):
            read = {
                name: row
                for name, row in facts[model_of(kind)].items()
                if source_of(name) == source and row["logprob"] - row["logprob_without"] > READ
            }
            for method, found in methods.items():
                common = {name: row for name, row in found.items() if name in read}
                if common:
                    row = summarise(common, read, {game: games[game] for game in GAMES})
                    yield {"group": "real", "kind": kind, "source": source, "method": method, **row}


def model_of(kind: str) -> str:
    return kind.split(", ")[0]


def source_of(name: str) -> str:
    return name.split(" ")[0]


def described(row: Row) -> Row:
    necessary = row["necessary"]
    return {
        "tokens": row["tokens"],
        "segments": len(row["lengths"]),
        "necessary": None if necessary is None else necessary.count(True),
        "logprob": row["logprob"],
        "without": row["logprob_without"],
    }


def summarise(found: Traces, facts: Traces, games: dict[str, Traces]) -> Row:
    """How one candidate did; means over the traces, but medians of cost and curves."""
    result: Row = {"traces": len(found)}
    for key in ("units", "seconds"):
        result[key] = median(row[key] for row in found.values())
    areas = [
        ranking(row["strength"], facts[name]["necessary"])
        for name, row in found.items()
        if facts[name]["necessary"] is not None
    ]
    result |= averaged("auroc", [area for area in areas if area is not None])
    for game, truth in games.items():
        pairs = [
            (row, np.abs(truth[name]["signed"]), facts[name])
            for name, row in found.items()
            if name in truth
        ]
        result |= averaged(game, [spearman(row["strength"], falls) for row, falls, _ in pairs])
        given = [partial(row["strength"], falls, controls(fact)) for row, falls, fact in pairs]
        result |= averaged(f"{game} given controls", given)
    labelled = {name: row for name, row in found.items() if facts[name]["importance"]}
    importance = [
        (row["strength"], facts[name]["importance"], controls(facts[name]))
        for name, row in labelled.items()
    ]
    result |= averaged("importance", [spearman(a, b) for a, b, _ in importance])
    result |= averaged("importance given controls", [partial(*row) for row in importance])
    result |= {key: curve(found, facts, key) for key in ("deleted", "kept")}
    return result


def averaged(name: str, values: Sequence[float]) -> Row:
    """The mean over the traces with its 95 % bootstrap interval, if there are any."""
    if not values:
        return {name: None, f"{name}_interval": None}
    return {name: mean(values), f"{name}_interval": interval(values)}


def controls(fact: Row) -> list[list[float]]:
    """What a segment's score may follow without being any good."""
    lengths = fact["lengths"]
    known = [list(range(len(lengths))), lengths]
    return known if fact["headroom"] is None else [*known, fact["headroom"]]


def partial(one: Sequence[float], other: Sequence[float], given: list[list[float]]) -> float:
    """Rank correlation of what is left of both when the ranks of others are accounted for."""
    columns = np.stack([np.ones(len(one)), *(ranks(values) for values in given)], 1)
    left = [
        values - columns @ np.linalg.lstsq(columns, values, rcond=None)[0]
        for values in (ranks(one), ranks(other))
    ]
    sizes = [np.linalg.norm(values) for values in left]
    tiny = 1e-9 * len(one) ** 1.5
    return float(left[0] @ left[1] / np.prod(sizes)) if min(sizes) > tiny else 0.0


def curve(found: Traces, facts: Traces, key: str) -> float:
    """The share of what the reasoning adds to F that is left, over all cuts, median trace."""
    shares = []
    for name, row in found.items():
        whole, none = facts[name]["logprob"], facts[name]["logprob_without"]
        shares.append(mean((logprob - none) / (whole - none) for logprob in row[key]))
    return median(shares)
