"""The command itself: help, versions, mistakes in the options, its environment."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from tiny import SCORE

from segattr.cli.main import COMMANDS, main

AUTO = {"--rule": "auto"}


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)], ids=str)
def test_help(command, capsys):
    assert main([*command, "--help"]) == 0
    printed = capsys.readouterr().out
    assert "usage: segattr" in printed
    if not command:
        for name, what in COMMANDS.items():
            assert f"{name:<11}{what}" in printed


def test_help_imports_no_torch():
    code = "from segattr.cli.main import main; import sys; main(['--help']); "
    code += "sys.exit('torch' in sys.modules or 'rich' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_the_package_is_the_command():
    command = [sys.executable, "-m", "segattr", "show", "--help"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "usage: segattr show" in printed


@pytest.mark.parametrize(("given", "expected"), [(None, "passive"), ("active", "active")])
def test_threads_wait_passively_unless_told_otherwise(given, expected):
    """Set before torch is imported, since OpenMP reads it then."""
    code = (
        "import os, sys; from segattr.cli.main import main; assert 'torch' not in sys.modules; "
        "main(['show', 'nowhere']); assert 'torch' in sys.modules; "
        "print(os.environ['OMP_WAIT_POLICY'])"
    )
    environment = {name: os.environ[name] for name in os.environ if name != "OMP_WAIT_POLICY"}
    if given:
        environment["OMP_WAIT_POLICY"] = given
    command = [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {sys.path!r}; {code}"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert printed.stdout.strip() == expected


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["score"], ["score", "--nonsense"]])
def test_usage_errors(arguments, capsys):
    assert main(arguments) == 2
    assert capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"traces": "missing.jsonl"}, "TRACES must be files that can be read, got"),
        ({"traces": "no*.jsonl"}, "no*.jsonl must match some files, got none"),
        ({"traces": "."}, "got another folder. Name its files, such as"),
        ({"--out": "-"}, "OUT must be a file, got -"),
        ({"--out": "no/such/folder/out.jsonl"}, "No such file or directory"),
        ({"--model": "no-such-model"}, "--model no-such-model could not be loaded"),
        ({"--tau": "2"}, "tau must be in"),
        ({"--rule": "midpoint", "--steps": "0"}, "needs at least 1 points"),
        ({"--steps": "5"}, "--steps must be left out with no rule named, got 5"),
        ({"--agreement": "0.9"}, "--agreement must be left out with --rule secant, the default"),
        ({**AUTO, "--steps": "5"}, "--steps must be left out with --rule auto, got 5"),
        ({**AUTO, "--max-evaluations": "8"}, "--max-evaluations must be at least the 9 nodes"),
        ({**AUTO, "--tolerance": "0"}, "--tolerance must be above 0, got 0"),
        ({**AUTO, "--agreement": "0"}, "--agreement must be in (0, 1], got 0"),
        ({**AUTO, "--agreement": "1.5"}, "--agreement must be in (0, 1], got 1.5"),
        ({"--require": "none,gap"}, "--require must be one of 'rise', 'segments', 'gap', 'agree"),
        ({"--rule": "missing.json"}, "No such file or directory: 'missing.json'"),
        ({"--baseline": "nonsense"}, "--baseline must be one of"),
        ({"--device": "nonsense"}, "--device must be there to use, got nonsense"),
        ({"--max-memory": "inf"}, "--max-memory must be GiB above 0, got inf"),
        (
            {"--backend": "triton", "--device": "cpu"},
            "--backend triton needs a CUDA tensor and Triton",
        ),
        ({"--max-length": "-5"}, "--max-length must be at least 1, got -5"),
        ({"--prompt-template": "Q: {q}"}, "--prompt-template must hold {question}"),
        ({"--keywords": "/dev/null"}, "--keywords must hold keywords"),
        ({"--keywords": "nonsense"}, "--keywords must be paper or retro-search or a file"),
    ],
)
def test_what_cannot_be_done_exits_with_2(traces, tmp_path, capsys, monkeypatch, change, message):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    options = {"--model": "bundled", "--out": str(tmp_path / "out.jsonl"), **change}
    path = tmp_path / options.pop("traces", traces)
    arguments = ["score", str(path), *(part for option in options.items() for part in option)]
    assert main(arguments) == 2
    assert message in unboxed(capsys.readouterr().err)


def unboxed(text: str) -> str:
    """The words of an error, without the box around it."""
    return " ".join(text.translate(str.maketrans("│─╭╮╰╯", "      ")).split())


def test_options_of_one_kind_exclude_each_other(traces, tmp_path, capsys):
    options = ["--out", str(tmp_path / "out.jsonl"), "--resume", "--overwrite"]
    assert main(["score", str(traces), *SCORE, *options]) == 2
    assert "--resume and --overwrite are not allowed together" in unboxed(capsys.readouterr().err)
