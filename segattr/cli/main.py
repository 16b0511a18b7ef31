"""The ``segattr`` command: finds the file of the command that is called, and runs it.

Each command is a dataclass of its options with a ``run`` that returns the exit code. Its file, and
with it torch, is imported only when it is called.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
from collections.abc import Sequence

from segattr.version import __version__

COMMANDS = {
    "inspect": "see how a file of traces is read",
    "score": "score a file of traces",
    "show": "show a scored trace",
    "export": "write scored traces in the format of a trainer",
    "calibrate": "fit a rule of few path points to one model",
    "demo": "score the bundled traces with the bundled model",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    # Threads that wait actively for others take minutes on a busy machine, or in a container with
    # fewer cores than it shows. OpenMP reads this when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without block characters
    try:
        arguments = _parser().parse_args(argv)
        return _run(arguments.command, arguments.options)
    except SystemExit as stop:  # help, or an error in the options
        return int(stop.code or 0)
    except KeyboardInterrupt:
        print("segattr: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="segattr",
        usage="segattr [-h] [--version] COMMAND ...",
        description="Find the segments of a reasoning trace that matter, and train on those only.",
        epilog="commands:\n"
        + "\n".join(f"  {name:<11}{what}" for name, what in COMMANDS.items())
        + "\n\nOptions of one: segattr COMMAND --help. Try it: segattr demo",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"segattr {__version__}")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of those below")
    parser.add_argument("options", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def _run(name: str, options: Sequence[str]) -> int:
    import tyro

    from segattr.cli.console import USAGE, UserError, errors

    command = getattr(importlib.import_module(f"segattr.cli.{name}"), name.title())
    config = (tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff)
    try:
        parsed = tyro.cli(command, args=options, prog=f"segattr {name}", config=config)
    except ValueError as error:  # older tyro catches those of groups alone
        errors.print(f"segattr: {error}", style="red")
        return USAGE
    try:
        return int(parsed.run())
    except UserError as error:
        errors.print(f"segattr: {error}", style="red")
        return USAGE
