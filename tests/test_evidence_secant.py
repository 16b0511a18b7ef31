"""What is said of finite propagation follows from what was measured, and can be measured again."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from segattr import FastIG, Trace
from segattr.demo import load_records

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.append(str(BENCHMARKS))

import evidence_precision  # noqa: E402
import evidence_summary  # noqa: E402
import table  # noqa: E402

MADE_UP = (BENCHMARKS / "made_up_traces.jsonl").read_text().splitlines()


@pytest.mark.parametrize("line", MADE_UP, ids=lambda line: json.loads(line)["id"])
def test_a_made_up_trace_has_necessary_and_redundant_segments(line):
    record = json.loads(line)
    trace = Trace.from_record(record)
    labels = record["metadata"]["necessary"]
    assert "".join(record["segments"]) == trace.reasoning
    assert 5 <= len(labels) == len(trace.segments) <= 8
    assert {True, False} <= set(labels) <= {True, False, None}


def test_there_are_enough_made_up_traces():
    assert len({json.loads(line)["id"] for line in MADE_UP}) == len(MADE_UP) >= 12


def measured(kind: str, trace: int, method: str, signed: list[float], **more: object) -> dict:
    total = sum(map(abs, signed))
    return {
        "kind": kind,
        "trace": trace,
        "method": method,
        "signed": signed,
        "strength": [abs(value) / total for value in signed],
        "consistency": [1.0, 0.5, 0.25],
        "important": [abs(value) > 0.3 * total for value in signed],
        "important_at_beta": [False] * 3,
        "total": sum(signed),
        "units": 4,
        "seconds": 0.5,
        **more,
    }


def truth(trace: int, shapley: list[float]) -> dict:
    games = ("leave one out", "deletion", "blocked attention", "Shapley")
    return {
        "kind": "k",
        "trace": trace,
        "method": "yardsticks",
        **dict.fromkeys(games, shapley),
        "necessary": [True, None, False],
        "error": [0.0] * 3,
        "lengths": [1, 1, 1],
        "tokens": 10,
        "logprob_without_necessary": -5.0 - trace,
        "target_logprob": -1.0,
        "baseline_logprob": -11.0,
    }


@pytest.fixture
def rows() -> list[dict]:
    """One method right about both traces, one wrong about the second."""
    return [
        truth(0, [8.0, 1.0, 1.0]),
        truth(1, [6.0, 2.0, 2.0]),
        measured("k", 0, "secant, 1, mean", [8.0, 1.0, 1.0]),
        measured("k", 1, "secant, 1, mean", [6.0, 2.0, 2.0]),
        measured("k", 0, "secant, 1, content", [8.0, 1.0, 1.0]),
        measured("k", 1, "secant, 1, content", [2.0, 2.0, 6.0]),
        measured("k", 0, evidence_summary.REFERENCE, [8.0, 1.0, 1.0]),
        measured("k", 1, evidence_summary.REFERENCE, [2.0, 2.0, 6.0]),
    ]


def test_traces_are_described(rows):
    (found,) = (row for row in evidence_summary.summaries(rows) if "least_fall" in row)
    assert (found["traces"], found["least_fall"], found["without_necessary"]) == (2, 4.0, -5.5)
    assert found["Shapley_error,_%"] == 0


def test_a_method_is_judged_by_labels_and_values(rows):
    found = {row["method"]: row for row in evidence_summary.summaries(rows) if "method" in row}
    right, wrong = found["secant, 1, mean"], found["secant, 1, content"]
    assert (right["auroc"], wrong["auroc"]) == (1.0, 0.5)
    assert (right["necessary_important"], wrong["necessary_important"]) == (1.0, 0.5)
    assert (right["redundant_important"], wrong["redundant_important"]) == (0.0, 0.5)
    assert (right["agreement"], wrong["agreement"]) == (0.5, 1.0)
    assert right["pearson Shapley"] == pytest.approx(1)
    assert wrong["pearson Shapley"] == pytest.approx((1 - 0.5) / 2)
    assert right["error Shapley"] == 0
    assert right["necessary_consistency"] == 1.0
    assert right["incompleteness"] == 0
    assert found["Shapley"]["auroc"] == 1.0
    assert found["Shapley"]["units"] is None


def test_an_error_bar_is_compared_with_the_error(rows):
    (bar,) = (row for row in evidence_summary.summaries(rows) if "bar" in row)
    assert bar["bar"] == "mean split, content split"
    assert bar["median_bar"] == pytest.approx(32**0.5 / 44**0.5 / 2)
    assert bar["median_error"] == 0
    assert (bar["segments"], bar["misjudged"], bar["misjudged_auroc"]) == (4, 0, None)


def test_the_larger_bar_of_a_misjudged_segment_shows(rows):
    swapped = {"secant, 1, mean": "secant, 1, content", "secant, 1, content": "secant, 1, mean"}
    for row in rows:
        row["method"] = swapped.get(row["method"], row["method"])
    (bar,) = (row for row in evidence_summary.summaries(rows) if "bar" in row)
    assert (bar["misjudged"], bar["misjudged_auroc"]) == (2, 1.0)
    assert bar["between_traces"] == pytest.approx(1)


def test_the_tables_name_every_method(rows, tmp_path):
    runs = list(evidence_summary.summaries(rows))
    machine = {"device": "a machine", "versions": {"python": "3"}}
    path = tmp_path / "secant.json"
    path.write_text(json.dumps({"machine": machine, "commit": "c", "date": "d", "runs": runs}))
    printed = table.render(path)
    assert "**k**, 2 traces, 2 with Shapley values" in printed
    assert "| **secant, 1, mean** | 2 | 4 | 0.50 | 0.0% | 1.000 [1.000, 1.000] |" in printed
    assert "| blocked attention |" in printed
    assert "| k | 2 | 10.0 | 3.0 | -1.0 | -11.0 | -5.5 | 4.0 | 0.0 |" in printed
    assert "| k: mean split, content split | 2 |" in printed


@pytest.mark.slow(reason="every method on two traces of the bundled model, in processes")
def test_a_run_that_was_stopped_goes_on(tmp_path):
    results = tmp_path / "secant.json"

    def run(traces: int) -> list[str]:
        command = [sys.executable, str(BENCHMARKS / "evidence_secant.py"), f"--traces={traces}"]
        command += ["--only=bundled, reasoning, pad", f"--results={results}", "--workers=2"]
        subprocess.run(command, check=True, capture_output=True, env=os.environ)
        return results.with_suffix(".jsonl").read_text().splitlines()

    first = run(1)
    results.with_suffix(".jsonl").write_text("".join(f"{line}\n" for line in first[:-3]))
    both = run(2)
    assert both[: len(first) - 3] == first[:-3]
    done = [(row["trace"], row["method"]) for row in map(json.loads, both)]
    assert len(set(done)) == len(done) == 2 * len(first)
    runs = {row.get("method"): row for row in json.loads(results.read_text())["runs"]}
    assert runs["secant, 1, mean"]["pearson Shapley"] > 0.9
    assert runs["IG, 129 points"]["incompleteness"] < 1e-3
    # Against F of transformers, whose norms are float32 even in a float64 model.
    for split in ("mean", "content", "chord", "sdpa"):
        assert runs[f"secant, 2, {split}"]["incompleteness"] < 1e-6


def test_precision_is_judged_against_float64(demo):
    """float32 loses little, and float16 a thousand times as much."""
    model, tokenizer = demo
    trace = Trace.from_record(load_records()[0])
    rows = []
    for dtype in (torch.float32, torch.float16):
        converted = copy.deepcopy(model).to(dtype)
        rounded, exact = (
            FastIG(converted, tokenizer, rule="secant", scope="reasoning", dtype=wanted)
            for wanted in (None, torch.float64)
        )
        rows.append(evidence_precision.measure(rounded, exact, trace))
    wide, narrow = rows
    assert 0 < wide["gap"] < 1e-4 < narrow["gap"] < 1e-2
    assert 0 < wide["error"] < 1e-4 < narrow["error"] < 1e-1
    assert wide["kept"] == narrow["kept"] == 1
