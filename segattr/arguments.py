"""The command line's arguments and their help."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from segattr import __version__
from segattr.engine import ENGINES
from segattr.ops import BACKENDS
from segattr.quadrature import RULES
from segattr.refinement import MAX_EVALUATIONS
from segattr.segments import PRESETS
from segattr.trace import FIELDS

DTYPES = ("auto", "bfloat16", "float16", "float32", "float64")
Command = Callable[[argparse.Namespace], int]


def _field(text: str) -> tuple[str, str]:
    name, _, key = text.partition("=")
    if name not in FIELDS or not key:
        raise argparse.ArgumentTypeError(
            f"must be FIELD=NAME with FIELD one of {', '.join(FIELDS)}, got {text!r}"
        )
    return name, key


def build_parser(commands: Mapping[str, Command]) -> argparse.ArgumentParser:
    """The parser; each command's function ends up in ``arguments.run``."""
    parser = argparse.ArgumentParser(
        prog="segattr",
        description="Find the segments of a reasoning trace that matter, and train on those only.",
        epilog="Try it: segattr demo",
    )
    parser.add_argument("--version", action="version", version=f"segattr {__version__}")
    places = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    adds = {"score": _add_score, "calibrate": _add_calibrate, "show": _add_show, "demo": _add_demo}
    for name, add in adds.items():
        add(places).set_defaults(run=commands[name])
    return parser


def _add_score(commands: Any) -> argparse.ArgumentParser:
    command = commands.add_parser(
        "score",
        help="score a file of traces",
        usage="segattr score TRACES.jsonl --model MODEL --out OUT.jsonl [options]",
        description="Attribute the answer to every trace's segments by Integrated Gradients. "
        "Writes one JSON object a trace: segment scores, token scores, and the training row "
        "(input_ids, labels, ...).",
        epilog="Exit codes: 0 all scored, 1 some traces failed (named on stderr, the others are "
        "written), 2 nothing could be done, 130 interrupted. An interrupted run goes on with "
        "--resume.",
    )
    _add_input(command)
    command.add_argument(
        "--out", type=Path, required=True, metavar="OUT.jsonl", help="file to write"
    )
    command.add_argument(
        "--too-long",
        choices=["error", "skip"],
        default="error",
        metavar="POLICY",
        help="a trace that is too long counts as an error, or is a skip (%(default)s)",
    )
    exists = command.add_mutually_exclusive_group()
    exists.add_argument(
        "--resume", action="store_true", help="continue OUT, leaving out the traces it holds"
    )
    exists.add_argument("--overwrite", action="store_true", help="replace OUT")
    _add_method(command.add_argument_group("attribution"))
    _add_selection(command.add_argument_group("segments and selection"))
    _add_text(command.add_argument_group("text"))
    _add_machine(command.add_argument_group("model and machine"))
    return command


def _add_calibrate(commands: Any) -> argparse.ArgumentParser:
    command = commands.add_parser(
        "calibrate",
        help="fit a rule of few path points to one model",
        description="Fit path points and weights to a model, for score --rule. What is printed "
        "about held-out traces says whether that pays. Takes 65 to 257 evaluations a trace.",
    )
    _add_input(command)
    command.add_argument(
        "--out", type=Path, required=True, metavar="RULE.json", help="file to write"
    )
    command.add_argument(
        "--points", type=int, default=6, metavar="K", help="path points of the rule (%(default)s)"
    )
    command.add_argument(
        "--use",
        type=int,
        default=24,
        metavar="N",
        help="traces to use, the first of the file; the last quarter of them judges (%(default)s)",
    )
    _add_path(command.add_argument_group("attribution"))
    _add_selection(command.add_argument_group("segments and selection"))
    _add_text(command.add_argument_group("text"))
    _add_machine(command.add_argument_group("model and machine"))
    return command


def _add_input(command: argparse.ArgumentParser) -> None:
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


def _add_method(group: Any) -> None:
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
    _add_path(group)


def _add_path(group: Any) -> None:
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


def _add_selection(group: Any) -> None:
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


def _add_text(group: Any) -> None:
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


def _add_machine(group: Any) -> None:
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


def _add_show(commands: Any) -> argparse.ArgumentParser:
    command = commands.add_parser(
        "show",
        help="show a scored trace",
        description="Print a scored trace: kept segments bright (+), dropped ones dim (-), each "
        "with its strength (share of the total) and direction consistency (1: all its tokens "
        "push the same way).",
    )
    command.add_argument(
        "scored", type=Path, metavar="OUT.jsonl", help="a file written by segattr score"
    )
    command.add_argument("--id", help="which trace; default: the first")
    return command


def _add_demo(commands: Any) -> argparse.ArgumentParser:
    command = commands.add_parser(
        "demo",
        help="score the bundled traces with the bundled model",
        description="Score the bundled traces with the bundled model, compare with what is known "
        "about their segments, and show one trace. Takes some seconds on a CPU; nothing is "
        "downloaded.",
    )
    command.add_argument("--id", default="easy-01", help="which trace to show (default: easy-01)")
    command.add_argument(
        "--out", type=Path, metavar="OUT.jsonl", help="also write the scored traces"
    )
    return command
