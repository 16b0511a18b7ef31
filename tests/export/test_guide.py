"""The README of an export: what it says, and that any folder can stand in it."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess

import pytest
import yaml
from jinja2 import UndefinedError

from segattr.export import TRAINERS, Variant, export
from segattr.export.exported import Exported
from segattr.export.guide import TEMPLATES, guide

STRANGE = [
    '/a b/it\'s "quoted"',
    "/a: b #1",
    "/new\n```\nline\ttab",
    "/back`tick` $HOME \\n",
    "/{{ to }}{% if %}",
    "/\N{THINKING FACE}\x7f\x85\u2028\N{NO-BREAK SPACE}",
    "/" + os.fsdecode(b"\xff"),
    "/- *a &b !c |d >e",
]


def blocks(text: str, kind: str) -> list[str]:
    """The text's fenced blocks of one language; every fence is closed."""
    found = re.findall(r"^```(\w+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert len(re.findall("^```", text, re.MULTILINE)) == 2 * len(found)
    return [block for word, block in found if word == kind]


def paths_in_python(text: str) -> list[str]:
    strings = [
        node.value
        for block in blocks(text, "python")
        for node in ast.walk(ast.parse(block))
        if isinstance(node, ast.Constant)
    ]
    return [value for value in strings if str(value).startswith("/")]


def paths_in_yaml(text: str) -> list[str]:
    events = [event for block in blocks(text, "yaml") for event in yaml.parse(block)]
    values = [event.value for event in events if isinstance(event, yaml.ScalarEvent)]
    return [value for value in values if value.startswith("/")]


def words_in_shell(text: str) -> list[str]:
    """What bash makes of the commands, fenced or indented, word by word."""
    commands = blocks(text, "sh") + re.findall(r"^    (PYTHONPATH=.*)$", text, re.MULTILINE)
    words = []
    for command in commands:
        command = command.replace("PYTHONPATH=", "env PYTHONPATH=")
        script = "printf '%s\\0' " + command
        printed = subprocess.run(["bash", "-c", script], capture_output=True, check=True).stdout
        words += [os.fsdecode(word) for word in printed.split(b"\0")[:-1]]
    return words


PATHS = {  # what reads the export's paths, and where they stand in it
    "trl": (paths_in_python, ["data.parquet"]),
    "llama-factory": (paths_in_yaml, ["data"]),
    "unsloth": (paths_in_python, ["data.parquet"]),
    "axolotl": (paths_in_yaml, ["data.parquet"]),
    "axolotl-text": (paths_in_yaml, ["data.jsonl", "tokens.parquet"]),
    "ms-swift": (words_in_shell, ["data.jsonl", "tokens.jsonl"]),
    "verl": (words_in_shell, ["data.parquet", "segattr_verl.py"]),
    "openrlhf": (words_in_shell, ["segattr_openrlhf.py", "data.parquet"]),
    "torchtune": (paths_in_yaml, ["data.parquet"]),
}


@pytest.mark.parametrize("weighting", ["mask", "strength"])
@pytest.mark.parametrize("folder", ["/plain", *STRANGE])
@pytest.mark.parametrize("name", TRAINERS)
def test_any_folder_can_stand_in_it(name, folder, weighting):
    exported = Exported(rows=2, tokens=9, with_loss=3, longest=5, as_tokens=1)
    text = guide(name, folder, exported, Variant(weighting=weighting))
    text.encode()  # it can be written
    read, names = PATHS[name]
    found = [word.partition("=")[2] if name == "verl" else word for word in read(text)]
    assert [word for word in found if word.startswith(folder)] == [f"{folder}/{n}" for n in names]
    if name == "torchtune":
        assert f"PYTHONPATH={folder}" in words_in_shell(text)


def test_what_is_not_known_to_a_template_is_an_error():
    with pytest.raises(UndefinedError, match="nonsense"):
        TEMPLATES.from_string("{{ nonsense }}").render()


def test_what_is_in_it():
    exported = Exported(
        rows=2, tokens=9, with_loss=3, longest=5, failed=[("a", "why")], cut=["b", "c"]
    )
    variant = Variant(select="all", weighting="strength", prune=True)
    assert guide("trl", "/out", exported, variant).partition("## What is in it\n\n")[2] == (
        "- 2 rows, 9 tokens, the longest row 5.\n"
        "- 3 tokens carry loss (33%); selected: everything: plain fine-tuning; soft weights from "
        "strength; what is not selected is not in the text.\n"
        "- 1 traces left out, 2 cut; `export.json` names them and says why.\n"
    )


def test_what_is_trained_beyond_the_selection_is_said():
    exported = Exported(rows=2, tokens=9, with_loss=3, longest=5)
    variant = Variant(
        select="important", whole_below=4000, keep_second_to_last=True, normalize="trace"
    )
    text = guide("verl", "/out", exported, variant)
    assert (
        "selected: tau and beta anew; traces of fewer than 4000 tokens whole; the segment before "
        "the last too; weights sum to 1 in every row, so that all traces count the same.\n"
    ) in text
    assert "strength" not in text


@pytest.mark.parametrize("name", TRAINERS)
def test_every_export_explains_itself(scored_traces, tokenizer, tmp_path, name):
    done = export(scored_traces, name, tmp_path / "out", tokenizer=tokenizer)
    text = (tmp_path / "out/README.md").read_text()
    assert str(tmp_path / "out") in text
    assert str(done.longest) in text
    assert not any(mark in text for mark in ("{{", "{%", "}}", "%}", "<!--", "$"))
    facts = json.loads((tmp_path / "out/export.json").read_text())
    assert facts["to"] == name
    assert facts["rows"] == 3
    assert facts["with_loss"] == sum(
        sum(Variant().row(r)["assistant_masks"]) for r in scored_traces
    )
    assert facts["variant"]["select"] == "scored"
    assert facts["scored_with"] == {"model": "bundled", "tau": 0.7}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]  # no scraps beside it
