"""rule="auto" against 50 points, on the same engine and traces, in turns."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from statistics import mean
from time import perf_counter
from typing import Any

import pytest
import torch
from shapes import Shape, make_model, make_trace

import segattr.ig.rules
from segattr import Attribution, FastIG, Trace
from segattr.demo import load_demo, load_records
from segattr.quadrature.refinement import refine

# What the committed tables were measured with: no segment undecided, if that is possible.
AUTO = {"rule": "auto", "agreement": 1, "max_evaluations": 65}
RULES: dict[str, dict[str, Any]] = {
    "midpoint, 50 points": {"rule": "midpoint", "steps": 50},
    "linspace, 50 points (published)": {"rule": "linspace", "steps": 50},
    "auto": AUTO,
}
BUNDLED_TRACES = 12


class Inputs:
    """A model and traces."""

    def __init__(self, name: str, tokens: int) -> None:
        self.model: Any
        if name == "bundled":
            self.model, tokenizer = load_demo()
            encode = FastIG(self.model, tokenizer).encode
            records = load_records()[:: 36 // BUNDLED_TRACES]
            self.traces = [encode(Trace.from_record(record)) for record in records]
        else:
            self.model = make_model(name)
            self.traces = [make_trace(Shape(name, tokens, 0))]


@lru_cache(maxsize=1)
def inputs(model: tuple[str, int]) -> Inputs:
    return Inputs(*model)


def counting_refine(outside: list[float]) -> Callable:
    """`refine`, which also says how many seconds it took beyond evaluating the model."""

    def counted(evaluate: Callable, *arguments: Any) -> Any:
        inside = 0.0

        def timed(alphas: torch.Tensor) -> Any:
            nonlocal inside
            start = perf_counter()
            result = evaluate(alphas)
            inside += perf_counter() - start
            return result

        start = perf_counter()
        result = refine(timed, *arguments)
        outside.append(perf_counter() - start - inside)
        return result

    return counted


@pytest.mark.parametrize("variant", RULES)
@pytest.mark.parametrize("scope", ["reasoning", "all"])
def test_rule(
    benchmark: Any,
    record: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    rule_model: tuple[str, int],
    scope: str,
    repeat: int,
    variant: str,
) -> None:
    given = inputs(rule_model)
    ig = FastIG(given.model, scope=scope, **RULES[variant])
    outside: list[float] = []
    monkeypatch.setattr(segattr.ig.rules, "refine", counting_refine(outside))
    if repeat == 0:
        ig.attribute(given.traces[0])
    outside.clear()
    found: list[Attribution] = []
    benchmark.pedantic(lambda: found.extend(map(ig.attribute, given.traces)), rounds=1)
    record.update(
        group="rules",
        model=rule_model[0],
        tokens=mean(len(trace.input_ids) for trace in given.traces),
        scope=scope,
        traces=len(given.traces),
        variant=variant,
        repeat=repeat,
        evaluations=mean(attribution.evaluations for attribution in found),
        estimates_share=sum(outside) / benchmark.stats.stats.median,
    )


test_rule.variants = list(RULES)
