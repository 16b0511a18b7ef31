"""What the integrand of a real model looks like, and what rules make of it: `make evidence-real`.

python benchmarks/evidence_integrands.py [--only PATTERN] [--points N] [--labelled FOLDER] ...

Every path point is kept in FOLDER (.integrands); a run that was stopped goes on there. FILE.json
sums up what is there, and benchmarks/README.md has the tables.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from candidates import View
from integrand_facts import PUBLISHED_POINTS, Row, facts_of
from measured import Results
from real_traces import encoded, load_traces, make_ig
from stored_path import Points, StoredPath
from table_real import draw

from segattr.engine.ends import PathEnds
from segattr.engine.fused import FusedEngine
from segattr.ig.path import path_ends
from segattr.quadrature.refinement import Refinement, refine

HERE = Path(__file__).parent
STORE = HERE.parent / ".integrands"
LABELLED = HERE.parents[1] / "shared" / "traces" / "labelled"
SCOPES, BASELINES = ("reasoning", "all"), ("pad", "mean", "newline")


@dataclass(frozen=True)
class Case:
    """A model, what moves along its paths, and from where."""

    model: str
    scope: str
    baseline: str

    def __str__(self) -> str:
        return f"{self.model}, {self.scope}, {self.baseline}"


@contextmanager
def open_path(case: Case, name: str, store: Path, labelled: Path) -> Iterator[View]:
    """The path of the trace of this name, with all that is known of it."""
    ig = make_ig(case.model, case.scope, case.baseline)
    trace = encoded(case.model, load_traces(case.model, labelled)[name])
    with ig.lm.frozen():
        inputs, start = path_ends(ig.lm, trace, ig.baseline, ig.scope)
        ends = PathEnds.of(trace.input_ids, inputs, start, trace.target)
        ids = hashlib.sha256(trace.input_ids.numpy().tobytes()).hexdigest()[:12]
        what = f"{case}, {name}, tokens {ids}, weights {ig.lm.facts()['fingerprint']}"
        file = f"{case}, {name}.safetensors".replace(", ", "-").replace(" ", "_")
        points = Points(store / file, what)
        path = StoredPath(FusedEngine(ig.model, ends), ig.planner, len(trace.input_ids), points)
        yield View(ig, trace, ends, path)


def evaluate(
    case: Case, name: str, count: int, published: bool, refined: int, store: Path, labelled: Path
) -> str:
    """Evaluate equally spaced path points, those of the published code, and those of refinement."""
    torch.set_num_threads(1)
    with open_path(case, name, store, labelled) as view:
        view.path.evaluate(torch.linspace(0, 1, count, dtype=torch.float64))
        if published:
            view.path.evaluate(PUBLISHED_POINTS)
        if refined:
            refine(view.path.evaluate, lambda _: False, Refinement(refined))
    return f"{case}, {name}"


def known_about(case: Case, name: str, store: Path, labelled: Path) -> Iterator[Row]:
    """What the stored points of a path say."""
    with open_path(case, name, store, labelled) as view:
        for row in facts_of(view.path, view.encoded):
            yield {"group": row["group"], "kind": str(case), "trace": name, **row}


def make_parser(description: str, results: str) -> argparse.ArgumentParser:
    """Return a parser of what every run over the cases is asked."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--model", default="SmolLM2", help="or bundled")
    parser.add_argument("--only", default="", help="cases whose name has a match of this pattern")
    parser.add_argument("--store", type=Path, default=STORE)
    parser.add_argument("--labelled", type=Path, default=LABELLED)
    parser.add_argument("--results", type=Path, default=HERE / "results" / results)
    parser.add_argument("--workers", type=int, default=2)
    return parser


def main() -> None:
    parser = make_parser(__doc__, "integrands.json")
    parser.add_argument("--points", type=int, default=129, help="equally spaced, 2^n + 1; 0: none")
    parser.add_argument("--published", action="store_true", help="its 50 points, too")
    parser.add_argument("--refined", type=int, default=0, help="so many of refinement, too")
    arguments = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    arguments.store.mkdir(exist_ok=True)
    cases = [
        (case, name)
        for baseline in BASELINES
        for name in load_traces(arguments.model, arguments.labelled)
        for scope in SCOPES
        for case in [Case(arguments.model, scope, baseline)]
    ]
    folders = (arguments.store, arguments.labelled)
    if arguments.points:
        rest = (arguments.points, arguments.published, arguments.refined, *folders)
        with ProcessPoolExecutor(arguments.workers) as pool:
            wanted = [
                case for case in cases if re.search(arguments.only, ", ".join(map(str, case)))
            ]
            for future in as_completed([pool.submit(evaluate, *case, *rest) for case in wanted]):
                print(future.result(), file=sys.stderr, flush=True)
    results = Results(arguments.results)
    for case, name in cases:
        for row in known_about(case, name, *folders):
            results.add(row)
    paths = [row for row in results.content["runs"] if row["group"] == "integrands"]
    if paths:
        draw(paths, arguments.results.with_suffix(".png"))


if __name__ == "__main__":
    main()
