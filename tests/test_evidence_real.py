"""What is said of a real model follows from what was measured, and can be measured again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open

from segattr import EncodedTrace
from segattr.engine.autograd import AutogradEngine
from segattr.engine.decoder import why_not_fused
from segattr.ig.path import Path as EmbeddingPath
from segattr.quadrature.fixed import nodes_and_weights

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.append(str(BENCHMARKS))

import candidates  # noqa: E402
import evidence_integrands  # noqa: E402
import integrand_facts  # noqa: E402
import real_summary  # noqa: E402
import real_traces  # noqa: E402
import stored_path  # noqa: E402
import table  # noqa: E402

DATA = Path(__file__).parent / "data" / "real-path"
NOWHERE = Path("/nowhere")
REASONING = evidence_integrands.Case("bundled", "reasoning", "pad")
NAME = "toy 02"
OWN = list(real_traces.read_bundled("own"))


@pytest.fixture
def view(tmp_path):
    with evidence_integrands.open_path(REASONING, NAME, tmp_path, NOWHERE) as view:
        yield view


@pytest.mark.parametrize("trace", OWN, ids=lambda trace: trace.name)
def test_a_trace_of_the_models_own_takes_some_steps_to_the_answer(trace):
    encoded = real_traces.encoded("bundled", trace)
    assert len(encoded.segments) >= 3
    assert trace.trace.answer
    assert trace.necessary is None


def test_there_are_enough_traces():
    assert len(OWN) >= 8


def test_labelled_traces_are_cut_where_the_labels_are(tmp_path):
    nodes = [
        {"start": 0, "stop": 4, "necessary": False},
        {"start": 4, "stop": 9, "necessary": True},
    ]
    sentences = [
        {"start": 0, "stop": 3, "counterfactual_kl": 0.5, "overdeterminedness": 0.25},
        {"start": 4, "stop": 8, "counterfactual_kl": 0.0, "overdeterminedness": 1.0},
    ]
    texts = {"question": "q", "reasoning": "One. Two.", "answer": "2"}
    for kind, parts in (("QwQ", {"nodes": nodes}), ("R1", {"sentences": sentences})):
        line = json.dumps({"id": "maths/one_QwQ-32B-Preview", **texts, **parts})
        (tmp_path / real_traces.FILES[kind]).write_text(line + "\n")
    found = real_traces.load_traces("SmolLM2", tmp_path)
    assert found["QwQ one"].trace.segments == found["R1 one"].trace.segments == ["One.", " Two."]
    assert found["QwQ one"].necessary == [False, True]
    assert found["R1 one"].importance == [0.5, 0.0]
    assert found["R1 one"].headroom == [0.75, 0.0]


def test_a_point_is_evaluated_once(view, tmp_path, monkeypatch):
    alphas = torch.tensor([0.5, 0.0, 1.0], dtype=torch.float64)
    found = view.path.evaluate(alphas)
    exact = view.ig.integrand(view.encoded, alphas)
    torch.testing.assert_close(found, exact)
    assert view.path.evaluations == 3
    monkeypatch.setattr(type(view.path.engine), "evaluate", None)
    again = view.path.evaluate(alphas.flip(0))
    assert torch.equal(again[1], found[1].flip(0))
    with evidence_integrands.open_path(REASONING, NAME, tmp_path, NOWHERE) as other:
        assert torch.equal(other.path.evaluate(alphas)[1], found[1])
        other.path.is_complete = True
        with pytest.raises(KeyError, match="all of 1 path points"):
            other.path.evaluate(torch.tensor([0.25], dtype=torch.float64))


def test_points_of_something_else_are_an_error(view):
    view.path.evaluate(torch.ones(1, dtype=torch.float64))
    with pytest.raises(ValueError, match="must be of another model"):
        stored_path.Points(view.path.points.file, "another model")


def test_every_candidate_scores_a_trace(view):
    change = view.path.change()
    totals = {}
    for name, candidate in candidates.CANDIDATES.items():
        scores = candidate.score(view)
        assert scores.shape == view.encoded.input_ids.shape, name
        assert 0 < scores.abs().sum() < torch.inf, name
        totals[name] = float(scores.sum())
    assert totals["IDGI, 33 points"] == pytest.approx(change, rel=1e-9)
    assert totals["IG, 129 points"] == pytest.approx(change, rel=0.05)
    for name in candidates.CANDIDATES:
        if name.startswith("secant"):
            assert totals[name] == pytest.approx(change, rel=1e-9), name
    assert 0 < totals["attention"] <= 1 + 1e-6


@pytest.mark.parametrize(
    "name",
    [*(f"{name}, 33 points" for name in candidates.ALONG), "gradient x input",
     "gradient x input, 8 noisy"],
)  # fmt: skip
def test_candidates_that_take_gradients_run_on_both_engines(view, name):
    engine = AutogradEngine(view.ig.model, view.ends)
    other = replace(
        view, path=EmbeddingPath(engine, view.path.planner, len(view.encoded.input_ids))
    )
    score = candidates.CANDIDATES[name].score
    expected = score(view)
    # transformers takes norms in float32.
    assert (score(other) - expected).norm() <= 1e-5 * expected.norm()


def test_integrated_gradients_are_the_trapezoids_of_the_package(view):
    alphas, weights = nodes_and_weights("trapezoid", 9)
    _, values = view.ig.integrand(view.encoded, alphas)
    scores = candidates.integrated_gradients(view, 9)
    torch.testing.assert_close(scores, weights @ values.double())


def test_attention_leaves_the_model_as_it_was(view):
    candidates.attention(view)
    assert why_not_fused(view.ig.model) is None


class Known:
    """F and integrands of two tokens: a step of F in mid-path, and large gradients elsewhere."""

    def along(self, count):
        alphas = torch.linspace(0, 1, count, dtype=torch.float64)
        logprobs = torch.where(alphas < 0.5, 0.0, 8.0)
        rise = torch.where((alphas - 0.5).abs() < 1.5 / count, 8.0, 0.0)
        noise = 100 * torch.cos(torch.pi * alphas).abs()
        return logprobs, torch.stack([rise + 1e-9, noise], 1)


def test_weights_by_the_rise_of_f_pass_over_what_does_not_move_it():
    known = Known()
    plain = candidates.integrated_gradients(known, 33).abs()
    for score in (candidates.idgi, candidates.normalised_rise):
        scores = score(known, 33).abs()
        assert float(scores.sum()) == pytest.approx(8)
        assert scores[0] / scores[1] > 10 * plain[0] / plain[1]


def test_split_ig_stops_where_f_has_risen():
    _, values = Known().along(33)
    expected = candidates.middles(values)[:16].sum(0) / 32
    torch.testing.assert_close(candidates.split_ig(Known(), 33), expected)


@pytest.fixture
def cubic(tmp_path):
    """Points of F = 8 alpha^3, which one of two tokens makes alone."""
    points = stored_path.Points(tmp_path / "cubic.safetensors", "a cubic")
    grids = [torch.linspace(0, 1, count, dtype=torch.float64) for count in (129, 50)]
    alphas = torch.cat(grids).unique()
    slopes = 24 * alphas**2
    points.add(alphas, 8 * alphas**3, torch.stack([slopes, 0 * slopes], 1), 1.0)
    return points


ENCODED = EncodedTrace(torch.arange(4), (0, 0), [(0, 1), (1, 2)], (2, 3), torch.empty(0).long())


def test_the_shape_of_a_path(cubic):
    shape = integrand_facts.shape_of(cubic)
    assert shape["points"] == 129
    assert shape["variation"] == pytest.approx(1)
    assert shape["moved_half_at"] == pytest.approx(0.5 ** (1 / 3), abs=1 / 128)
    assert shape["idle_path"] == pytest.approx(0.1 ** (1 / 3), abs=1 / 128)
    assert shape["idle_size"] == pytest.approx(0.1, abs=0.01)
    assert (shape["peak"], shape["peak_at"]) == (1, 1)


def test_rules_are_judged_by_all_points(cubic):
    rows = {
        (row["rule"], row["evaluations"]): row for row in integrand_facts.rules_of(cubic, ENCODED)
    }
    # What the rules miss of a parabola is known: h^2 / 12 of the slopes' difference, and so on.
    assert rows["trapezoid", 9]["gap"] == pytest.approx(48 / 12 / 8**2 / 8, rel=1e-6)
    assert rows["riemann", 8]["gap"] == pytest.approx(24 / 2 / 8 / 8 + 48 / 12 / 8**2 / 8, rel=1e-6)
    # Equal weights give the ends twice their due, of 50.
    assert rows["linspace", 50]["gap"] == pytest.approx((12 - 8) / 50 / 8, rel=0.03)
    assert rows["trapezoid", 129]["token_error"] < 1e-4
    assert rows["trapezoid", 65]["kept"] == 1


@pytest.fixture(params=["reasoning", "all"])
def real(request):
    """A path of SmolLM2-135M-Instruct on a trace of its own, as it was stored, and its rows."""
    file = DATA / f"{request.param}.safetensors"
    with safe_open(file, "pt") as stored:
        points = stored_path.Points(file, stored.metadata()["what"])
    spans = json.loads((DATA / "spans.json").read_text())
    encoded = EncodedTrace(
        torch.arange(spans["tokens"]), spans["prompt"], spans["segments"], spans["target"],
        torch.empty(0).long(),
    )  # fmt: skip
    engine = SimpleNamespace(dtype=torch.float32)
    path = stored_path.StoredPath(engine, None, spans["tokens"], points)
    return request.param, list(integrand_facts.facts_of(path, encoded))


def test_the_rows_of_a_real_path_are_those_in_the_table(real):
    scope, rows = real
    stored = json.loads((BENCHMARKS / "results" / "integrands.json").read_text())["runs"]
    wanted = [
        {key: value for key, value in row.items() if key not in ("kind", "trace")}
        for row in stored
        if (row["kind"], row["trace"]) == (f"SmolLM2, {scope}, pad", "own 07")
    ]
    assert len(rows) == len(wanted) > 30
    for found, row in zip(rows, wanted, strict=True):
        assert found == {key: pytest.approx(value, rel=1e-6) if isinstance(value, float) else value
                         for key, value in row.items()}  # fmt: skip


def test_what_is_said_of_a_real_path_holds(real):
    scope, rows = real
    groups = {group: [row for row in rows if row["group"] == group] for group in
              ("real rules", "real auto", "real errors")}  # fmt: skip
    (published,) = (row for row in groups["real rules"] if row["evaluations"] == 50)
    assert (published["token_error"] > 1) is (scope == "all")
    for row in groups["real auto"]:
        if row["converged"]:
            assert row["gap"] <= 0.05
            assert row["kept"] >= row["agreement"]
            assert row["token_error"] < 0.1
    assert any(row["converged"] for row in groups["real auto"])
    for row in groups["real errors"]:
        assert row["inside"] >= 0.99
        assert row["real_error"] <= row["estimated_error"]


def test_a_partial_correlation_leaves_out_what_is_given():
    one = [1.0, 3.0, 2.0, 4.0, 6.0, 5.0]
    order = list(range(6))
    assert real_summary.partial(one, one, [order]) == pytest.approx(1)
    assert real_summary.partial(one, order, [order]) == 0
    left = [0.0, 2.0, 1.0, 3.0, 5.0, 4.0]  # the same ranks
    assert real_summary.partial(one, left, [order, [1, 1, 2, 1, 1, 1]]) == pytest.approx(1)


def fact(necessary=None, **more):
    return {
        "kind": "m, any path, -",
        "method": "facts",
        "necessary": necessary,
        "importance": None,
        "headroom": None,
        "lengths": [5, 7, 6, 4],
        "tokens": 30,
        "logprob": -1.0,
        "logprob_without": -5.0,
        **more,
    }


def attempt(method, strength, kind="m, any path, -", **more):
    return {
        "kind": kind,
        "method": method,
        "units": 4,
        "seconds": 0.5,
        "strength": strength,
        "signed": strength,
        "deleted": [-1.0, -3.0],
        "kept": [-5.0, -2.0],
        **more,
    }


def test_a_summary_says_what_was_measured():
    falls = [0.1, -3.0, 0.2, 1.0]
    rows = [
        {**row, "trace": trace}
        for trace in ("own 01", "own 02")
        for row in (
            fact([False, True, False, True]),
            attempt("deletion", [0.1, 3.0, 0.2, 1.0], signed=falls),
            attempt("blocked attention", [3.0, 0.1, 0.2, 1.0]),
            attempt("IG", [0.1, 0.4, 0.2, 0.3], kind="m, all, pad"),
        )
    ]
    unread = {**fact(logprob_without=-1.5), "trace": "own 03"}
    rows += [unread, {**attempt("IG", [1.0, 0, 0, 0], kind="m, all, pad"), "trace": "own 03"}]
    found = {(row.get("kind"), row.get("method")): row for row in real_summary.summaries(rows)}
    row = found["m, all, pad", "IG"]
    assert row["traces"] == 2
    assert row["auroc"] == 1
    assert row["deletion"] == pytest.approx(1)
    assert row["blocked attention"] == pytest.approx(-0.8)
    assert row["deleted"] == pytest.approx((1 + 0.5) / 2)
    assert row["kept"] == pytest.approx((0 + 0.75) / 2)
    assert row["importance"] is None
    assert sum(row["group"] == "real traces" for row in real_summary.summaries(rows)) == 3
    assert "| IG | 2 | 4 | 0.5 | 1.00 [1.00, 1.00]" in table.table_real.scores_table([row])


@pytest.mark.slow(reason="four runs of Python, each with a model")
def test_the_evidence_can_be_measured_again_and_goes_on(tmp_path):
    environment = {**os.environ, "COMMIT": "here", "OMP_NUM_THREADS": "1"}

    def run(script, *arguments):
        command = [sys.executable, BENCHMARKS / script, "--model", "bundled", "--store",
                   tmp_path / "points", "--workers", "1", *arguments]  # fmt: skip
        subprocess.run(command, check=True, env=environment, capture_output=True)

    results = tmp_path / "integrands.json"
    run("evidence_integrands.py", "--only", f"reasoning, pad, {NAME}", "--points", "129",
        "--published", "--refined", "65", "--results", results)  # fmt: skip
    first = json.loads(results.read_text())["runs"]
    assert {row["group"] for row in first} == {
        "integrands", "real rules", "real auto", "real errors"
    }  # fmt: skip
    assert results.with_suffix(".png").stat().st_size > 10_000
    assert "linspace, as published" in table.render(results)
    run("evidence_integrands.py", "--points", "0", "--results", results)
    assert json.loads(results.read_text())["runs"] == first

    results = tmp_path / "real.json"
    only = ("--only", f"(any path|reasoning, pad).*{NAME}", "--results", results)
    run("evidence_real.py", *only, "--methods", "facts|deletion|blocked")
    run("evidence_real.py", *only, "--methods", "facts|deletion|blocked|secant, 1, mean")
    lines = results.with_suffix(".jsonl").read_text().splitlines()
    assert len(lines) == 4
    assert "secant, 1, mean" in table.render(results)
