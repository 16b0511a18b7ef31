"""Fit a rule to one model: few path points and rule weights for traces like those given.

Over the training traces n, with references r_n and integrands g_n(alpha):

    minimise  sum_n |sum_k weights[k] g_n(alphas[k]) - r_n|^2 / |r_n|^2,   weights >= 0

Points are chosen from a grid (one by one, or those of a textbook rule) and exchanged as long as
that helps.
Axes: ``N`` traces, ``C`` candidate points, ``K`` chosen points, ``T`` tokens.
"""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from segattr.attribution import completeness_gap
from segattr.engine.fingerprint import fingerprint
from segattr.ig.fast_ig import FastIG
from segattr.ig.fitted import Rule
from segattr.ig.rules import PAPER
from segattr.quadrature.fixed import nodes_and_weights
from segattr.quadrature.refinement import Refinement, refine
from segattr.scores import jaccard
from segattr.trace import EncodedTrace, Trace

GRID = 65
MOST = 257
ACCURATE = 1e-2


@dataclass
class Sampled:
    """A trace's integrand on the grid, ``[C, T]``, and its converged integral, ``[T]``."""

    encoded: EncodedTrace
    values: Tensor
    reference: Tensor
    change: float


def fit_rule(
    ig: FastIG,
    traces: Iterable[Trace | EncodedTrace],
    points: int = 6,
    *,
    held_out: float = 0.25,
) -> Rule:
    """Fit path points and rule weights to the model, baseline and scope of ``ig``.

    Costs 65 to 257 gradient evaluations a trace. Traces that cannot be attributed, or whose
    reference does not converge, are left out with a warning.

    Args:
        ig: Whose model the rule is for. Kept segments are compared by the scorer of its rule, or by
            the paper's if that has none.
        traces: At least 4; the last ones are held out and judge the rule.
        points: Path points of the rule, 1 to 65.
        held_out: Share of the traces to hold out, in (0, 1).

    Raises:
        ValueError: If an argument is out of range, or fewer than 4 traces are left.
    """
    _require_numbers(points, held_out)
    sampled, left_out = [], []
    for number, trace in enumerate(traces):
        try:
            sampled.append(sample_trace(ig, trace))
        except (ValueError, FloatingPointError, MemoryError) as error:
            left_out.append(f"{trace.id or number}: {error}")
    if left_out:
        warnings.warn(f"{len(left_out)} traces are left out: {'; '.join(left_out)}", stacklevel=2)
    return fit_sampled(ig, sampled, points, held_out=held_out)


def fit_sampled(
    ig: FastIG, sampled: Sequence[Sampled], points: int, *, held_out: float = 0.25
) -> Rule:
    """Fit a rule to traces from `sample_trace`: `fit_rule` without the evaluations."""
    _require_numbers(points, held_out)
    if len(sampled) < 4:
        raise ValueError(
            f"traces must be at least 4 that converge, got {len(sampled)}. Give 16 or more."
        )
    count = min(len(sampled) - 1, max(1, round(held_out * len(sampled))))
    chosen, weights = _fit(sampled[:-count], points)
    alphas = torch.linspace(0, 1, GRID, dtype=torch.float64)[chosen]
    judged = [_judge(trace, weights @ trace.values[chosen], ig) for trace in sampled[-count:]]
    errors, gaps, agreements = zip(*judged, strict=True)
    return Rule(
        alphas,
        weights,
        fingerprint(ig.model),
        str(ig.baseline),
        ig.scope,
        min(1.0, max(gaps)),
        {
            "traces": count,
            "median_error": statistics.median(errors),
            "worst_error": max(errors),
            "kept_agreement": statistics.mean(agreements),
        },
    )


def _require_numbers(points: int, held_out: float) -> None:
    if not 1 <= points <= GRID:
        raise ValueError(f"points must be in 1..{GRID}, got {points}.")
    if not 0 < held_out < 1:
        raise ValueError(f"held_out must be in (0, 1), got {held_out}. It is a share.")


def sample_trace(ig: FastIG, trace: Trace | EncodedTrace) -> Sampled:
    """Evaluate a trace's path on the grid, and on until it converges.

    Raises:
        ValueError: If it does not converge, or no token has any attribution.
        TraceTooLongError, MemoryError, FloatingPointError: As `FastIG.attribute`.
    """
    encoded = ig.encode(trace)

    def settled(path: Refinement) -> bool:
        return bool(path.error.norm() <= ACCURATE * path.value.norm())

    start = Refinement(MOST, resolution=torch.finfo(ig.model.dtype).eps, coarsest=GRID)
    path = refine(partial(ig.integrand, encoded), settled, start)
    if not path.converged or not path.value.any():
        raise ValueError(f"the integral must converge, got none after {len(path.alphas)} points.")
    on_grid = torch.isin(path.alphas, torch.linspace(0, 1, GRID, dtype=torch.float64))
    assert path.potentials is not None
    change = float(path.potentials[-1] - path.potentials[0])
    return Sampled(encoded, path.values[on_grid], path.value, change)


def _fit(sampled: Sequence[Sampled], points: int) -> tuple[Tensor, Tensor]:
    """The chosen candidates, int64 ``[K]``, ascending, and rule weights, float64 ``[K]``."""
    gram, target = _normal_equations(sampled)
    starts = [_greedy(gram, target, points)]
    for name in ("midpoint", "gauss-legendre"):
        on_grid = nodes_and_weights(name, points)[0] * (GRID - 1)
        # Many points of such a rule may fall on one candidate; then it is no start.
        if len(set(nearest := on_grid.round().int().tolist())) == points:
            starts.append(nearest)
    found = [_exchange(gram, target, start) for start in starts]
    chosen = min(found, key=lambda points: _loss(gram, target, points))
    chosen.sort()
    return torch.tensor(chosen), _weights(gram, target, chosen)


def _normal_equations(sampled: Sequence[Sampled]) -> tuple[Tensor, Tensor]:
    """Inner products of the candidates, ``[C, C]``, and with the references, ``[C]``."""
    gram = torch.zeros(GRID, GRID, dtype=torch.float64)
    target = torch.zeros(GRID, dtype=torch.float64)
    for trace in sampled:
        scale = trace.reference.square().sum()
        gram += trace.values @ trace.values.T / scale
        target += trace.values @ trace.reference / scale
    return gram, target


def _greedy(gram: Tensor, target: Tensor, points: int) -> list[int]:
    """One candidate after another, each the best addition to those before it."""
    chosen: list[int] = []
    while len(chosen) < points:
        others = [c for c in range(GRID) if c not in chosen]
        chosen.append(min(others, key=lambda c: _loss(gram, target, [*chosen, c])))
    return chosen


def _exchange(gram: Tensor, target: Tensor, chosen: list[int]) -> list[int]:
    """Replace one chosen candidate by another, as long as that helps."""
    best, before = _loss(gram, target, chosen), float("inf")
    while best < before:
        before = best
        for index in range(len(chosen)):
            others = [c for c in range(GRID) if c not in chosen]
            swaps = [[*chosen[:index], c, *chosen[index + 1 :]] for c in others]
            swap = min(swaps, key=lambda s: _loss(gram, target, s))
            if (loss := _loss(gram, target, swap)) < best:
                chosen, best = swap, loss
    return chosen


def _loss(gram: Tensor, target: Tensor, chosen: list[int]) -> float:
    weights = _weights(gram, target, chosen)
    inside = gram[chosen][:, chosen]
    return float(weights @ inside @ weights - 2 * weights @ target[chosen])


def _weights(gram: Tensor, target: Tensor, chosen: list[int]) -> Tensor:
    """Least squares under ``weights >= 0``: the most negative becomes 0 until none is negative."""
    used = torch.ones(len(chosen), dtype=torch.bool)
    weights = torch.zeros(len(chosen), dtype=torch.float64)
    while used.any():
        candidates = torch.tensor(chosen)[used]
        inside = gram[candidates][:, candidates]
        # Neighbours on the grid may have the same integrands, and no unique solution then.
        ridge = 1e-12 * gram.diagonal().max() * torch.eye(len(candidates), dtype=torch.float64)
        found = torch.linalg.solve(inside + ridge, target[candidates])
        weights.zero_()
        weights[used] = found
        if (found >= 0).all():
            break
        used[weights.argmin()] = False
    return weights.clamp_min(0)


def _judge(trace: Sampled, scores: Tensor, ig: FastIG) -> tuple[float, float, float]:
    """Error, completeness gap and agreement of the kept segments on one held-out trace."""
    error = float((scores - trace.reference).norm() / trace.reference.norm())
    scorer = ig.scorer or PAPER
    ours, theirs = (
        scorer.score_tokens(tokens, trace.encoded.segments).kept
        for tokens in (scores, trace.reference)
    )
    return error, completeness_gap(scores, trace.change), jaccard(ours, theirs)
