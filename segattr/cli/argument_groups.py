"""Groups of the command line's arguments that several commands share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from segattr.engine import ENGINES
from segattr.engine.ops import BACKENDS
from segattr.fields import FIELDS
from segattr.quadrature.fixed import RULES
from segattr.quadrature.refinement import MAX_EVALUATIONS
from segattr.segments import PRESETS

DTYPES = ("auto", "bfloat16", "float16", "float32", "float64")


def _field(text: str) -> tuple[str, str]:
    name, _, key = text.partition("=")
    if name not in FIELDS or not key:
        raise argparse.ArgumentTypeError(
            f"must be FIELD=NAME with FIELD one of {', '.join(FIELDS)}, got {text!r}"
        )
    return name, key


def add_input(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "traces",
        type=Path,
        metavar="TRACES.jsonl",
        help="one JSON object a line: question, reasoning, answer",
    )
    command.add_argument(
        "--model", required=True, help="folder or hub name of a causal LM with its tokenizer"
    )
    command.add_argument("--tokenizer", help="folder or hub name of another tokenizer")


def _rule(text: str) -> str:
    if text not in ("auto", *RULES) and not text.endswith(".json"):
        raise argparse.ArgumentTypeError(
            f"must be auto, {', '.join(RULES)} or a file RULE.json, got {text!r}"
        )
    return text


def add_method(group: Any) -> None:
    group.add_argument(
        "--rule",
        type=_rule,
        default="auto",
        metavar="RULE",
        help="where gradients are evaluated: auto (more points where it matters, until the kept "
        f"segments are certain), {', '.join(RULES)}, or a RULE.json of calibrate (%(default)s)",
    )
    group.add_argument(
        "--steps",
        type=int,
        metavar="K",
        help="gradient evaluations per trace of a rule by name, but auto (50)",
    )
    group.add_argument(
        "--max-evaluations",
        type=int,
        metavar="K",
        help=f"most gradient evaluations of auto per trace ({MAX_EVALUATIONS})",
    )
    group.add_argument(
        "--tolerance",
        type=float,
        metavar="X",
        help="auto also stops where no strength or consistency is off by more, by its estimate",
    )
    add_path(group)


def add_path(group: Any) -> None:
    group.add_argument(
        "--baseline",
        default="pad",
        help="where the path starts: pad, zero, mean or a token id (%(default)s)",
    )
    group.add_argument(
        "--scope",
        choices=["all", "reasoning"],
        default="all",
        metavar="SCOPE",
        help="what moves along the path: all tokens, as in the paper, or the reasoning only, "
        "which is recommended (%(default)s)",
    )


def add_selection(group: Any) -> None:
    group.add_argument(
        "--keywords",
        default="paper",
        help=f"where segments start: {', '.join(PRESETS)}, or a file with one keyword a line, "
        "\\n written out (%(default)s)",
    )
    group.add_argument(
        "--tau",
        type=float,
        default=0.7,
        help="share of the strength that important segments reach (%(default)s)",
    )
    group.add_argument(
        "--beta",
        type=float,
        default=0.8,
        help="highest direction consistency of an important segment (%(default)s)",
    )


def add_text(group: Any) -> None:
    group.add_argument(
        "--field",
        type=_field,
        action="append",
        default=[],
        metavar="FIELD=NAME",
        help="your name for a field, such as reasoning=cot",
    )
    group.add_argument(
        "--opening",
        default="",
        metavar="TEXT",
        help="text before the reasoning, such as '<think>\\n'",
    )
    group.add_argument(
        "--instruction", default="", metavar="TEXT", help="text appended to every question"
    )
    group.add_argument(
        "--prompt-template",
        metavar="TEXT",
        help="prompt for a tokenizer without a chat template, such as '{question}\\n'",
    )
    group.add_argument(
        "--strip-final-answer",
        action="store_true",
        help="leave the trace's own final answer out of the attributed text",
    )
    group.add_argument(
        "--max-length", type=int, metavar="T", help="most tokens of a trace, if below the context"
    )


def add_machine(group: Any) -> None:
    group.add_argument(
        "--dtype",
        choices=DTYPES,
        default="auto",
        metavar="DTYPE",
        help=f"of the weights: {', '.join(DTYPES)}; auto: as stored (%(default)s)",
    )
    group.add_argument(
        "--device", help="such as cuda:1, cpu, or sharded (over all GPUs); a GPU if there is one"
    )
    group.add_argument(
        "--engine",
        choices=ENGINES,
        default="auto",
        metavar="ENGINE",
        help=f"what computes the gradients: {', '.join(ENGINES)}; auto: fused for Llama, Qwen2, "
        "Qwen3 and Mistral (%(default)s)",
    )
    group.add_argument(
        "--backend",
        choices=BACKENDS,
        default="auto",
        metavar="BACKEND",
        help=f"of the ops: {', '.join(BACKENDS)}; auto: Triton on a GPU (%(default)s)",
    )
    group.add_argument(
        "--max-memory", type=float, metavar="GIB", help="memory to use beyond the weights"
    )
    group.add_argument(
        "--attn-implementation",
        metavar="NAME",
        help="as in transformers, such as sdpa or flash_attention_2",
    )
    group.add_argument(
        "--trust-remote-code", action="store_true", help="run code that comes with the model"
    )
    group.add_argument(
        "--unsafe-weights", action="store_true", help="also load weights that are no safetensors"
    )
