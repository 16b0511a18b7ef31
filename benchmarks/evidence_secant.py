"""Which rule scores segments best: finite propagation and Integrated Gradients by one yardstick.

python benchmarks/evidence_secant.py [--traces N] [--only PATTERN] [--methods PATTERN] ...

Fresh traces of the bundled model, whose necessary segments are known, and traces made up for a
real model (made_up_traces.jsonl). Everything measured is a line of FILE.jsonl, which FILE.json sums
up; a run that was stopped, or asked for less, goes on there. benchmarks/README.md has the tables.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import transformers
from evidence_methods import METHODS, Row, measure, tasks_of
from evidence_summary import YARDSTICKS, summaries
from evidence_traces import Kind
from measured import Results, describe_commit

HERE = Path(__file__).parent
EVERY = 20
SCOPES = ("reasoning", "all")
KINDS = [
    *(Kind("bundled", scope, "pad", 63, 24) for scope in SCOPES),
    *(Kind("bundled", scope, baseline, 24, 12) for baseline in ("mean", "eos") for scope in SCOPES),
    *(Kind("SmolLM2", scope, "pad", 16, 16) for scope in SCOPES),
    Kind("SmolLM2", "reasoning", "mean", 16, 16),
]
Task = tuple[Any, Any, tuple[str, ...]]  # kind and number of a trace, and names of methods


def read(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def measure_all(
    measure: Callable[[Task], list[Row]], tasks: list[Task], path: Path, workers: int
) -> None:
    """Append what is not in the file yet, in whatever order it is done."""
    done = {(row["kind"], row["trace"], row["method"]) for row in read(path)}
    tasks = [
        (kind, number, left)
        for kind, number, names in tasks
        if (left := tuple(name for name in names if (str(kind), number, name) not in done))
    ]
    commit = describe_commit()
    with ProcessPoolExecutor(workers) as pool, path.open("a") as file:
        futures = [pool.submit(measure, task) for task in tasks]
        for count, future in enumerate(as_completed(futures), start=1):
            lines = [json.dumps({"commit": commit, **row}) + "\n" for row in future.result()]
            file.write("".join(lines))
            file.flush()
            if count % EVERY == 0 or count == len(tasks):
                print(f"{count} of {len(tasks)}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--traces", type=int, default=10**6, help="at most so many of each kind")
    parser.add_argument("--only", default="", help="kinds whose name has a match of this pattern")
    parser.add_argument("--methods", default="", help="methods whose name has a match of this")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "secant.json")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    kinds = [kind for kind in KINDS if re.search(arguments.only, str(kind))]
    path = arguments.results.with_suffix(".jsonl")
    tasks = [
        (kind, number, names)
        for kind in kinds
        for number in range(min(kind.traces, arguments.traces))
        for names in tasks_of(kind, arguments.methods)
    ]
    measure_all(measure, tasks, path, arguments.workers)
    order = [*map(str, KINDS), YARDSTICKS, *METHODS].index
    rows = sorted(
        read(path), key=lambda row: (order(row["kind"]), order(row["method"]), row["trace"])
    )
    results = Results(arguments.results)
    results.content["commit"] = ", ".join(sorted({row["commit"] for row in rows}))
    for row in summaries(rows):
        results.add(row)


if __name__ == "__main__":
    main()
