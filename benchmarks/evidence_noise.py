"""What rounding makes of the integrands on a path: the noise floor of 16-bit and 32-bit gradients.

python benchmarks/evidence_noise.py [--results FILE.json]

The bundled model on some of its traces, and SmolLM2-135M-Instruct (`make real-model`) on the first
made-up ones, with the same weights, as each dtype rounds them, in float64; 16 bits of the real
model are compared with float32. Points are equally spaced; every fourth has a neighbour at 1/512.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path
from statistics import mean, median
from typing import Any
from unittest.mock import patch

import torch
import transformers
from measured import Results
from real_model import load_real
from torch import Tensor

from segattr import EncodedTrace, FastIG, SegmentScorer, Trace, UndecidedWarning
from segattr.demo import load_demo, load_records
from segattr.ig import Adaptive
from segattr.ig.rounding import noise_of
from segattr.quadrature.fixed import nodes_and_weights
from segattr.quadrature.noise import Noise, Scatter
from segattr.scores import jaccard

HERE = Path(__file__).parent
MADE_UP = HERE / "made_up_traces.jsonl"
NEIGHBOUR = 1 / 512
SCORER = SegmentScorer()


@dataclass(frozen=True)
class Case:
    """A model in a dtype, another dtype to compare it with, and on how many traces and points."""

    model: str
    dtype: torch.dtype
    exact: torch.dtype
    traces: int
    points: int


# A processor without products of float16 takes 20 s for one point of the real model.
CASES = (
    Case("bundled", torch.float32, torch.float64, 8, 33),
    Case("bundled", torch.float16, torch.float64, 8, 33),
    Case("bundled", torch.bfloat16, torch.float64, 8, 33),
    Case("SmolLM2-135M", torch.float32, torch.float64, 1, 9),
    Case("SmolLM2-135M", torch.float16, torch.float32, 1, 5),
    Case("SmolLM2-135M", torch.bfloat16, torch.float32, 3, 17),
)


def load(name: str) -> tuple[Any, Any, list[Trace]]:
    if name == "bundled":
        return *load_demo(), [Trace.from_record(record) for record in load_records()[::4]]
    records = map(json.loads, MADE_UP.read_text().splitlines())
    return *load_real(), [Trace.from_record(record) for record in records]


def measure(rounded: FastIG, exact: FastIG, trace: Trace, points: int) -> dict[str, float]:
    """One trace's figures; errors of points are in units of the rounded model's eps."""
    encoded = rounded.encode(trace)
    alphas, weights = nodes_and_weights("trapezoid", points)
    neighbours = alphas[:-1:4] + NEIGHBOUR
    got, want = (
        [part.double() for part in ig.integrand(encoded, torch.cat([alphas, neighbours]))]
        for ig in (rounded, exact)
    )
    eps = torch.finfo(rounded.model.dtype).eps
    errors = got[1] - want[1]
    beside = [(errors[4 * k], errors[points + k]) for k in range(len(neighbours))]
    on, wanted = errors[:points], want[1][:points]
    found = of_points(on, wanted, eps) | of_potential(got[0] - want[0], want[0], eps)
    found["beside"] = mean_cosine(beside)
    found["next"] = mean_cosine(list(pairwise(on)))
    integral, off = weights @ wanted, weights @ on
    scatter = Scatter.of(noise_of(rounded.model.dtype), alphas, got[1][:points])
    found["integral_error"] = float(off.norm() / integral.norm())
    # What errors of the points would make of it if none had to do with another.
    found["if_independent"] = float((weights[:, None] * on).norm() / integral.norm())
    found["said"] = float(scatter.value.norm() / integral.norm())
    scores = (SCORER.score_tokens(a, encoded.segments) for a in (integral, integral + off))
    return {**found, "kept": jaccard(*(score.kept for score in scores))}


def of_points(errors: Tensor, exact: Tensor, eps: float) -> dict[str, float]:
    """Errors of the points as a whole, and their parts.

    Medians over points and tokens, as standard deviations: a few points of a path, where the
    gradient is steep, are many times worse.
    """
    moved = exact.abs().amax(0) > 0
    errors, exact = errors[:, moved], exact[:, moved]
    relative = errors.norm(dim=1) / exact.norm(dim=1) / eps
    common = (errors * exact).sum(1) / exact.square().sum(1)
    rest = errors - common[:, None] * exact
    rms = exact.square().mean(1, keepdim=True).sqrt()
    large, small = exact.abs() > rms, exact.abs() < rms / 5
    return {
        "error": float(relative.median()),
        "worst_error": float(relative.max()),
        "weighted_error": float(errors.norm() / exact.norm() / eps),
        "common": deviation(common) / eps,
        "own": deviation((rest / exact)[large]) / eps,
        "floor": deviation((rest / rms)[small]) / eps,
    }


def of_potential(errors: Tensor, exact: Tensor, eps: float) -> dict[str, float]:
    """Errors of F over its largest size."""
    shares = errors / exact.abs().max() / eps
    return {"of_F": float(shares.square().mean().sqrt()), "worst_of_F": float(shares.abs().max())}


def judge(rounded: FastIG, encoded: EncodedTrace, want: Tensor, known: bool) -> dict[str, float]:
    """What auto claims of a trace in 16 bits, with what is known of noise or without."""
    with patch("segattr.ig.rules.noise_of", noise_of if known else lambda _: Noise()):
        got = rounded.attribute(encoded)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndecidedWarning)
        ours = SCORER.score(got)
    off = (ours.strength - SCORER.score_tokens(want, encoded.segments).strength).abs()
    assert got.token_error is not None
    assert ours.strength_error is not None
    return {
        "evaluations": got.evaluations,
        "stopped": got.settings["stopped_by_rounding"],
        "error": float((got.token_scores - want).norm() / want.norm()),
        "claimed": float(got.token_error.norm() / want.norm()),
        "covered": float((off <= ours.strength_error).double().mean()),
    }


def deviation(values: Tensor) -> float:
    """The standard deviation of normal numbers with this median size."""
    return float(values.abs().median()) / 0.6745


def mean_cosine(pairs: list[tuple[Tensor, Tensor]]) -> float:
    return sum(float(torch.cosine_similarity(a, b, 0)) for a, b in pairs) / len(pairs)


def summary(rows: list[dict[str, float]]) -> dict[str, float]:
    """Medians over the traces; the worst of what is called so; the mean of what is kept."""
    found = {
        key: (max if key.startswith("worst") else median)(row[key] for row in rows)
        for key in rows[0]
    }
    errors = [row["integral_error"] for row in rows]
    return {
        **found,
        "worst_integral_error": max(errors),
        "kept": sum(row["kept"] for row in rows) / len(rows),
    }


def cases() -> Iterator[dict[str, Any]]:
    for case in CASES:
        model, tokenizer, traces = load(case.model)
        converted = model.to(case.dtype)
        wide = copy.deepcopy(converted).to(case.exact)
        for scope in ("reasoning", "all"):
            pair = [FastIG(model, tokenizer, scope=scope) for model in (converted, wide)]
            rows = [measure(*pair, trace, case.points) for trace in traces[: case.traces]]
            dtype = str(case.dtype).removeprefix("torch.")
            what = {"model": case.model, "dtype": dtype, "scope": scope}
            yield what | {"traces": len(rows), "points": case.points} | summary(rows)


def autos() -> Iterator[dict[str, Any]]:
    model, tokenizer, traces = load("bundled")
    for dtype, scope in product((torch.float16, torch.bfloat16), ("reasoning", "all")):
        converted = copy.deepcopy(model).to(dtype)
        rounded = FastIG(converted, tokenizer, scope=scope, rule=Adaptive(None, 0.02))
        accurate = Adaptive(None, 0.001, 257)
        exact = FastIG(converted, tokenizer, scope=scope, dtype=torch.float64, rule=accurate)
        encoded = [rounded.encode(trace) for trace in traces[:8]]
        wanted = [attribution.token_scores for attribution in exact.attribute_many(encoded)]
        for known in (True, False):
            pairs = zip(encoded, wanted, strict=True)
            rows = [judge(rounded, trace, want, known) for trace, want in pairs]
            what = {"model": "bundled", "dtype": str(dtype).removeprefix("torch."), "scope": scope}
            yield {
                **what,
                "known": known,
                "traces": len(rows),
                "stopped": sum(row["stopped"] for row in rows),
                **{key: median(row[key] for row in rows) for key in ("error", "claimed")},
                **{key: mean(row[key] for row in rows) for key in ("evaluations", "covered")},
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=HERE / "results" / "noise.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    results = Results(arguments.results)
    for group, runs in (("noise", cases()), ("noisy auto", autos())):
        for found in runs:
            results.add({"group": group, **found})
            print(found["model"], found["dtype"], found["scope"], file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
