"""Options, the order of the runs, and what is recorded of each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from measured import Results
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
