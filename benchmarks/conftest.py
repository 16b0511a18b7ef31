"""Options, the order of the runs, and the file of results."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import subprocess
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import cpuinfo
import pytest
import torch
import transformers
from shapes import RULE_MODELS, SUITES

CASE = ("op", "shape", "size", "rule_model", "scope")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--suite", choices=list(SUITES), help="default: gpu if there is one, or cpu")
    parser.addoption("--repeats", type=int, default=5, help="rounds over all variants")
    parser.addoption("--results", type=Path, help="file to write, which replaces it")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    suite = metafunc.config.getoption("--suite") or ("gpu" if torch.cuda.is_available() else "cpu")
    if "shape" in metafunc.fixturenames:
        metafunc.parametrize("shape", SUITES[suite], ids=str)
    if "rule_model" in metafunc.fixturenames:
        metafunc.parametrize("rule_model", RULE_MODELS[suite])
    if "repeat" in metafunc.fixturenames:
        metafunc.parametrize("repeat", range(metafunc.config.getoption("--repeats")))


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Interleave what is compared, and start each round with another variant: machines drift."""

    cases: dict[tuple, int] = {}  # in the order they appear

    def place(item: Any) -> tuple:
        if not hasattr(item.function, "variants"):
            return (item.path.name, 0, 0, 0)
        params, variants = item.callspec.params, item.function.variants
        case = tuple(str(params[key]) for key in CASE if key in params)
        turn = (variants.index(params["variant"]) - params["repeat"]) % len(variants)
        return (item.path.name, cases.setdefault(case, len(cases)), params["repeat"], turn)

    items.sort(key=place)


class Results:
    """A file of results, rewritten after every run: one that is stopped leaves what it measured."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.unlink(missing_ok=True)
        self.content: dict[str, Any] = {
            "machine": describe_machine(),
            "commit": describe_commit(),
            "date": date.today().isoformat(),
            "runs": [],
        }

    def add(self, run: dict[str, Any]) -> None:
        self.content["runs"].append(run)
        self.path.write_text(json.dumps(self.content, indent=1) + "\n")


@pytest.fixture(scope="session")
def results(request: pytest.FixtureRequest) -> Results | None:
    path = request.config.getoption("--results")
    return None if path is None else Results(path)


@pytest.fixture
def record(benchmark: Any, results: Results | None) -> Iterator[dict[str, Any]]:
    """What a test says about its run; the median time is added if there is one."""
    run: dict[str, Any] = {}
    yield run
    if benchmark.stats is not None and benchmark.stats.stats.data:
        run["seconds"] = benchmark.stats.stats.median
    measured = "seconds" in run or "out_of_memory" in run
    if measured and results is not None:
        results.add(run)


def describe_commit() -> str:
    """Its hash, and whether anything but results differs from it."""
    if commit := os.environ.get("COMMIT"):
        return commit

    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    changes = [line for line in git("status", "--porcelain").splitlines() if "results/" not in line]
    return (git("rev-parse", "HEAD")[:12] or "unknown") + " with changes" * bool(changes)


def describe_machine() -> dict[str, Any]:
    """What decides the numbers, and nothing that names the machine's owner."""
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    versions["transformers"] = transformers.__version__
    if importlib.util.find_spec("triton") is not None:
        versions["triton"] = importlib.metadata.version("triton")
    if torch.cuda.is_available():
        versions |= {"cuda": torch.version.cuda, "cudnn": str(torch.backends.cudnn.version())}
        return {"device": torch.cuda.get_device_name(), "versions": versions}
    cpu = cpuinfo.get_cpu_info().get("brand_raw", platform.machine())
    return {"device": f"{cpu}, {torch.get_num_threads()} threads", "versions": versions}
