"""The benchmarks run, compare like with like, and their tables say what the files say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from segattr import FastIG

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
def test_every_peer_computes_the_same_scores(case):
    model, trace, _ = case
    points = 4
    for name in peers.available_peers():
        rule = "riemann" if name == "captum" else "linspace"
        expected = FastIG(model, rule=rule, steps=points, baseline=0, engine="autograd")
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
    """52.2 TFLOP of projections and 2.8 of attention at 2,000 tokens."""
    with torch.device("meta"):
        model = shapes.Qwen2ForCausalLM(shapes.Qwen2Config(**shapes.MODELS["7B"]))
    assert shapes.path_flops(model, 2000) == pytest.approx(52.2e12 + 2.81e12, rel=1e-3)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The engines' suite at its smallest, as the makefile calls it."""
    path = tmp_path_factory.mktemp("results") / "cpu.json"
    command = [
        *(sys.executable, "-m", "pytest", str(BENCHMARKS / "bench_engines.py"), "--quiet"),
        *("--override-ini", "addopts=", "--override-ini", "filterwarnings=default"),
        *("--suite", "tiny", "--repeats", "2", f"--benchmark-json={path}"),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=BENCHMARKS.parent, env=os.environ, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return path


def test_a_result_file_says_everything_about_every_run(results):
    result = json.loads(results.read_text())
    assert result["machine_info"]["versions"]["torch"] == torch.__version__
    assert set(result["machine_info"]) == {"device", "versions"}
    assert set(result["commit_info"]) == {"id", "dirty"}
    runs = [(run["variant"], run["repeat"]) for run in result["benchmarks"]]
    names = peers.available_peers()
    assert runs[: len(names)] == [(name, 0) for name in names]
    assert sorted(runs) == sorted((name, repeat) for name in names for repeat in range(2))
    assert runs[len(names)][0] != names[0]  # each round starts with another one
    for run in result["benchmarks"]:
        assert run["seconds"] > 0
        assert run["peak_bytes"] >= 0
        assert 0 < run["ceiling_share"] < 1
        assert 0 <= run["kept_agreement"] <= 1


def test_the_table_has_the_medians_and_the_ratios(results, capsys, monkeypatch):
    result = json.loads(results.read_text())
    for run in result["benchmarks"]:
        run["seconds"] = {"published": 3.0, "fused": 1.5}.get(run["variant"], 1.0)
    result["benchmarks"][0]["seconds"] = 5.0  # one published run: the median is 4
    lone = {**result["benchmarks"][0], "variant": "huge", "out_of_memory": True}
    del lone["peak_bytes"]
    results.with_name("edited.json").write_text(
        json.dumps({**result, "benchmarks": [*result["benchmarks"], lone]})
    )
    monkeypatch.setattr(sys, "argv", ["table.py", str(results.with_name("edited.json"))])
    table.main()
    printed = capsys.readouterr().out
    assert "| published | 2000.0 | 1.00 |" in printed
    assert "| fused | 750.0 | 2.67 |" in printed
    assert "| huge | out of memory |" in printed


def test_the_committed_tables_are_those_of_the_committed_results(tmp_path, monkeypatch):
    committed = (BENCHMARKS / "README.md").read_text()
    (tmp_path / "results").symlink_to(BENCHMARKS / "results")
    monkeypatch.setattr(table, "HERE", tmp_path)
    monkeypatch.setattr(sys, "argv", ["table.py"])
    table.main()
    assert (tmp_path / "README.md").read_text() == committed


def test_gpu_check_is_a_shell_script_that_parses():
    subprocess.run(["bash", "-n", BENCHMARKS / "gpu_check.sh"], check=True)
