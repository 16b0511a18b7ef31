"""The command line's arguments and their help."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from segattr import __version__
from segattr.cli.argument_groups import (
    add_input,
    add_machine,
    add_method,
    add_path,
    add_selection,
    add_text,
)
from segattr.export import TRAINERS
from segattr.export.selection import SELECTIONS, WEIGHTINGS

Command = Callable[[argparse.Namespace], int]


def build_parser(commands: Mapping[str, Command]) -> argparse.ArgumentParser:
    """The parser; each command's function ends up in ``arguments.run``."""
    parser = argparse.ArgumentParser(
        prog="segattr",
        description="Find the segments of a reasoning trace that matter, and train on those only.",
        epilog="Try it: segattr demo",
    )
    parser.add_argument("--version", action="version", version=f"segattr {__version__}")
    places = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    adds = {
        "score": _add_score,
        "show": _add_show,
        "export": _add_export,
        "calibrate": _add_calibrate,
        "demo": _add_demo,
    }
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
    add_input(command)
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
    add_method(command.add_argument_group("attribution"))
    add_selection(command.add_argument_group("segments and selection"))
    add_text(command.add_argument_group("text"))
    add_machine(command.add_argument_group("model and machine"))
    return command


def _add_calibrate(commands: Any) -> argparse.ArgumentParser:
    command = commands.add_parser(
        "calibrate",
        help="fit a rule of few path points to one model",
        description="Fit path points and weights to a model, for score --rule. What is printed "
        "about held-out traces says whether that pays. Takes 65 to 257 evaluations a trace.",
    )
    add_input(command)
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
    add_path(command.add_argument_group("attribution"))
    add_selection(command.add_argument_group("segments and selection"))
    add_text(command.add_argument_group("text"))
    add_machine(command.add_argument_group("model and machine"))
    return command


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


def _add_export(commands: Any) -> argparse.ArgumentParser:
    command = commands.add_parser(
        "export",
        help="write scored traces in the format of a trainer",
        usage="segattr export SCORED.jsonl --to TRAINER --out DIR [options]",
        description="Write the training rows of a scored file in the format of a trainer, with a "
        "README.md that says how to use them. Other selections need no new attribution.",
        epilog="Exit codes: 0 all exported, 1 some traces left out (named on stderr), 2 nothing "
        "could be done.",
    )
    command.add_argument(
        "scored", type=Path, metavar="SCORED.jsonl", help="a file written by segattr score"
    )
    command.add_argument(
        "--to",
        required=True,
        choices=TRAINERS,
        metavar="TRAINER",
        help=", ".join(TRAINERS),
    )
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to make")
    command.add_argument("--overwrite", action="store_true", help="replace an earlier export")
    command.add_argument(
        "--tokenizer",
        metavar="TOKENIZER",
        help="of the model to train, for axolotl-text and ms-swift; default: the one scored with",
    )
    command.add_argument(
        "--trust-remote-code", action="store_true", help="run code that comes with the tokenizer"
    )
    _add_variant(command.add_argument_group("what carries loss"))
    length = command.add_argument_group("length")
    length.add_argument("--max-length", type=int, metavar="T", help="most tokens of a row")
    length.add_argument(
        "--too-long",
        choices=["error", "skip", "cut"],
        default="error",
        metavar="POLICY",
        help="a longer row is an error, a skip, or cut: its last segments, as wholes, and the "
        "response are left out (%(default)s)",
    )
    return command


def _add_variant(group: Any) -> None:
    group.add_argument(
        "--select",
        choices=SELECTIONS,
        default="scored",
        metavar="SELECTION",
        help="; ".join(f"{name}: {what}" for name, what in SELECTIONS.items()).replace("%", "%%")
        + " (%(default)s)",
    )
    group.add_argument(
        "--tau", type=float, help="for important, high-strength and random (as scored)"
    )
    group.add_argument("--beta", type=float, help="for important and random (as scored)")
    group.add_argument(
        "--share",
        type=float,
        default=0.45,
        help="of the reasoning tokens, for selections of tokens (%(default)s)",
    )
    group.add_argument("--seed", type=int, default=0, help="of random (%(default)s)")
    group.add_argument(
        "--weights",
        choices=WEIGHTINGS,
        default="mask",
        metavar="WEIGHTS",
        help="mask: 1 where there is loss; strength: more for stronger segments, for trainers that "
        "read weights (%(default)s)",
    )
    group.add_argument(
        "--prune", action="store_true", help="remove what carries no loss from the text"
    )
    group.add_argument(
        "--no-response",
        dest="train_response",
        action="store_false",
        help="no loss on what follows the reasoning",
    )


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
