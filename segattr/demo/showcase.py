"""What ``segattr demo`` prints: one scored trace, and how the scores compare with the truth."""

from __future__ import annotations

import random
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
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
METHOD: dict[str, Any] = {"rule": "auto", "baseline": "pad", "scope": "reasoning"}
SCORER = SegmentScorer(tau=0.7, beta=1.0)
ASKED = {"model": BUNDLED, **METHOD}
FRESH_QUESTIONS = 50


def score_demo(records: Sequence[Mapping[str, Any]]) -> list[ScoredTrace]:
    """Score bundled traces; their ``metadata`` has the true ``kinds`` of their segments."""
    transformers.utils.logging.disable_progress_bar()
    model, tokenizer = load_demo()
    ig = FastIG(model, tokenizer, scorer=SCORER, **METHOD)
    scored = []
    for record in track(records, "scoring", console=Console(stderr=True)):
        trace = Trace.from_record(record)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UndecidedWarning)  # `print_trace` says it
            scored.append(score_trace(trace, encode(trace, tokenizer), ig, SCORER, ASKED))
    return scored


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
    with nullcontext() if out is None else ScoredWriter(out, ASKED) as writer:
        scored = score_demo(records)
        if writer is not None:
            for one in scored:
                writer.write(one)
    console = Terminal()
    shown = next(one for one in scored if one.id == wanted)
    print_trace(shown, console, labels=shown.metadata["kinds"])
    title = f"all {len(scored)} bundled traces, with what is known about their segments"
    console.print()
    console.rule(title, align="left")
    for line in comparison(scored):
        console.print(line)
    if out is not None:
        console.print(f"written to {out}; look at another with: segattr show {out} --id ID")


def comparison(scored: Sequence[ScoredTrace]) -> list[str]:
    """Lines that set the scores against the truth."""
    model, tokenizer = load_demo()
    rng = random.Random(7)
    fresh = [sample(rng, LEVELS["easy"]) for _ in range(FRESH_QUESTIONS)]
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
    return [
        f"fresh easy questions answered: {accuracy(model, tokenizer, fresh):.0%} given the trace, "
        f"{accuracy(model, tokenizer, fresh, NECESSARY):.0%} with the necessary segments taken out",
        f"necessary segments: {np.mean(kept[True]):.0%} of {len(kept[True])} kept, "
        f"redundant segments: {np.mean(kept[False]):.0%} of {len(kept[False])} kept",
        f"strength ranks a necessary segment above a redundant one in {np.mean(areas):.0%} of the "
        "pairs (AUROC)",
    ]


def auroc(positives: Sequence[float], negatives: Sequence[float]) -> float | None:
    """Probability that a positive is above a negative, ties counting half; None without both."""
    if not positives or not negatives:
        return None
    above = np.subtract.outer(positives, negatives)
    return float(np.mean((above > 0) + 0.5 * (above == 0)))
