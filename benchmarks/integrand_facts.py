"""From the integrand of a path, as it is stored, to rows of a table.

Where F moves and where the integrand is large; what every rule makes of it; how far the errors that
`rule="auto"` estimates can be trusted. The truth is the integral of the monotone cubic through all
points that are known.
Axes: ``K`` path points, ``T`` tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from stored_path import Points, StoredPath
from torch import Tensor

from segattr import EncodedTrace
from segattr.attribution import completeness_gap
from segattr.ig.rules import PAPER, Adaptive
from segattr.quadrature.fixed import nodes_and_weights
from segattr.quadrature.level import Level
from segattr.quadrature.refinement import COARSEST, Refinement, refine
from segattr.scores import jaccard, segment_samples

PUBLISHED = ("linspace", 50)
PUBLISHED_POINTS = torch.linspace(0, 1, 50, dtype=torch.float64)
NESTED = ("riemann", "linspace", "trapezoid", "midpoint")
BUDGETS = (17, 33, 65, 129)
AGREEMENTS, LIMITS = (0.8, 0.9, 0.95, 1.0), (65, 129)
# Equally spaced points of a path whose shape is told, and of one that rules are judged on.
FEWEST, ENOUGH = 65, 129
# F moves so little of its way in what is called idle.
IDLE = 0.1
Row = dict[str, Any]


def finest(points: Points) -> Tensor:
    """Most equally spaced points, 2^n + 1 of them, that are all known: ``[K]``."""
    count = COARSEST
    while True:
        alphas = torch.linspace(0, 1, 2 * count - 1, dtype=torch.float64)
        if not points.has(alphas):
            return torch.linspace(0, 1, count, dtype=torch.float64)
        count = 2 * count - 1


def facts_of(path: StoredPath, encoded: EncodedTrace) -> Iterator[Row]:
    """All rows of a path, from its stored points alone; none if there are too few."""
    path.is_complete = True
    if not path.points.has(torch.linspace(0, 1, FEWEST, dtype=torch.float64)):
        return
    sizes = {"tokens": len(encoded.input_ids), "segments": len(encoded.segments)}
    yield {"group": "integrands", **sizes, **shape_of(path.points)}
    if len(finest(path.points)) < ENOUGH:
        return
    yield from rules_of(path.points, encoded)
    yield from autos_of(path, encoded)
    yield from errors_of(path.points, encoded)


def shape_of(points: Points) -> Row:
    """Where F moves, and where the integrand is large."""
    alphas = finest(points)
    logprobs, values = points.at(alphas)
    moves, sizes = logprobs.diff().abs(), values.double().abs().sum(1)
    steps = (sizes[1:] + sizes[:-1]) / 2 / len(moves)
    reached = moves.cumsum(0) / moves.sum()
    quiet = moves.argsort()
    idle = quiet[moves[quiet].cumsum(0) <= IDLE * moves.sum()]
    return {
        "points": len(alphas),
        "baseline_logprob": float(logprobs[0]),
        "target_logprob": float(logprobs[-1]),
        "variation": float(moves.sum() / (logprobs[-1] - logprobs[0]).abs()),
        "moved_half_at": float(alphas[1:][reached >= 0.5][0]),
        "idle_path": len(idle) / len(moves),
        "idle_size": float(steps[idle].sum() / steps.sum()),
        "peak": float(sizes.max() / sizes[-1]),
        "peak_at": float(alphas[sizes.argmax()]),
        "logprobs": rounded(logprobs),
        "sizes": rounded(sizes),
    }


def rounded(values: Tensor) -> list[float]:
    return [float(f"{value:.5g}") for value in values.tolist()]


def rules_of(points: Points, encoded: EncodedTrace) -> Iterator[Row]:
    """What textbook rules on known points, and the published one, make of a path."""
    alphas = finest(points)
    most = len(alphas) - 1
    wanted = [PUBLISHED] if points.has(PUBLISHED_POINTS) else []
    cells = [2**power for power in range(3, most.bit_length())]
    wanted += [(rule, count + (rule in NESTED[1:3])) for rule in NESTED for count in cells
               if count < most or rule != "midpoint"]  # fmt: skip
    truth, change = truth_of(points), change_of(points)
    for rule, count in wanted:
        scores = integral(points, rule, count)
        row = {
            "group": "real rules",
            "rule": rule,
            "evaluations": count,
            "gap": completeness_gap(scores, change),
        }
        yield {**row, **compare(scores, truth, encoded)}


def integral(points: Points, rule: str, count: int) -> Tensor:
    alphas, weights = nodes_and_weights(rule, count)
    return weights @ points.at(on_the_grid(alphas, points))[1].double()


def truth_of(points: Points) -> Tensor:
    return Level.through(points.alphas, points.values.double()).cubics.sum(0)


def on_the_grid(alphas: Tensor, points: Points) -> Tensor:
    """The known points that these are, up to rounding."""
    return points.alphas[(points.alphas[:, None] - alphas).abs().argmin(0)]


def change_of(points: Points) -> float:
    return float(points.logprobs[-1] - points.logprobs[0])


def compare(scores: Tensor, truth: Tensor, encoded: EncodedTrace) -> Row:
    ours, theirs = (PAPER.score_tokens(tokens, encoded.segments) for tokens in (scores, truth))
    return {
        "token_error": float((scores - truth).norm() / truth.norm()),
        "kept": jaccard(ours.kept, theirs.kept),
    }


def autos_of(path: StoredPath, encoded: EncodedTrace) -> Iterator[Row]:
    """What `rule="auto"` makes of a path whose refinement is stored, by the agreement it wants."""
    points = path.points
    truth, change = truth_of(points), change_of(points)
    for agreement in AGREEMENTS:
        for most in LIMITS:
            before = path.evaluations
            rule = Adaptive(PAPER, agreement=agreement, max_evaluations=most)
            try:
                found = rule.integrate(path, encoded.segments)
            except KeyError:  # it was not refined so far
                continue
            scores = found.token_scores.double()
            yield {
                "group": "real auto",
                "agreement": agreement,
                "limit": most,
                "evaluations": path.evaluations - before,
                "converged": found.converged,
                "gap": completeness_gap(scores, change),
                **compare(scores, truth, encoded),
            }


def errors_of(points: Points, encoded: EncodedTrace) -> Iterator[Row]:
    """What refinement says of its own errors after so many points, and what they are."""
    truth = truth_of(points)
    exact = PAPER.score_tokens(truth, encoded.segments).kept
    for budget in BUDGETS:
        try:
            found = refine(points.at, lambda _: False, Refinement(budget))
        except KeyError:  # it was not refined so far
            return
        samples = segment_samples(found.samples(), encoded.segments)
        off = (found.value - truth).abs()
        ours = PAPER.score_tokens(found.value, encoded.segments).kept
        yield {
            "group": "real errors",
            "evaluations": budget,
            "plausible": found.is_plausible(),
            "inside": float((off <= found.error).double().mean()),
            "estimated_error": float(found.error.norm() / truth.norm()),
            "real_error": float(off.norm() / truth.norm()),
            "expected_agreement": PAPER.judge(samples, encoded.segments)["agreement"],
            "real_agreement": jaccard(ours, exact),
        }
