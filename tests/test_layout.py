"""How long files and functions are, which room imports which, and why a test is slow.

A *room* is a module or package right under segattr/; all of kernels/ is one more.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def sources(*tops: str) -> list[Path]:
    return [path for top in tops for path in sorted((ROOT / top).rglob("*.py"))]


LIBRARY = sources("segattr", "kernels")
# What a room may import: the rooms named here, what those may import, and the two at the bottom.
BOTTOM = {"checks", "version"}
ARROWS = {
    "__main__": "cli",
    "cli": "demo",
    "demo": "export report evaluation",
    "export": "dataset",
    "report": "dataset",
    "evaluation": "dataset",
    "dataset": "training ig methods",
    "__init__": "training ig",
    "training": "scores",
    "ig": "scores engine quadrature",
    "methods": "scores engine",
    "scores": "attribution encoding",
    "attribution": "trace",
    "encoding": "trace segments",
    "engine": "kernels encoding",
    "segments": "trace",
    "trace": "fields",
}
# A kernel has its arguments a line each; nothing may be added.
KNOWN_LONG = {"kernels/segattr_kernels/rope.py: _rope_backward_kernel"}


@pytest.mark.parametrize(
    "path", LIBRARY + sources("benchmarks", "examples"), ids=lambda path: path.name
)
def test_a_file_is_short(path):
    lines = len(path.read_text().splitlines())
    assert lines <= 300


def lines_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Its lines from ``def`` on, without the docstring."""
    docstring = function.body[0] if ast.get_docstring(function) is not None else None
    without = 0 if docstring is None else docstring.end_lineno - docstring.lineno + 1
    return function.end_lineno - function.lineno + 1 - without


def test_a_function_is_short():
    long = {
        f"{path.relative_to(ROOT)}: {node.name}"
        for path in LIBRARY
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and lines_of(node) > 40
    }
    assert long == KNOWN_LONG


def room_of(path: Path) -> str:
    top, room, *_ = path.relative_to(ROOT).with_suffix("").parts
    return "kernels" if top == "kernels" else room


ROOMS = {room_of(path) for path in LIBRARY}


def imported(path: Path) -> Iterator[str]:
    """The rooms that a file imports anywhere in it, for type checking alone included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} must import by full names"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for top, *rest in (name.split(".") for name in names):
            if top == "segattr_kernels":
                yield "kernels"
            elif top == "segattr":
                yield rest[0] if rest and rest[0] in ROOMS else "__init__"


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    """Every room and the other rooms it imports."""
    found: dict[str, set[str]] = {room: set() for room in ROOMS}
    for path in LIBRARY:
        found[room_of(path)].update(imported(path))
    return {room: others - {room} for room, others in found.items()}


def reach(room: str) -> set[str]:
    """The rooms that arrows lead to, at any distance."""
    below = set(ARROWS.get(room, "").split())
    return below.union(*map(reach, below))


def test_imports_follow_the_arrows(imports):
    others = {
        (room, other)
        for room, all_others in imports.items()
        for other in all_others - reach(room) - BOTTOM
    }
    assert not others


def test_no_imports_go_in_a_circle(imports):
    TopologicalSorter(imports).prepare()  # raises an error that names the circle


def test_the_rooms_can_be_taken_in_at_a_glance():
    assert len([room for room in ROOMS - {"kernels"} if not room.startswith("_")]) <= 20


def test_a_slow_test_says_why():
    unreasoned = r"mark\.slow\b(?!\(reason=\")"
    assert [path for path in sources("tests") if re.search(unreasoned, path.read_text())] == []
