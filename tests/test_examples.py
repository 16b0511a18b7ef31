"""The examples as a user runs them."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))
HAS_TRL = importlib.util.find_spec("trl") is not None


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
@pytest.mark.slow(reason="a process of its own trains")
def test_an_example_trains(path, tmp_path):
    if "trl" in path.stem and not HAS_TRL:
        pytest.skip("needs TRL: make test-trainers")
    if path.stem == "grpo_trl" and tuple(map(int, version("trl").split(".")[:2])) < (0, 29):
        pytest.skip("needs TRL >= 0.29")
    result = subprocess.run(
        [sys.executable, path], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert result.returncode == 0, result.stderr
    losses = [float(loss) for loss in re.findall(r"loss.*? (-?\d+\.\d+)", result.stdout)]
    assert losses
    assert all(loss == loss and abs(loss) < 10 for loss in losses)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_short(path):
    assert len(path.read_text().splitlines()) <= 100
