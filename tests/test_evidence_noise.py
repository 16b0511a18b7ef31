"""What is said of the noise of gradients can be measured again, and its tables say what was."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path

import pytest
import torch

from segattr import FastIG, Trace
from segattr.demo import load_records

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.append(str(BENCHMARKS))

import evidence_noise  # noqa: E402
import table  # noqa: E402


@pytest.fixture(scope="module")
def found(demo) -> dict[str, dict]:
    model, tokenizer = demo
    trace = Trace.from_record(load_records()[0])
    rows = {}
    for dtype in (torch.float32, torch.bfloat16):
        rounded = copy.deepcopy(model).to(dtype)
        exact = copy.deepcopy(rounded).double()
        pair = (FastIG(each, tokenizer, scope="reasoning") for each in (rounded, exact))
        row = evidence_noise.measure(*pair, trace, 9)
        rows[str(dtype)] = evidence_noise.summary([row])
    return rows


def test_narrow_dtypes_are_off_by_more(found):
    wide, narrow = found["torch.float32"], found["torch.bfloat16"]
    assert 0 < wide["integral_error"] < 1e-4 < narrow["integral_error"] < 0.5
    assert wide["said"] == 0 < narrow["said"] < 0.2
    assert wide["kept"] == 1
    for row in (wide, narrow):
        assert 0 < row["error"] <= row["worst_error"]
        assert 0 < row["of_F"] <= row["worst_of_F"]
        assert -1 <= row["next"] < 0.8


def test_parts_of_errors_are_told_apart():
    """Errors made by a known common factor, by own factors, and of the points' RMS."""
    generator = torch.Generator().manual_seed(0)
    random = torch.randn(200, 200, generator=generator, dtype=torch.float64)
    exact = torch.randn(200, 200, generator=generator, dtype=torch.float64) ** 3
    rms = exact.square().mean(1, keepdim=True).sqrt()
    for part, errors in (
        ("common", 0.2 * random[:, :1] * exact),
        ("own", 0.2 * random * exact),
        ("floor", 0.2 * random * rms),
    ):
        parts = evidence_noise.of_points(errors, exact, eps=0.1)
        assert parts[part] == pytest.approx(2, rel=0.15)
        assert parts["weighted_error"] == pytest.approx(2, rel=0.15)
        assert all(parts[other] < 1.3 for other in {"common", "own", "floor"} - {part})


def test_the_tables_have_every_column(found, tmp_path):
    case = {"model": "m", "dtype": "bfloat16", "scope": "all", "traces": 2, "points": 9}
    auto = {"known": False, "evaluations": 9.0, "stopped": 1, "error": 0.1, "claimed": 0.2}
    runs = [
        {"group": "noise", **case, **found["torch.bfloat16"]},
        {"group": "noisy auto", **case, **auto, "covered": 0.5},
    ]
    machine = {"device": "a machine", "versions": {"python": "3"}}
    path = tmp_path / "noise.json"
    path.write_text(json.dumps({"machine": machine, "commit": "c", "date": "d", "runs": runs}))
    printed = table.render(path)
    assert "| m, all: bfloat16 | 2 x 9 |" in printed
    assert "| m, all: bfloat16, unknown | 9.0 | 1 of 2 | 10.0% | 20.0% | 50% |" in printed
