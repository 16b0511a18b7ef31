"""Which rule scores segments best: finite propagation and Integrated Gradients by one yardstick.

python benchmarks/evidence_secant.py [--traces N] [--only PATTERN] [--results FILE.json] ...

Fresh traces of the bundled model, whose necessary segments are known, and traces made up for a
real model (made_up_traces.jsonl). Everything measured is a line of FILE.jsonl; a run that was
stopped goes on there. benchmarks/README.md has the tables.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import random
import re
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import torch
import transformers
from evidence_summary import REFERENCE, YARDSTICKS, summaries
from measured import Results, describe_commit
from secant_splits import Chord, Sdpa, token_scores
from torch import Tensor
from yardsticks import Coalitions, blocked, deletions, logprob_without, shapley

from segattr import EncodedTrace, FastIG, SegmentScorer, Trace, encode
from segattr.demo import load_demo
from segattr.demo.accuracy import answers_correctly
from segattr.demo.world import LEVELS, NECESSARY, REDUNDANT, sample
from segattr.engine.ends import PathEnds
from segattr.engine.fused import FusedEngine
from segattr.engine.secant import Secants
from segattr.ig.path import Path, path_ends
from segattr.quadrature.fixed import nodes_and_weights

HERE = pathlib.Path(__file__).parent
MADE_UP = HERE / "made_up_traces.jsonl"
SCOPES = ("reasoning", "all")
SEED, FINEST = 2026, 129
PERMUTATIONS = 64
SPLITS: dict[str, Callable[[Any], Secants]] = {
    "mean": lambda forward: Secants(forward, "mean"),
    "content": lambda forward: Secants(forward, "content"),
    "chord": Chord,
    "sdpa": Sdpa,
}
PIECES = {"mean": (1, 2, 4, 12), "content": (1, 2, 4, 12), "chord": (1, 2, 4), "sdpa": (1, 2, 4)}
GRADIENTS = (REFERENCE, "IG, auto", "IG, 16 points", "gradient x input")
METHODS = [
    *GRADIENTS,
    *(f"secant, {count}, {split}" for split, counts in PIECES.items() for count in counts),
]
SCORER, PAPER = SegmentScorer(tau=0.7, beta=1.0), SegmentScorer(tau=0.7, beta=0.8)
Row = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """A model, what moves along the path and from where, and how many traces.

    Args:
        model: ``"bundled"``, in float64, or ``"SmolLM2"``, in float32.
        scope: As in `FastIG`.
        baseline: As in `FastIG`, or ``"eos"``.
        traces: How many.
        judged: How many of these, the first ones, have Shapley values.
    """

    model: str
    scope: str
    baseline: str
    traces: int
    judged: int

    def __str__(self) -> str:
        return f"{self.model}, {self.scope}, {self.baseline}"

    def tasks(self) -> Iterator[str]:
        """What is measured on a trace; on a real model, of most splits two pieces at most."""
        yield from (YARDSTICKS, REFERENCE)
        for split, counts in PIECES.items():
            most = 12 if self.model == "bundled" or split == "mean" else 2
            yield from (f"secant, {count}, {split}" for count in counts if count <= most)


KINDS = [
    *(Kind("bundled", scope, "pad", 63, 24) for scope in SCOPES),
    *(Kind("bundled", scope, baseline, 24, 12) for baseline in ("mean", "eos") for scope in SCOPES),
    *(Kind("SmolLM2", scope, "pad", 16, 16) for scope in SCOPES),
    Kind("SmolLM2", "reasoning", "mean", 16, 16),
]


@cache
def load(name: str) -> tuple[Any, Any]:
    if name == "bundled":
        model, tokenizer = load_demo()
        return model.double(), tokenizer
    from real_model import load_real  # only where `make real-model` has run

    return load_real()


@cache
def make_ig(kind: Kind) -> FastIG:
    model, tokenizer = load(kind.model)
    baseline = tokenizer.eos_token_id if kind.baseline == "eos" else kind.baseline
    return FastIG(model, tokenizer, baseline=baseline, scope=kind.scope, scorer=SCORER)


@lru_cache(maxsize=8)
def make_trace(model: str, number: int) -> tuple[EncodedTrace, list[bool | None]]:
    """The trace of this number, and which segments are necessary; None: neither that nor idle."""
    if model != "bundled":
        record = json.loads(MADE_UP.read_text().splitlines()[number])
        encoded = encode(Trace.from_record(record), load(model)[1])
        return encoded, record["metadata"]["necessary"]
    rng = random.Random(f"{SEED} {number}")
    while True:
        fresh = sample(rng, list(LEVELS.values())[number % len(LEVELS)])
        segments = [segment.text for segment in fresh.segments]
        trace = Trace(fresh.question, fresh.reasoning, fresh.answer, segments=segments)
        encoded = encode(trace, load(model)[1])
        if answers_correctly(load(model)[0], encoded):
            break
    known = dict.fromkeys(NECESSARY, True) | dict.fromkeys(REDUNDANT, False)
    return encoded, [known.get(kind) for kind in fresh.kinds]


def measure(task: tuple[Kind, int, str]) -> list[Row]:
    """One method, all that need gradients, or the yardsticks, on one trace."""
    torch.set_num_threads(1)
    kind, number, method = task
    encoded, necessary = make_trace(kind.model, number)
    if method == YARDSTICKS:
        found = [(YARDSTICKS, judge(kind, encoded, necessary, number < kind.judged))]
    elif method == REFERENCE:
        found = list(gradients(kind, encoded))
    else:
        found = [(method, differences(kind, encoded, method))]
    return [{"kind": str(kind), "trace": number, "method": name, **row} for name, row in found]


def judge(kind: Kind, encoded: EncodedTrace, necessary: list[bool | None], fully: bool) -> Row:
    """What a trace's scores are judged by."""
    ig = make_ig(kind)
    coalitions = Coalitions(ig, encoded)
    whole, none = coalitions.worth(torch.tensor([[True], [False]]).expand(-1, coalitions.count))
    needed = [number for number, is_needed in enumerate(necessary) if is_needed]
    found = {
        "leave one out": coalitions.without_each(),
        "deletion": deletions(ig, encoded),
        "blocked attention": blocked(ig, encoded),
    }
    if fully:
        count = coalitions.count
        found["Shapley"], found["error"] = shapley(coalitions.worth, count, PERMUTATIONS)
    return {
        **{name: values.tolist()[: len(necessary)] for name, values in found.items()},
        "necessary": necessary,
        "lengths": [stop - start for start, stop in encoded.segments],
        "tokens": len(encoded.input_ids),
        "target_logprob": float(whole),
        "baseline_logprob": float(none),
        "logprob_without_necessary": float(logprob_without(ig, encoded, needed)),
    }


class Remembered(Path):
    """A path whose points cost something once; every point of the rules is one of 129."""

    known: dict[float, tuple[Tensor, Tensor]]
    asked: set[float]

    def evaluate(self, alphas: Tensor) -> tuple[Tensor, Tensor]:
        if missing := [alpha for alpha in alphas.tolist() if alpha not in self.known]:
            found = super().evaluate(torch.tensor(missing, dtype=torch.float64))
            self.known |= zip(missing, zip(*found, strict=True), strict=True)
        self.asked |= set(alphas.tolist())
        logprobs, values = zip(*(self.known[alpha] for alpha in alphas.tolist()), strict=True)
        return torch.stack(logprobs), torch.stack(values)


def gradients(kind: Kind, encoded: EncodedTrace) -> Iterator[tuple[str, Row]]:
    """What needs gradients, at a cost of 3 forward passes a path point."""
    ig = make_ig(kind)
    with ig.lm.frozen():
        path = Remembered(make_engine(ig, encoded), ig.planner, len(encoded.input_ids))
        path.known, path.asked = {}, set()
        begin = time.perf_counter()
        path.evaluate(torch.linspace(0, 1, FINEST, dtype=torch.float64))
        seconds = (time.perf_counter() - begin) / FINEST
        rules: dict[str, Callable[[], Tensor]] = {
            REFERENCE: lambda: weighted(path, "trapezoid", FINEST),
            "IG, auto": lambda: ig.rule.integrate(path, encoded.segments).token_scores,
            "IG, 16 points": lambda: weighted(path, "midpoint", 16),
            "gradient x input": lambda: path.evaluate(torch.ones(1).double())[1][0],
        }
        for name, rule in rules.items():
            path.asked.clear()
            row = scored(rule(), encoded)
            points = len(path.asked)
            yield name, {"units": 3 * points, "seconds": seconds * points, **row}


def weighted(path: Path, rule: str, points: int) -> Tensor:
    alphas, weights = nodes_and_weights(rule, points)
    return weights @ path.evaluate(alphas)[1].double()


def differences(kind: Kind, encoded: EncodedTrace, method: str) -> Row:
    """Secants; a piece costs a forward pass and a sweep of 2, and its end a forward pass."""
    _, count, split = method.split(", ")
    ig = make_ig(kind)
    with ig.lm.frozen():
        engine = make_engine(ig, encoded)
        begin = time.perf_counter()
        tokens = token_scores(engine, SPLITS[split](engine.forward), int(count))
        seconds = time.perf_counter() - begin
    return {"units": 3 * int(count) + 1, "seconds": seconds, **scored(tokens, encoded)}


def make_engine(ig: FastIG, encoded: EncodedTrace) -> FusedEngine:
    inputs, baseline = path_ends(ig.lm, encoded, ig.baseline, ig.scope)
    return FusedEngine(ig.model, PathEnds.of(encoded.input_ids, inputs, baseline, encoded.target))


def scored(tokens: Tensor, encoded: EncodedTrace) -> Row:
    """The segments' scores."""
    tokens, spans = tokens.double(), encoded.segments
    sums = [float(tokens[start:stop].sum()) for start, stop in spans]
    scores, paper = SCORER.score_tokens(tokens, spans), PAPER.score_tokens(tokens, spans)
    return {
        "total": float(tokens.sum()),
        "signed": sums,
        "strength": scores.strength.tolist(),
        "consistency": scores.consistency.tolist(),
        "important": scores.important.tolist(),
        "important_at_beta": paper.important.tolist(),
    }


def read(path: pathlib.Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def measure_all(tasks: list[tuple[Kind, int, str]], path: pathlib.Path, workers: int) -> None:
    """Append what is not in the file yet, in whatever order it is done."""
    done = {(row["kind"], row["trace"], row["method"]) for row in read(path)}
    tasks = [task for task in tasks if (str(task[0]), *task[1:]) not in done]
    commit = describe_commit()
    with ProcessPoolExecutor(workers) as pool, path.open("a") as file:
        futures = [pool.submit(measure, task) for task in tasks]
        for count, future in enumerate(as_completed(futures), start=1):
            lines = [json.dumps({"commit": commit, **row}) + "\n" for row in future.result()]
            file.write("".join(lines))
            file.flush()
            if count % 50 == 0 or count == len(tasks):
                print(f"{count} of {len(tasks)}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--traces", type=int, default=10**6, help="at most so many of each kind")
    parser.add_argument("--only", default="", help="kinds whose name has a match of this pattern")
    parser.add_argument("--results", type=pathlib.Path, default=HERE / "results" / "secant.json")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    kinds = [kind for kind in KINDS if re.search(arguments.only, str(kind))]
    path = arguments.results.with_suffix(".jsonl")
    tasks = [
        (kind, number, task)
        for kind in kinds
        for number in range(min(kind.traces, arguments.traces))
        for task in kind.tasks()
    ]
    measure_all(tasks, path, arguments.workers)
    order = [*map(str, kinds), YARDSTICKS, *METHODS].index
    rows = [row for row in read(path) if row["kind"] in map(str, kinds)]
    rows.sort(key=lambda row: (order(row["kind"]), order(row["method"]), row["trace"]))
    results = Results(arguments.results)
    results.content["commit"] = ", ".join(sorted({row["commit"] for row in rows}))
    for row in summaries(rows):
        results.add(row)


if __name__ == "__main__":
    main()
