"""The traces that a real model is measured on, and what others have found out about them.

`made-up`: made_up_traces.jsonl, written for this purpose, with necessary and redundant segments.
`own`: own_traces.jsonl, which the model wrote itself.
`toy`: fresh traces of the bundled model's world, whose necessary segments are known.
`QwQ`: traces of QwQ-32B-Preview whose dependency graph was made by hand (texttechnologylab/RT-SEG,
MIT); a node is necessary if the conclusion depends on it. `R1`: traces of R1-Distill-Llama-8B with
what resampling a sentence changes (interp-reasoning/thought-anchors.com, MIT). Both are files in a
folder of the user's, in the form that `read_labelled` takes.
Axis: ``S`` segments.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from evidence_traces import SCORER, fresh_trace, load

from segattr import EncodedTrace, FastIG, Trace, encode

HERE = Path(__file__).parent
TOY_TRACES = 24
FILES = {
    "QwQ": "dependency-graph-qwq-32b-preview.jsonl",
    "R1": "counterfactual-deepseek-r1-distill-llama-8b.jsonl",
}


@dataclass(frozen=True)
class RealTrace:
    """One trace and what is known about its segments.

    Args:
        name: Of its kind and its own, such as ``"QwQ math_2"``.
        trace: With segments of its own, but for those the model wrote.
        necessary: Which segments are, ``S``; None: one that is neither that nor redundant.
        importance: How far resampling each segment moves the distribution of answers (KL), ``S``.
        headroom: How undecided the model was that was resampled, in [0, 1], ``S``.
    """

    name: str
    trace: Trace
    necessary: list[bool | None] | None = None
    importance: list[float] | None = None
    headroom: list[float] | None = None


def read_bundled(name: str) -> Iterator[RealTrace]:
    """Read the traces of a file beside this one."""
    for line in (HERE / f"{name.replace('-', '_')}_traces.jsonl").read_text().splitlines():
        record = json.loads(line)
        necessary = record.get("metadata", {}).get("necessary")
        yield RealTrace(record["id"].replace(f"{name}-", f"{name} "), Trace.from_record(record),
                        necessary)  # fmt: skip


def read_labelled(kind: str, folder: Path) -> Iterator[RealTrace]:
    """Read the traces of one of `FILES`, the shortest first; none if the folder has no such file.

    Each line has question, reasoning and answer; ``nodes`` or ``sentences`` with ``start`` (a
    character of the reasoning) and what is known about it.
    """
    path = folder / FILES[kind]
    lines = path.read_text().splitlines() if path.exists() else []
    for record in sorted(map(json.loads, lines), key=lambda record: len(record["reasoning"])):
        text = record["reasoning"]
        parts = record.get("nodes") or record["sentences"]
        edges = [0, *(part["start"] for part in parts[1:]), len(text)]
        segments = [text[start:stop] for start, stop in pairwise(edges)]
        name = record["id"].removesuffix("_QwQ-32B-Preview").split("/")[-1]
        trace = Trace(record["question"], text, record["answer"], segments=segments)
        yield RealTrace(f"{kind} {name}", trace, **_known(parts))


def _known(parts: list[dict[str, Any]]) -> dict[str, list[Any]]:
    if "necessary" in parts[0]:
        return {"necessary": [part["necessary"] for part in parts]}
    return {
        "importance": [part["counterfactual_kl"] for part in parts],
        "headroom": [1 - part["overdeterminedness"] for part in parts],
    }


def toy_traces() -> Iterator[RealTrace]:
    """Fresh traces of the bundled model's world."""
    for number in range(TOY_TRACES):
        yield RealTrace(f"toy {number + 1:02d}", *fresh_trace(number))


@cache
def load_traces(model: str, folder: Path) -> dict[str, RealTrace]:
    """A model's traces by their names.

    Args:
        model: ``"SmolLM2"`` or ``"bundled"``.
        folder: Of the `FILES`.
    """
    if model == "bundled":
        return {trace.name: trace for trace in toy_traces()}
    found = [*read_bundled("own"), *read_bundled("made-up")]
    found += [trace for kind in FILES for trace in read_labelled(kind, folder)]
    return {trace.name: trace for trace in found}


@cache
def make_ig(model: str, scope: str, baseline: str) -> FastIG:
    """The engine of a case."""
    return FastIG(*load(model), baseline=baseline, scope=scope, scorer=SCORER, rule="auto")


def encoded(model: str, trace: RealTrace) -> EncodedTrace:
    """The trace in the model's tokens; where it has no segments, in sentences."""
    return encode(trace.trace, load(model)[1], segmenter="sentences")
