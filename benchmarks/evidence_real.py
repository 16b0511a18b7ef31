"""Which way to score segments to recommend on a real model: `make evidence-real` runs this file.

python benchmarks/evidence_real.py [--only PATTERN] [--methods PATTERN] [--labelled FOLDER] ...

Every candidate (candidates.py) on every trace (real_traces.py), and what it is judged by: what the
answer loses when a segment is deleted, or blocked from attention (two candidates themselves); what
others found out about the segments; how far the answer falls when the strongest segments go, and
how much of it they keep.
Everything measured is a line of FILE.jsonl, which FILE.json sums up; a run that was stopped, or
asked for less, goes on there. benchmarks/README.md has the tables.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from candidates import CANDIDATES, View
from evidence_integrands import BASELINES, SCOPES, Case, make_parser, open_path
from evidence_secant import measure_all, read
from evidence_traces import SCORER
from measured import Results
from real_summary import ANY, FACTS, summaries
from real_traces import RealTrace, load_traces
from torch import Tensor
from yardsticks import logprob_without

# How many of the strongest segments go, or stay alone, as shares.
CUTS = (0.25, 0.5)
Row = dict[str, Any]
Task = tuple[Case, str, tuple[str, ...]]


def measure(task: Task, store: Path, labelled: Path) -> list[Row]:
    """Some candidates, or what is known of the trace, on one trace."""
    torch.set_num_threads(1)
    case, name, methods = task
    path = Case(case.model, SCOPES[0], BASELINES[0]) if case.scope == ANY else case
    trace = load_traces(case.model, labelled)[name]
    with open_path(path, name, store, labelled) as view:
        return [
            {"kind": str(case), "trace": name, "method": method,
             **(known(view, trace) if method == FACTS else attempt(view, method))}
            for method in methods
        ]  # fmt: skip


def known(view: View, trace: RealTrace) -> Row:
    """What is known of a trace beside its scores."""
    encoded = view.encoded
    everything = range(len(encoded.segments))
    whole, none = (float(logprob_without(view.ig, encoded, left)) for left in ((), everything))
    return {
        "necessary": trace.necessary,
        "importance": trace.importance,
        "headroom": trace.headroom,
        "lengths": [stop - start for start, stop in encoded.segments],
        "tokens": len(encoded.input_ids),
        "logprob": whole,
        "logprob_without": none,
    }


def attempt(view: View, method: str) -> Row:
    """A candidate's segment scores, and what the strongest segments are worth."""
    candidate = CANDIDATES[method]
    begin, asked, known = time.perf_counter(), view.path.evaluations, view.path.points.seconds
    tokens = candidate.score(view)
    # Whoever comes first must not pay for the points that others use too.
    seconds = time.perf_counter() - begin - (view.path.points.seconds - known)
    seconds += view.path.points.seconds_for(view.path.evaluations - asked)
    scores = SCORER.score_tokens(tokens, view.encoded.segments)
    return {
        "units": len(view.encoded.segments) if candidate.units is None else candidate.units,
        "seconds": seconds,
        "total": float(tokens.sum()),
        "signed": [float(tokens[start:stop].sum()) for start, stop in view.encoded.segments],
        "strength": scores.strength.tolist(),
        "consistency": scores.consistency.tolist(),
        "important": scores.important.tolist(),
        **curves(view, scores.strength),
    }


def curves(view: View, strength: Tensor) -> Row:
    """F when the strongest segments are deleted, and when they alone are left, cut by cut."""
    order = strength.argsort(descending=True, stable=True).tolist()
    counts = [max(1, round(cut * len(order))) for cut in CUTS]
    return {
        name: [float(logprob_without(view.ig, view.encoded, left(count))) for count in counts]
        for name, left in (
            ("deleted", lambda count: order[:count]),
            ("kept", lambda count: order[count:]),
        )
    }


def tasks_of(model: str, labelled: Path, only: str, wanted: str) -> Iterator[Task]:
    """Return what is to be measured, a task each: they take from a second to many minutes."""
    cases = [Case(model, scope, baseline) for baseline in BASELINES for scope in SCOPES]
    for name in load_traces(model, labelled):
        for case in (Case(model, ANY, "-"), *cases):
            pathless = case.scope == ANY
            names = [method for method, one in CANDIDATES.items() if one.pathless == pathless]
            for method in [FACTS] * pathless + names:
                if re.search(only, f"{case}, {name}") and re.search(wanted, method):
                    yield case, name, (method,)


def main() -> None:
    parser = make_parser(__doc__, "real.json")
    parser.add_argument("--methods", default="", help="methods whose name has a match of this")
    arguments = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    arguments.store.mkdir(exist_ok=True)
    tasks = list(tasks_of(arguments.model, arguments.labelled, arguments.only, arguments.methods))
    path = arguments.results.with_suffix(".jsonl")
    folders = {"store": arguments.store, "labelled": arguments.labelled}
    measure_all(partial(measure, **folders), tasks, path, arguments.workers)
    results = Results(arguments.results)
    rows = read(path)
    results.content["commit"] = ", ".join(sorted({row["commit"] for row in rows}))
    for row in summaries(rows):
        results.add(row)


if __name__ == "__main__":
    main()
