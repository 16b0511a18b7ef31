"""The README.md of an export: the few lines that make the trainer use it.

``guides/readme.md.j2`` is its template; it includes that of the trainer.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from segattr.export.exported import Exported
from segattr.export.selection import SELECTIONS, Variant


def guide(to: str, folder: str, exported: Exported, variant: Variant) -> str:
    """Return the README of an export into ``folder``, with what it holds written in."""
    names = ["data"] * bool(exported.as_text) + ["tokens"] * bool(exported.as_tokens)
    return TEMPLATES.get_template("readme.md.j2").render(
        to=to,
        folder=folder,
        files=[f"{folder}/{name}.jsonl" for name in names],
        exported=exported,
        variant=variant,
        selected=SELECTIONS[variant.select],
    )


def shell_word(text: str) -> str:
    """A word of bash or zsh, quoted where it must be, on one line whatever it holds.

    A line break inside plain quotes could close the block of code that the word stands in.
    """
    if text.isprintable():
        return shlex.quote(text)
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"$'{_on_one_line(escaped, _octal_bytes)}'"


def string_literal(text: str) -> str:
    """A string of Python and of YAML, in double quotes and on one line whatever it holds."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{_on_one_line(escaped, _code_point)}"'


def yaml_path(text: str) -> str:
    """A path as a value of YAML, quoted where it must be."""
    return text if re.fullmatch(r"/[\w ./~+@=,-]*", text) else string_literal(text)


def _on_one_line(text: str, escape: Callable[[str], str]) -> str:
    return "".join(one if one.isprintable() else escape(one) for one in text)


def _code_point(character: str) -> str:
    return f"\\U{ord(character):08x}"


def _octal_bytes(character: str) -> str:
    return "".join(f"\\{byte:03o}" for byte in os.fsencode(character))


TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "guides"),
    undefined=StrictUndefined,
    autoescape=False,  # Markdown, not HTML
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
TEMPLATES.filters |= {"shell": shell_word, "python": string_literal, "yaml": yaml_path}
