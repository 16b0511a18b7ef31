"""The models and traces that segment scores are compared on."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from segattr import EncodedTrace, FastIG, SegmentScorer, Trace, encode
from segattr.demo import load_demo
from segattr.demo.accuracy import answers_correctly
from segattr.demo.world import LEVELS, NECESSARY, REDUNDANT, sample

MADE_UP = Path(__file__).with_name("made_up_traces.jsonl")
SEED = 2026
SCORER, PAPER = SegmentScorer(tau=0.7, beta=1.0), SegmentScorer(tau=0.7, beta=0.8)


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
    settings: dict[str, Any] = {"baseline": baseline, "scope": kind.scope, "scorer": SCORER}
    auto: dict[str, Any] = {"rule": "auto", "agreement": 1, "max_evaluations": 65}  # of the tables
    return FastIG(model, tokenizer, **settings, **auto)


@lru_cache(maxsize=8)
def make_trace(model: str, number: int) -> tuple[EncodedTrace, list[bool | None]]:
    """The trace of this number, and which segments are necessary; None: neither that nor idle."""
    if model != "bundled":
        record = json.loads(MADE_UP.read_text().splitlines()[number])
        encoded = encode(Trace.from_record(record), load(model)[1])
        return encoded, record["metadata"]["necessary"]
    trace, necessary = fresh_trace(number)
    return encode(trace, load(model)[1]), necessary


def fresh_trace(number: int) -> tuple[Trace, list[bool | None]]:
    """A trace of the bundled model's world, one that it answers."""
    model, tokenizer = load("bundled")
    rng = random.Random(f"{SEED} {number}")
    while True:
        fresh = sample(rng, list(LEVELS.values())[number % len(LEVELS)])
        segments = [segment.text for segment in fresh.segments]
        trace = Trace(fresh.question, fresh.reasoning, fresh.answer, segments=segments)
        if answers_correctly(model, encode(trace, tokenizer)):
            break
    known = dict.fromkeys(NECESSARY, True) | dict.fromkeys(REDUNDANT, False)
    return trace, [known.get(kind) for kind in fresh.kinds]
