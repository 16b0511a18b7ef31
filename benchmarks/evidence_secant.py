"""Which rule scores segments best: finite propagation and Integrated Gradients by one yardstick.

python benchmarks/evidence_secant.py [--traces N] [--only PATTERN] [--results FILE.json] ...

Fresh traces of the bundled model, whose necessary segments are known, and traces made up for a
real model (made_up_traces.jsonl). Everything measured is a line of FILE.jsonl; a run that was
stopped goes on there. benchmarks/README.md has the tables.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import torch
import transformers
from evidence_summary import YARDSTICKS, summaries
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
from segattr.ig.path import path_ends

HERE = Path(__file__).parent
MADE_UP = HERE / "made_up_traces.jsonl"
SEED = 2026
PERMUTATIONS = 64
PIECES = (1, 2, 4, 12)
SPLITS: dict[str, Callable[[Any], Secants]] = {
    "mean": lambda forward: Secants(forward, "mean"),
    "content": lambda forward: Secants(forward, "content"),
    "chord": Chord,
    "sdpa": Sdpa,
}
POINTS = {"IG, 129 points": 129, "IG, 16 points": 16}
METHODS = [
    *POINTS,
    "IG, auto",
    "gradient x input",
    *(f"secant, {count}, {split}" for split in SPLITS for count in PIECES),
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


KINDS = [
    *(
        Kind("bundled", scope, baseline, 63, 24)
        for baseline in ("pad", "mean", "eos")
        for scope in ("reasoning", "all")
    ),
    *(
        Kind("SmolLM2", scope, baseline, 16, 16)
        for baseline in ("pad", "mean")
        for scope in ("reasoning", "all")
    ),
]


@cache
def load(name: str) -> tuple[Any, Any]:
    if name == "bundled":
        model, tokenizer = load_demo()
        return model.double(), tokenizer
    from real_model import load_real  # only where `make real-model` has run

    return load_real()


@cache
def make_ig(kind: Kind, rule: str = "auto") -> FastIG:
    model, tokenizer = load(kind.model)
    baseline = tokenizer.eos_token_id if kind.baseline == "eos" else kind.baseline
    return FastIG(model, tokenizer, rule=rule, baseline=baseline, scope=kind.scope, scorer=SCORER)


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


def measure(task: tuple[Kind, int, str]) -> Row:
    """One method, or the yardsticks, on one trace."""
    torch.set_num_threads(1)
    kind, number, method = task
    encoded, necessary = make_trace(kind.model, number)
    make_ig(kind), make_ig(kind, "secant")
    begin = time.perf_counter()
    if method == YARDSTICKS:
        found = judge(kind, encoded, necessary, number < kind.judged)
    else:
        found = score(kind, encoded, method)
    seconds = time.perf_counter() - begin
    return {"kind": str(kind), "trace": number, "method": method, "seconds": seconds, **found}


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


def score(kind: Kind, encoded: EncodedTrace, method: str) -> Row:
    """What a method finds, and its cost in forward passes: 3 a path point, 2 a sweep of secants."""
    ig = make_ig(kind)
    if method == "IG, auto":
        attribution = ig.attribute(encoded)
        tokens, units = attribution.token_scores, 3 * attribution.evaluations
    elif method in POINTS:
        count = POINTS[method]
        alphas = (torch.arange(count, dtype=torch.float64) + 0.5) / count
        tokens, units = ig.integrand(encoded, alphas)[1].double().mean(0), 3 * count
    elif method == "gradient x input":
        tokens, units = ig.integrand(encoded, [1.0])[1][0], 3
    else:
        _, count, split = method.split(", ")
        tokens, units = differences(kind, encoded, int(count), split), 3 * int(count) + 1
    sums = [tokens[start:stop].double().sum().item() for start, stop in encoded.segments]
    scores = SCORER.score_tokens(tokens.double(), encoded.segments)
    paper = PAPER.score_tokens(tokens.double(), encoded.segments)
    return {
        "units": units,
        "total": float(tokens.double().sum()),
        "signed": sums,
        "strength": scores.strength.tolist(),
        "consistency": scores.consistency.tolist(),
        "important": scores.important.tolist(),
        "kept": scores.kept.tolist(),
        "important_at_beta": paper.important.tolist(),
    }


def differences(kind: Kind, encoded: EncodedTrace, count: int, split: str) -> Tensor:
    ig = make_ig(kind, "secant")
    with ig.lm.frozen():
        inputs, baseline = path_ends(ig.lm, encoded, ig.baseline, ig.scope)
        ends = PathEnds.of(encoded.input_ids, inputs, baseline, encoded.target)
        engine = FusedEngine(ig.model, ends)
        return token_scores(engine, SPLITS[split](engine.forward), count)


def read(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def measure_all(
    kinds: list[Kind], methods: list[str], traces: int, path: Path, workers: int
) -> None:
    """Append what is not in the file yet, in whatever order it is done."""
    done = {(row["kind"], row["trace"], row["method"]) for row in read(path)}
    tasks = [
        (kind, number, method)
        for kind in kinds
        for number in range(min(kind.traces, traces))
        for method in (YARDSTICKS, *methods)
        if (str(kind), number, method) not in done
    ]
    commit = describe_commit()
    with ProcessPoolExecutor(workers) as pool, path.open("a") as file:
        for count, future in enumerate(as_completed(pool.submit(measure, task) for task in tasks)):
            row = future.result()
            file.write(json.dumps({"commit": commit, **row}) + "\n")
            file.flush()
            if count % 50 == 0:
                print(f"{count} of {len(tasks)}: {row['kind']}", file=sys.stderr, flush=True)


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
    methods = [method for method in METHODS if re.search(arguments.methods, method)]
    path = arguments.results.with_suffix(".jsonl")
    measure_all(kinds, methods, arguments.traces, path, arguments.workers)
    order = [*map(str, kinds), YARDSTICKS, *METHODS].index
    rows = [row for row in read(path) if row["kind"] in map(str, kinds)]
    rows.sort(key=lambda row: (order(row["kind"]), order(row["method"]), row["trace"]))
    results = Results(arguments.results)
    results.content["commit"] = ", ".join(sorted({row["commit"] for row in rows}))
    for row in summaries(rows):
        results.add(row)


if __name__ == "__main__":
    main()
