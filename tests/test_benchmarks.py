"""The benchmarks run, compare like with like, and their tables say what the files say."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from segattr import FastIG
from segattr.quadrature.fixed import RULES

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.append(str(BENCHMARKS))

import peers  # noqa: E402
import shapes  # noqa: E402
import table  # noqa: E402


@pytest.fixture(scope="module")
def case():
    shape = shapes.SUITES["tiny"][0]
    return shapes.make_model(shape.model), shapes.make_trace(shape), shape


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.compile meets its own
@pytest.mark.slow(reason="compiles a model with torch.compile")
def test_every_peer_computes_the_same_scores(case):
    model, trace, _ = case
    points = 4
    for name in set(peers.available_peers()) & set(peers.SAME_SCORES):
        rule = "riemann" if name == "captum" else "linspace"
        expected = FastIG(
            model, rule=rule, steps=points, baseline=0, engine="autograd", scope="all"
        )
        expected = expected.attribute(trace).token_scores
        got = peers.peer(name, model, trace, points)()
        assert (got - expected).norm() <= 1e-5 * expected.norm(), name
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any("forward" in vars(layer) for layer in model.model.layers)


def test_the_compiled_peer_is_compiled(case, monkeypatch):
    model, trace, _ = case
    compiled = []
    monkeypatch.setattr(
        torch,
        "compile",
        lambda forward, **_: lambda *a, **k: compiled.append(1) or forward(*a, **k),
    )
    peers.peer("autograd, compiled", model, trace, 2)()
    assert len(compiled) == model.config.num_hidden_layers


def test_path_flops_of_a_7b_model():
    """28 layers but one of 233.05 M weights, and 3.67 M; 3,584 channels in 27 layers."""
    with torch.device("meta"):
        model = shapes.Qwen2ForCausalLM(shapes.Qwen2Config(**shapes.MODELS["7B"]))
    expected = 4 * (27 * 233.05e6 + 3.67e6) * 2000 + 7 * 27 * 3584 * 2000**2
    assert shapes.path_flops(model, 2000) == pytest.approx(expected, rel=1e-4)


def test_every_rule_has_both_ends_in_every_suite():
    """With one point, neither linspace nor captum would run."""
    assert all(shape.points >= 2 for suite in shapes.SUITES.values() for shape in suite)


def run_pytest(*arguments: str | Path) -> str:
    """What pytest prints about benchmarks, called as the makefile does."""
    command = [
        *(sys.executable, "-m", "pytest", *arguments, "--suite=tiny"),
        *("--override-ini", "addopts=", "--override-ini", "filterwarnings=default"),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=BENCHMARKS.parent, env=os.environ, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run_bench(file: str, path: Path, *options: str) -> dict:
    """A suite at its smallest."""
    run_pytest(BENCHMARKS / file, "--quiet", f"--results={path}", *options)
    return json.loads(path.read_text())


def test_every_benchmark_is_collected_and_those_of_a_gpu_skip_without_one():
    files = sorted(BENCHMARKS.glob("bench_*.py"))
    lines = run_pytest(*files, "--setup-plan", "-v", "--repeats=1").splitlines()
    for file in files:
        assert any(f"{file.name}::" in line for line in lines), file.name
    of_gpu = [line for line in lines if "bench_machine.py::" in line]
    assert torch.cuda.is_available() or all("SKIPPED" in line for line in of_gpu)


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict:
    path = tmp_path_factory.mktemp("results") / "cpu.json"
    path.write_text("what an earlier run left")
    return run_bench("bench_engines.py", path, "--repeats=2")


@pytest.mark.slow(reason="measures every peer twice, one of them compiled")
def test_a_result_file_says_everything_about_every_run(results):
    assert results["machine"]["versions"]["torch"] == torch.__version__
    assert set(results) == {"machine", "commit", "date", "runs"}
    runs = [(run["variant"], run["repeat"]) for run in results["runs"]]
    names = peers.available_peers()
    assert runs[: len(names)] == [(name, 0) for name in names]
    assert sorted(runs) == sorted((name, repeat) for name in names for repeat in range(2))
    assert runs[len(names)][0] != names[0]  # each round starts with another one
    for run in results["runs"]:
        assert run["seconds"] > 0
        assert run["peak_bytes"] >= 0
        if run["variant"] in peers.SAME_SCORES:
            assert 0 < run["ceiling_share"] < 1
            assert 0 <= run["kept_agreement"] <= 1


@pytest.mark.slow(reason="a process of its own, 13 rounds of every op")
def test_the_ops_are_measured(tmp_path):
    runs = run_bench("bench_ops.py", tmp_path / "ops.json", "--repeats=1", "-k", "0-torch-")["runs"]
    assert len(runs) == 14
    assert all(run["seconds"] > 0 and run["gigabytes_per_second"] > 0 for run in runs)


@pytest.mark.slow(reason="needs the runs of the result file")
def test_the_table_has_the_medians_and_the_ratios(results, capsys, monkeypatch, tmp_path):
    seconds = {"published": 3.0, "fused": 1.5}
    runs = [{**run, "seconds": seconds.get(run["variant"], 1.0)} for run in results["runs"]]
    runs[0]["seconds"] = 5.0  # one published run: the median is 4
    lone = {key: runs[0][key] for key in ("group", "shape", "model", "tokens", "points")}
    runs.append({**lone, "variant": "huge", "out_of_memory": True})
    (tmp_path / "edited.json").write_text(json.dumps({**results, "runs": runs}))
    monkeypatch.setattr(sys, "argv", ["table.py", str(tmp_path / "edited.json")])
    table.main()
    printed = capsys.readouterr().out
    assert "| published | 2000.0 | 1.00 |" in printed
    assert "| fused | 750.0 | 2.67 |" in printed
    assert "| secant | 1000.0 in all | 4.00 |  |" in printed
    assert "| huge | out of memory |" in printed


@pytest.mark.slow(reason="a process of its own")
def test_a_piece_is_timed_against_a_path_point(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["table.py", str(tmp_path / "secant.json")])
    found = run_bench("bench_secant.py", tmp_path / "secant.json", "--repeats=1", "-k", "1000")
    runs = {run["variant"]: run for run in found["runs"]}
    assert set(runs) == {"path point", "piece, mean split", "piece, content split"}
    runs["piece, mean split"]["seconds"] = 3 * runs["path point"]["seconds"]
    (tmp_path / "secant.json").write_text(json.dumps(found))
    table.main()
    printed = capsys.readouterr().out
    assert re.search(r"small, 1,000 tokens: piece, mean split \| [\d,]+ \| 3\.00 \|", printed)


def test_rules_are_timed_on_the_same_traces(tmp_path, monkeypatch, capsys):
    found = run_bench("bench_rules.py", tmp_path / "rules.json", "--repeats=1")
    runs = {(run["scope"], run["variant"]): run for run in found["runs"]}
    assert len(runs) == 6
    assert runs["all", "midpoint, 50 points"]["evaluations"] == 50
    assert 9 <= runs["all", "auto"]["evaluations"] <= 65
    assert 0 < runs["all", "auto"]["estimates_share"] < 1
    runs["all", "auto"]["seconds"] = runs["all", "midpoint, 50 points"]["seconds"] / 4
    (tmp_path / "rules.json").write_text(json.dumps(found))
    monkeypatch.setattr(sys, "argv", ["table.py", str(tmp_path / "rules.json")])
    table.main()
    assert " | 4.00 | " in capsys.readouterr().out


@pytest.mark.slow(reason="every rule and a reference of 513 points")
def test_the_rules_evidence(tmp_path, monkeypatch, capsys):
    """On two traces of one random model; tables and plot included."""
    results, plot = tmp_path / "quadrature.json", tmp_path / "quadrature.png"
    command = [sys.executable, str(BENCHMARKS / "evidence_quadrature.py"), "--traces=2", "--fit=8"]
    command += ["--only=2 layers, pad, reasoning", f"--results={results}", f"--plot={plot}"]
    subprocess.run(command, check=True, capture_output=True, env=os.environ)
    runs = json.loads(results.read_text())["runs"]
    assert {run["kind"] for run in runs} == {"random, 2 layers, pad, reasoning"}
    of = {(run["rule"], run["evaluations"]): run for run in runs}
    assert {rule for rule, _ in of} == {
        *RULES,
        "auto",
        "auto, stopped at",
        "calibrated",
        "quantiles of F",
    }
    for rule in ("midpoint", "gauss-legendre", "trapezoid", "auto, stopped at"):
        errors = [of[rule, points]["median_token_error"] for points in (9, 17, 50)]
        assert errors == sorted(errors, reverse=True)
        assert errors[-1] < 0.02
    (auto,) = (run for run in runs if run["rule"] == "auto")
    assert auto["converged"] == 2
    assert auto["worst_kept_converged"] == 1
    assert plot.stat().st_size > 10_000
    monkeypatch.setattr(sys, "argv", ["table.py", str(results)])
    table.main()
    printed = capsys.readouterr().out
    assert "**random, 2 layers, pad, reasoning**, 2 traces" in printed
    assert "| linspace | 50 |" in printed


def test_the_committed_tables_are_those_of_the_committed_results(tmp_path, monkeypatch):
    committed = (BENCHMARKS / "README.md").read_text()
    (tmp_path / "results").symlink_to(BENCHMARKS / "results")
    monkeypatch.setattr(table, "HERE", tmp_path)
    monkeypatch.setattr(sys, "argv", ["table.py"])
    table.main()
    assert (tmp_path / "README.md").read_text() == committed


def test_gpu_check_is_a_shell_script_that_parses():
    subprocess.run(["bash", "-n", BENCHMARKS / "gpu_check.sh"], check=True)
