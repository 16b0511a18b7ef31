"""What 16 and 32 bits cost: token scores of finite propagation, and of one gradient, to float64.

python benchmarks/evidence_precision.py [--results FILE.json]

The bundled model on its bundled traces, and SmolLM2-135M-Instruct (`make real-model`) on the
first made-up ones. float64 has the weights as each dtype rounds them.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
import transformers
from measured import Results
from real_model import load_real

from segattr import FastIG, SegmentScorer, Trace
from segattr.demo import load_demo, load_records
from segattr.scores import jaccard

HERE = Path(__file__).parent
MADE_UP = HERE / "made_up_traces.jsonl"
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
REAL_TRACES = 5
SCORER = SegmentScorer(beta=1.0)


def models() -> Iterator[tuple[str, Any, Any, list[Trace]]]:
    yield "bundled", *load_demo(), [Trace.from_record(record) for record in load_records()]
    records = map(json.loads, MADE_UP.read_text().splitlines()[:REAL_TRACES])
    yield "SmolLM2-135M", *load_real(), [Trace.from_record(record) for record in records]


def measure(rounded: FastIG, exact: FastIG, trace: Trace) -> dict[str, float]:
    encoded = rounded.encode(trace)
    got, want = rounded.attribute(encoded), exact.attribute(encoded)
    gradients = [ig.integrand(encoded, [1.0])[1][0].double() for ig in (rounded, exact)]
    kept = [SCORER.score(attribution).kept for attribution in (got, want)]
    return {
        "gap": got.completeness_gap,
        "error": relative(got.token_scores.double(), want.token_scores),
        "gradient_error": relative(*gradients),
        "kept": jaccard(*kept),
    }


def relative(got: torch.Tensor, want: torch.Tensor) -> float:
    return float((got - want).norm() / want.norm())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=HERE / "results" / "secant-precision.json")
    arguments = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    results = Results(arguments.results)
    for name, model, tokenizer, traces in models():
        for dtype in DTYPES:
            converted = copy.deepcopy(model).to(dtype)
            for scope in ("reasoning", "all"):
                settings: dict[str, Any] = {"rule": "secant", "scope": scope}
                rounded = FastIG(converted, tokenizer, **settings)
                exact = FastIG(converted, tokenizer, dtype=torch.float64, **settings)
                rows = [measure(rounded, exact, trace) for trace in traces]
                summary = {
                    f"{kind}_{key}": function(row[key] for row in rows)
                    for key in ("gap", "error", "gradient_error", "kept")
                    for kind, function in (("median", median), ("worst", max), ("mean", mean))
                }
                dtype_name = str(dtype).removeprefix("torch.")
                case = {"model": name, "dtype": dtype_name, "scope": scope, "traces": len(rows)}
                results.add({"group": "precision", **case, **summary})
                print(name, dtype_name, scope, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
