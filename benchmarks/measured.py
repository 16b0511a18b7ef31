"""Files of results: what was measured, with the machine, the commit and the day it was measured."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import subprocess
from datetime import date
from pathlib import Path
from typing import Any

import cpuinfo
import torch
import transformers


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
