"""Options, the order of the runs, and what the result files say about the machine."""

from __future__ import annotations

import platform
from typing import Any

import pytest
import torch
import transformers
from shapes import SUITES


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--suite", choices=list(SUITES), help="default: gpu if there is one, or cpu")
    parser.addoption("--repeats", type=int, default=5, help="rounds over all variants")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    suite = metafunc.config.getoption("--suite") or ("gpu" if torch.cuda.is_available() else "cpu")
    if "shape" in metafunc.fixturenames:
        metafunc.parametrize("shape", SUITES[suite], ids=str)
    if "repeat" in metafunc.fixturenames:
        metafunc.parametrize("repeat", range(metafunc.config.getoption("--repeats")))


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Interleave what is compared, and start each round with another variant: machines drift."""

    cases: dict[tuple, int] = {}  # in the order they appear

    def place(item: Any) -> tuple:
        if not hasattr(item.function, "variants"):
            return (item.path.name, 0, 0, 0)
        params, variants = item.callspec.params, item.function.variants
        case = tuple(str(params[key]) for key in ("op", "shape", "size") if key in params)
        turn = (variants.index(params["variant"]) - params["repeat"]) % len(variants)
        return (item.path.name, cases.setdefault(case, len(cases)), params["repeat"], turn)

    items.sort(key=place)


def pytest_benchmark_update_machine_info(config: Any, machine_info: dict[str, Any]) -> None:
    """What decides the numbers, and nothing that names the machine's owner."""
    cpu = machine_info.get("cpu", {}).get("brand_raw", platform.machine())
    machine_info.clear()
    machine_info.update(describe_machine(cpu))


def describe_machine(cpu: str) -> dict[str, Any]:
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    versions["transformers"] = transformers.__version__
    try:
        import triton

        versions["triton"] = triton.__version__
    except ImportError:
        pass
    if not torch.cuda.is_available():
        return {"device": f"{cpu}, {torch.get_num_threads()} threads", "versions": versions}
    versions |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    return {"device": torch.cuda.get_device_name(), "versions": versions}


def pytest_benchmark_update_json(config: Any, benchmarks: Any, output_json: dict) -> None:
    """Keep the one time of every run and what belongs to it."""
    output_json["benchmarks"] = [
        {"group": entry["group"], "seconds": entry["stats"]["median"], **entry["extra_info"]}
        for entry in output_json["benchmarks"]
    ]
    output_json["commit_info"] = {
        key: output_json["commit_info"].get(key) for key in ("id", "dirty")
    }
