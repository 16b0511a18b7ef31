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

from segattr.checks import require_word
from segattr.dataset.jsonl import ScoredWriter
from segattr.dataset.runner import score_trace
from segattr.demo import BUNDLED, load_demo, load_records
from segattr.demo.accuracy import accuracy
from segattr.demo.world import LEVELS, NECESSARY, REDUNDANT, sample
from segattr.ig.fast_ig import FastIG
from segattr.report.terminal import Terminal, print_trace
from segattr.scores import SegmentScorer, UndecidedWarning
from segattr.trace import Trace

# Only the reasoning moves, which ranks segments better; segments of a dozen tokens are consistent
# by chance, so the consistency filter is off.
METHOD: dict[str, Any] = {"rule": "auto", "baseline": "pad", "scope": "reasoning"}
SELECTION: dict[str, Any] = {"tau": 0.7, "beta": 1.0}
SETTINGS = {"model": BUNDLED, **METHOD, **SELECTION}
FRESH_QUESTIONS = 50


def score_demo(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Score bundled traces; every segment of the result also has its true ``kind``."""
    transformers.utils.logging.disable_progress_bar()
    model, tokenizer = load_demo()
    scorer = SegmentScorer(**SELECTION)
    ig = FastIG(model, tokenizer, scorer=scorer, **METHOD)
    scored = []
    for record in track(records, "scoring", console=Console(stderr=True)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UndecidedWarning)  # `print_trace` says it
            result = score_trace(ig, scorer, Trace.from_record(record), {}, SETTINGS)
        for segment, kind in zip(result["segments"], record["kinds"], strict=True):
            segment["kind"] = kind
        scored.append(result)
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
    require_word("--id", wanted, [record["id"] for record in records])
    with nullcontext() if out is None else ScoredWriter(out, SETTINGS) as writer:
        scored = score_demo(records)
        if writer is not None:
            for record in scored:
                writer.write(record)
    console = Terminal()
    print_trace(next(record for record in scored if record["id"] == wanted), console)
    title = f"all {len(scored)} bundled traces, with what is known about their segments"
    console.print()
    console.rule(title, align="left")
    for line in comparison(scored):
        console.print(line)
    if out is not None:
        console.print(f"written to {out}; look at another with: segattr show {out} --id ID")


def comparison(scored: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines that set the scores against the truth."""
    model, tokenizer = load_demo()
    rng = random.Random(7)
    fresh = [sample(rng, LEVELS["easy"]) for _ in range(FRESH_QUESTIONS)]
    segments = [segment for record in scored for segment in record["segments"]]
    necessary = [segment for segment in segments if segment["kind"] in NECESSARY]
    redundant = [segment for segment in segments if segment["kind"] in REDUNDANT]
    areas = [area for record in scored if (area := auroc(record["segments"])) is not None]
    return [
        f"fresh easy questions answered: {accuracy(model, tokenizer, fresh):.0%} given the trace, "
        f"{accuracy(model, tokenizer, fresh, NECESSARY):.0%} with the necessary segments taken out",
        f"necessary segments: {_share(necessary, 'kept'):.0%} of {len(necessary)} kept, "
        f"redundant segments: {_share(redundant, 'kept'):.0%} of {len(redundant)} kept",
        f"strength ranks a necessary segment above a redundant one in {np.mean(areas):.0%} of the "
        "pairs (AUROC)",
    ]


def auroc(segments: Sequence[Mapping[str, Any]]) -> float | None:
    """Probability that a necessary segment is stronger than a redundant one, if there are both."""
    necessary = np.array([s["strength"] for s in segments if s["kind"] in NECESSARY])
    redundant = np.array([s["strength"] for s in segments if s["kind"] in REDUNDANT])
    if not len(necessary) or not len(redundant):
        return None
    above = necessary[:, None] - redundant[None, :]
    return float(np.mean((above > 0) + 0.5 * (above == 0)))


def _share(segments: Sequence[Mapping[str, Any]], key: str) -> float:
    return sum(segment[key] for segment in segments) / len(segments)
