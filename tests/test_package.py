"""The package as a stranger meets it: the README's example, imports, the installed command."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

import segattr

ROOT = Path(__file__).parents[1]


def readme_examples() -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("index", range(len(readme_examples())))
def test_the_readme_runs_as_it_stands_and_prints_what_it_says(index, tmp_path):
    code = readme_examples()[index]
    promised = [line[2:] for line in code.splitlines() if line.startswith("# ")]
    command = [sys.executable, "-W", "error", "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == promised


def test_the_readme_s_first_commands_run_as_they_stand(tmp_path):
    """In a folder like the clone after `make demo`."""
    (tmp_path / "segattr").symlink_to(ROOT / "segattr")
    command = tmp_path / ".venv/bin/segattr"
    command.parent.mkdir(parents=True)
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -W error -m segattr "$@"\n')
    command.chmod(0o755)
    lines = re.findall(r"^    (\.venv/bin/segattr .*)$", (ROOT / "README.md").read_text(), re.M)
    assert [line.split()[1] for line in lines] == ["score", "show"]
    for line in lines:
        result = subprocess.run(line.split(), capture_output=True, text=True, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
    assert "trace easy-02" in result.stdout


@pytest.mark.parametrize("module", ["torch", "transformers", "triton"])
def test_importing_segattr_imports_nothing_heavy(module):
    code = f"import segattr, sys; sys.exit({module!r} in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_names_that_are_imported_when_used_are_those_promised():
    assert set(segattr.__all__) <= set(dir(segattr))
    with pytest.raises(AttributeError, match="module 'segattr' has no attribute 'nonsense'"):
        segattr.nonsense  # noqa: B018


def test_a_folder_of_the_same_name_does_not_hide_the_package(tmp_path):
    """As a clone does in the folder above it."""
    (tmp_path / "segattr").mkdir()
    subprocess.run([sys.executable, "-c", "from segattr import Trace"], check=True, cwd=tmp_path)


def test_the_wheel_holds_the_kernels_and_the_demo(tmp_path):
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path)]
    copy = tmp_path / "source"
    for name in ("segattr", "kernels"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__py*"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(copy)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = {
        str(path.relative_to(home))
        for home, folder in ((ROOT, "segattr"), (ROOT / "kernels", "segattr_kernels"))
        for path in (home / folder).rglob("*")
        if path.is_file() and "__py" not in str(path)
    }
    assert packed == files


def test_every_public_name_exists_and_is_documented():
    for name in segattr.__all__:
        assert getattr(segattr, name).__doc__, name


def test_the_version_stands_in_one_place():
    assert version("segattr") == segattr.__version__
    command = [sys.executable, "-m", "segattr", "--version"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed == f"segattr {segattr.__version__}\n"
