"""What ``segattr demo`` prints: one scored trace, and how the scores compare with the truth."""

from __future__ import annotations

import random
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import transformers
from rich.console import Console
from rich.progress import track

from segattr.dataset.jsonl import ScoredWriter
from segattr.dataset.record import ScoredTrace
from segattr.dataset.runner import score_trace
from segattr.demo import BUNDLED, load_demo, load_records
from segattr.demo.accuracy import accuracy
from segattr.demo.world import LEVELS, NECESSARY, REDUNDANT, sample
from segattr.encoding import encode
from segattr.ig.fast_ig import FastIG
from segattr.report.terminal import Terminal, print_trace
from segattr.scores import SegmentScorer, UndecidedWarning
from segattr.trace import Trace

# Only the reasoning moves, which ranks segments better; segments of a dozen tokens are consistent
# by chance, so the consistency filter is off.
PATH: dict[str, Any] = {"baseline": "pad", "scope": "reasoning"}
METHODS = {"finite propagation": "secant", "Integrated Gradients": "auto"}
SHOWN, OTHER = METHODS
SCORER = SegmentScorer(tau=0.7, beta=1.0)
FRESH_QUESTIONS = 50


def score_demo(records: Sequence[Mapping[str, Any]], method: str) -> list[ScoredTrace]:
    """Score bundled traces; their ``metadata`` has the true ``kinds`` of their segments."""
    transformers.utils.logging.disable_progress_bar()
    model, tokenizer = load_demo()
    ig = FastIG(model, tokenizer, rule=METHODS[method], scorer=SCORER, **PATH)
    asked, scored = _asked(method), []
    for record in track(records, method, console=Console(stderr=True)):
        trace = Trace.from_record(record)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UndecidedWarning)  # `print_trace` says it
            scored.append(score_trace(trace, encode(trace, tokenizer), ig, SCORER, asked))
    return scored


def _asked(method: str) -> dict[str, Any]:
    return {"model": BUNDLED, "rule": METHODS[method], **PATH}


def run_demo(wanted: str, out: Path | None) -> None:
    """Score the bundled traces, show one of them, and print the comparison.

    Args:
        wanted: Id of the trace to show.
        out: Where to write the scored traces; a new file.

    Raises:
        ValueError: If there is no such trace.
        OSError: If ``out`` has content or cannot be written.
    """
    records = load_records()
    if wanted not in (ids := [record["id"] for record in records]):
        raise ValueError(f"id must be one of {', '.join(ids)}, got {wanted!r}.")
    with nullcontext() if out is None else ScoredWriter(out, _asked(SHOWN)) as writer:
        found = {method: score_demo(records, method) for method in METHODS}
        if writer is not None:
            for one in found[SHOWN]:
                writer.write(one)
    console = Terminal()
    shown, other = (next(one for one in found[method] if one.id == wanted) for method in METHODS)
    print_trace(shown, console, labels=shown.metadata["kinds"])
    numbers = [str(n) for n, segment in enumerate(other.segments, start=1) if segment.kept]
    console.print(f"{OTHER} keep segments {', '.join(numbers)}")
    title = f"all {len(records)} bundled traces, with what is known about their segments"
    console.print()
    console.rule(title, align="left")
    console.print(fresh_questions())
    for method, scored in found.items():
        console.print()
        console.print(f"{method} (rule={METHODS[method]!r}): {comparison(scored)}")
    if out is not None:
        console.print(f"written to {out}; look at another with: segattr show {out} --id ID")


def fresh_questions() -> str:
    """Say how well the model answers, with and without what is necessary."""
    model, tokenizer = load_demo()
    rng = random.Random(7)
    fresh = [sample(rng, LEVELS["easy"]) for _ in range(FRESH_QUESTIONS)]
    return (
        f"fresh easy questions answered: {accuracy(model, tokenizer, fresh):.0%} given the trace, "
        f"{accuracy(model, tokenizer, fresh, NECESSARY):.0%} with the necessary segments taken out"
    )


def comparison(scored: Sequence[ScoredTrace]) -> str:
    """Set the scores against the truth."""
    kept: dict[bool, list[bool]] = {True: [], False: []}  # by whether a segment is necessary
    areas = []
    for one in scored:
        strengths: dict[bool, list[float]] = {True: [], False: []}
        for segment, kind in zip(one.segments, one.metadata["kinds"], strict=True):
            if kind in NECESSARY | REDUNDANT:
                kept[kind in NECESSARY].append(segment.kept)
                strengths[kind in NECESSARY].append(segment.strength)
        if (area := auroc(strengths[True], strengths[False])) is not None:
            areas.append(area)
    evaluations = median(one.evaluations for one in scored)
    return (
        f"{evaluations:g} evaluation{'s' * (evaluations != 1)} a trace; kept are "
        f"{np.mean(kept[True]):.0%} of {len(kept[True])} necessary and {np.mean(kept[False]):.0%} "
        f"of {len(kept[False])} redundant segments; strength ranks a necessary one above a "
        f"redundant one in {np.mean(areas):.0%} of the pairs (AUROC)"
    )


def auroc(positives: Sequence[float], negatives: Sequence[float]) -> float | None:
    """Probability that a positive is above a negative, ties counting half; None without both."""
    if not positives or not negatives:
        return None
    above = np.subtract.outer(positives, negatives)
    return float(np.mean((above > 0) + 0.5 * (above == 0)))
