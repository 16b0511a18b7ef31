"""How many path points are enough: every rule against 513 points or more, in float64.

python benchmarks/evidence_quadrature.py [--traces N] [--only PATTERN] [--results FILE.json] ...

Traces of the bundled model are fresh ones (its training and the choice of our constants saw
others); random models take random tokens. benchmarks/README.md has the table.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
import transformers
from evidence_plot import draw
from measured import Results
from torch import Tensor

from segattr import EncodedTrace, FastIG, SegmentScorer, Trace, encode
from segattr.demo import load_demo
from segattr.demo.accuracy import answers_correctly
from segattr.demo.world import LEVELS, sample
from segattr.ig.calibration import Sampled, fit_sampled, sample_trace
from segattr.quadrature.fixed import RULES, nodes_and_weights
from segattr.quadrature.refinement import Refinement, refine
from segattr.scores import jaccard

HERE = Path(__file__).parent
FINEST, MOST = 513, 1025
BUDGETS = (9, 12, 17, 21, 25, 50)
CALIBRATED = (6, 8, 10)
SEED = 2026
# Points at quantiles of F's own profile, mixed with equal spacing: the best of 18 mixtures tried.
PROFILE = {"points": 10, "forwards": 17, "power": 0.75, "evenly": 0.3}
Row = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """A model, a baseline, a scope, and how many traces."""

    layers: int  # of a random model; 0: the bundled one
    baseline: str
    scope: str
    traces: int

    def __str__(self) -> str:
        model = f"random, {self.layers} layers" if self.layers else "bundled"
        return f"{model}, {self.baseline}, {self.scope}"


KINDS = [
    *(Kind(0, "pad", scope, 108) for scope in ("reasoning", "all")),
    *(Kind(0, "zero", scope, 24) for scope in ("reasoning", "all")),
    *(
        Kind(layers, baseline, scope, 8)
        for layers in (2, 6, 16)
        for baseline in ("pad", "zero")
        for scope in ("reasoning", "all")
    ),
]


@cache
def make_ig(kind: Kind) -> FastIG:
    if not kind.layers:
        model, tokenizer = load_demo()
        return ig_of(kind, model.double(), tokenizer)
    torch.manual_seed(kind.layers)
    config = transformers.Qwen2Config(
        vocab_size=512,
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=kind.layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.1,
        pad_token_id=0,
    )
    model = transformers.Qwen2ForCausalLM(config).double().eval()
    torch.nn.init.normal_(model.get_input_embeddings().weight.data[0], std=0.1)
    return ig_of(kind, model)


def ig_of(kind: Kind, *model: Any) -> FastIG:
    """With what the committed tables were measured with: no segment undecided, if possible."""
    settings: dict[str, Any] = {"baseline": kind.baseline, "scope": kind.scope}
    return FastIG(*model, **settings, rule="auto", agreement=1, max_evaluations=65)


@cache
def make_trace(kind: Kind, number: int, seed: int) -> EncodedTrace:
    """The trace of this number: of the bundled world and answered, or random tokens."""
    rng = random.Random(f"{seed} {number}")
    if kind.layers:
        generator = torch.Generator().manual_seed(rng.randrange(2**31))
        ids = torch.randint(1, 512, (120,), generator=generator)
        cuts = [20, *sorted(rng.sample(range(24, 108), 6)), 112]
        return EncodedTrace(ids, (0, 20), list(pairwise(cuts)), (114, 117))
    model, tokenizer = make_ig(kind).model, make_ig(kind).tokenizer
    while True:
        fresh = sample(rng, list(LEVELS.values())[number % len(LEVELS)])
        encoded = encode(Trace(fresh.question, fresh.reasoning, fresh.answer), tokenizer)
        if answers_correctly(model, encoded):
            return encoded


class Known:
    """The path of one trace; a point that was evaluated before costs nothing."""

    def __init__(self, kind: Kind, encoded: EncodedTrace) -> None:
        self.ig, self.encoded = make_ig(kind), encoded
        self.points: dict[float, tuple[Tensor, Tensor]] = {}

    def __call__(self, alphas: Tensor) -> tuple[Tensor, Tensor]:
        missing = [alpha for alpha in alphas.tolist() if alpha not in self.points]
        if missing:
            logprobs, values = self.ig.integrand(self.encoded, missing)
            self.points |= zip(missing, zip(logprobs, values, strict=True), strict=True)
        logprobs, values = zip(*(self.points[alpha] for alpha in alphas.tolist()), strict=True)
        return torch.stack(logprobs), torch.stack(values)


def judge_trace(task: tuple[Kind, int, dict[int, list[list[float]]]]) -> list[Row]:
    """Every rule on one trace against its reference."""
    torch.set_num_threads(1)
    kind, number, calibrated = task
    encoded = make_trace(kind, number, SEED)
    known = Known(kind, encoded)
    finest = refine(known, is_exact, Refinement(MOST, coarsest=FINEST))
    rows = []
    for rule, evaluations, scores, converged in attempts(known, kind, encoded, calibrated):
        found = compare(scores, finest.value, encoded)
        row = {"rule": rule, "evaluations": evaluations, "converged": converged}
        rows.append({**row, "exact": finest.converged, **found})
    return rows


def is_exact(path: Refinement) -> bool:
    return bool(path.error.norm() <= 2e-3 * path.value.norm())


def attempts(
    known: Known, kind: Kind, encoded: EncodedTrace, calibrated: dict[int, list[list[float]]]
) -> Iterator[tuple[str, int, Tensor, bool | None]]:
    """Rule, gradient evaluations, token scores, and whether it says that it converged."""
    attribution = make_ig(kind).attribute(encoded)
    yield "auto", attribution.evaluations, attribution.token_scores, attribution.converged
    for budget in BUDGETS:
        path = refine(known, lambda _: False, Refinement(budget))
        yield "auto, stopped at", budget, path.value, None
        for rule in RULES:
            alphas, weights = nodes_and_weights(rule, budget)
            yield rule, budget, weights @ known(alphas)[1], None
    for points, (alphas, weights) in calibrated.items():
        scores = torch.tensor(weights).double() @ known(torch.tensor(alphas).double())[1]
        yield "calibrated", points, scores, None
    yield "quantiles of F", PROFILE["points"], along_the_profile(known), None


def along_the_profile(known: Known) -> Tensor:
    """Points where F rises, found by forward passes alone; each has the width of its cell."""
    coarse = torch.linspace(0, 1, PROFILE["forwards"], dtype=torch.float64)
    rises = known(coarse)[0].diff().abs() ** PROFILE["power"]
    density = (1 - PROFILE["evenly"]) * rises / rises.sum() + PROFILE["evenly"] / len(rises)
    reached = torch.cat([torch.zeros(1), density.cumsum(0)])

    def place(quantiles: Tensor) -> Tensor:
        right = torch.searchsorted(reached, quantiles).clamp(1, len(density))
        inside = (quantiles - reached[right - 1]) / density[right - 1]
        return (coarse[right - 1] + inside * coarse.diff()[right - 1]).clamp(0, 1)

    quantiles = torch.linspace(0, 1, 2 * PROFILE["points"] + 1, dtype=torch.float64)
    edges, middles = place(quantiles)[::2], place(quantiles)[1::2]
    return edges.diff() @ known(middles)[1]


def compare(scores: Tensor, reference: Tensor, encoded: EncodedTrace) -> Row:
    ours, theirs = (
        SegmentScorer().score_tokens(tokens.double(), encoded.segments)
        for tokens in (scores, reference)
    )
    return {
        "token_error": float((scores - reference).norm() / reference.norm()),
        "strength_error": float((ours.strength - theirs.strength).abs().max()),
        "consistency_error": float((ours.consistency - theirs.consistency).abs().max()),
        "kept": jaccard(ours.kept, theirs.kept),
        "important": jaccard(ours.important, theirs.important),
    }


def fit(kind: Kind, traces: int, pool: ProcessPoolExecutor) -> dict[int, list[list[float]]]:
    """Calibrated rules from traces that are not judged."""
    sampled = [s for s in pool.map(sample_of, [(kind, number) for number in range(traces)]) if s]
    if len(sampled) < 8:
        return {}
    rules = (fit_sampled(make_ig(kind), sampled, points) for points in CALIBRATED)
    return {len(rule.alphas): [rule.alphas.tolist(), rule.weights.tolist()] for rule in rules}


def sample_of(task: tuple[Kind, int]) -> Sampled | None:
    torch.set_num_threads(1)
    try:
        return sample_trace(make_ig(task[0]), make_trace(*task, SEED + 1))
    except ValueError:  # it does not converge
        return None


def summarise(kind: Kind, rows: list[Row]) -> Iterator[Row]:
    groups = defaultdict(list)
    for row in rows:
        groups[row["rule"], row["evaluations"] if row["rule"] != "auto" else None].append(row)
    for (rule, _), of_rule in groups.items():
        sure = [row["kept"] for row in of_rule if row["converged"]]
        yield {
            "kind": str(kind),
            "traces": len(of_rule),
            "references_converged": sum(row["exact"] for row in of_rule),
            "rule": rule,
            "evaluations": median(row["evaluations"] for row in of_rule),
            "mean_evaluations": mean(row["evaluations"] for row in of_rule),
            **{
                f"{name}_{key}": function(row[key] for row in of_rule)
                for key in ("token_error", "strength_error", "consistency_error")
                for name, function in (("median", median), ("worst", max))
            },
            "kept": mean(row["kept"] for row in of_rule),
            "worst_kept": min(row["kept"] for row in of_rule),
            "important": mean(row["important"] for row in of_rule),
            **({"converged": len(sure), "worst_kept_converged": min(sure, default=None)}
               if rule == "auto" else {}),
        }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--traces", type=int, help="at most so many of each kind")
    parser.add_argument("--fit", type=int, default=24, help="traces to calibrate rules on")
    parser.add_argument("--only", default="", help="kinds whose name has a match of this pattern")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "quadrature.json")
    parser.add_argument("--plot", type=Path, default=HERE / "results" / "quadrature.png")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    results = Results(arguments.results)
    with ProcessPoolExecutor(arguments.workers) as pool:
        for kind in (kind for kind in KINDS if re.search(arguments.only, str(kind))):
            count = min(kind.traces, arguments.traces or kind.traces)
            rules = fit(kind, arguments.fit, pool)
            tasks = [(kind, number, rules) for number in range(count)]
            rows = [row for found in pool.map(judge_trace, tasks) for row in found]
            for summary in summarise(kind, rows):
                results.add({"group": "quadrature", **summary})
            print(f"{kind}: {count} traces", file=sys.stderr, flush=True)
    draw(arguments.results, arguments.plot, [str(KINDS[index]) for index in (0, 1, 9)])


if __name__ == "__main__":
    main()
