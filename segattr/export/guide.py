"""The README.md of an export: the few lines that make the trainer use it."""

from __future__ import annotations

import shlex
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from segattr.export.selection import SELECTIONS, Variant

if TYPE_CHECKING:
    from segattr.export import Exported

GUIDES = Path(__file__).parent / "guides"


def guide(to: str, folder: str, exported: Exported, variant: Variant) -> str:
    """Return the README of an export into ``folder``, with what it holds written in.

    What follows a line such as ``<!-- weights -->`` in a guide, up to the next such line, stands
    there only if that is so: weights or a mask, rows of text, rows of tokens beside them.
    """
    shown = {
        "always": True,
        "weights": variant.weights != "mask",
        "mask": variant.weights == "mask",
        "text": exported.rows > exported.as_tokens,
        "tokens": exported.as_tokens > 0,
    }
    lines, show = [], True
    for line in (GUIDES / f"{to}.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("<!-- "):
            show = shown[line.removeprefix("<!-- ").removesuffix(" -->")]
        elif show:
            lines.append(line)
    files = [f"{folder}/data.jsonl"] * shown["text"] + [f"{folder}/tokens.jsonl"] * shown["tokens"]
    files = list(map(shlex.quote, files))
    text = Template("\n".join(lines)).substitute(
        dir=folder,
        shell=shlex.quote(folder),
        longest=exported.longest,
        as_tokens=exported.as_tokens,
        files=" ".join(files),
    )
    left_out = len(exported.too_long) + len(exported.failed)
    return f"""\
{text}

## What is in it

- {exported.rows} rows, {exported.tokens} tokens, the longest row {exported.longest}.
- {exported.supervised} tokens carry loss ({exported.supervised / exported.tokens:.0%}); selected: \
{SELECTIONS[variant.select]}{"; soft weights from strength" * (variant.weights != "mask")}\
{"; what is not selected is not in the text" * variant.prune}.
- {left_out} traces left out, {len(exported.cut)} cut; `export.json` names them and says why.
"""
