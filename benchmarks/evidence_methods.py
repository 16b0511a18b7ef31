"""What is measured on one trace: every method's segment scores, and the yardsticks."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from evidence_summary import REFERENCE, YARDSTICKS
from evidence_traces import PAPER, SCORER, Kind, make_ig, make_trace
from secant_splits import Chord, Sdpa, token_scores
from torch import Tensor
from yardsticks import Coalitions, blocked, deletions, logprob_without, shapley

from segattr import EncodedTrace, FastIG
from segattr.engine.ends import PathEnds
from segattr.engine.fused import FusedEngine
from segattr.engine.secant import Secants
from segattr.ig.path import Path, path_ends
from segattr.quadrature.fixed import nodes_and_weights

FINEST, PERMUTATIONS = 129, 64
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
Row = dict[str, Any]


def tasks_of(kind: Kind, wanted: str) -> Iterator[tuple[str, ...]]:
    """Return what is measured together on a trace; on a real model, few pieces of most splits.

    Args:
        kind: Of the trace.
        wanted: A pattern that every method's name has a match of.
    """
    yield (YARDSTICKS,)
    yield tuple(name for name in GRADIENTS if re.search(wanted, name))
    for split, counts in PIECES.items():
        most = 12 if kind.model == "bundled" or split == "mean" else 2
        names = (f"secant, {count}, {split}" for count in counts if count <= most)
        yield from ((name,) for name in names if re.search(wanted, name))


def measure(task: tuple[Kind, int, tuple[str, ...]]) -> list[Row]:
    """Some methods, or the yardsticks, on one trace."""
    torch.set_num_threads(1)
    kind, number, names = task
    encoded, necessary = make_trace(kind.model, number)
    if names == (YARDSTICKS,):
        found = [judge(kind, encoded, necessary, number < kind.judged)]
    elif set(names) <= set(GRADIENTS):
        found = list(gradients(kind, encoded, names))
    else:
        found = [differences(kind, encoded, name) for name in names]
    what = {"kind": str(kind), "trace": number}
    return [{**what, "method": name, **row} for name, row in zip(names, found, strict=True)]


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
    """A path whose points cost something once: those of all rules are among the same 129."""

    known: dict[float, tuple[Tensor, Tensor]]
    asked: set[float]
    seconds: float  # for all that are known

    def evaluate(self, alphas: Tensor) -> tuple[Tensor, Tensor]:
        if missing := [alpha for alpha in alphas.tolist() if alpha not in self.known]:
            begin = time.perf_counter()
            found = super().evaluate(torch.tensor(missing, dtype=torch.float64))
            self.seconds += time.perf_counter() - begin
            self.known |= zip(missing, zip(*found, strict=True), strict=True)
        self.asked |= set(alphas.tolist())
        logprobs, values = zip(*(self.known[alpha] for alpha in alphas.tolist()), strict=True)
        return torch.stack(logprobs), torch.stack(values)


def gradients(kind: Kind, encoded: EncodedTrace, names: tuple[str, ...]) -> Iterator[Row]:
    """What needs gradients, at a cost of 3 forward passes a path point."""
    ig = make_ig(kind)
    with ig.lm.frozen():
        path = Remembered(make_engine(ig, encoded), ig.planner, len(encoded.input_ids))
        path.known, path.seconds = {}, 0.0
        rules: dict[str, Callable[[], Tensor]] = {
            REFERENCE: lambda: weighted(path, "trapezoid", FINEST),
            "IG, auto": lambda: ig.rule.integrate(path, encoded.segments).token_scores,
            "IG, 16 points": lambda: weighted(path, "midpoint", 16),
            "gradient x input": lambda: path.evaluate(torch.ones(1).double())[1][0],
        }
        for name in names:
            path.asked = set()
            row = scored(rules[name](), encoded)
            points = len(path.asked)
            yield {"units": 3 * points, "seconds": path.seconds * points / len(path.known), **row}


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
