"""The ``segattr`` command: score traces, show and export what came out, calibrate a rule, demo."""

from __future__ import annotations

import argparse
import io
import itertools
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from segattr.cli.arguments import build_parser
from segattr.cli.options import (
    UserError,
    encoding_of,
    load_ig,
    load_tokenizer,
    method_of,
    settings_of,
    variant_of,
)
from segattr.cli.summary import Tally
from segattr.report.terminal import Terminal, print_trace

if TYPE_CHECKING:
    from segattr.dataset.jsonl import ScoredWriter
    from segattr.dataset.record import ScoredTrace
    from segattr.dataset.runner import Outcome
    from segattr.trace import EncodedTrace

Item = TypeVar("Item")
OK, SOME_FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
errors = Terminal(stderr=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without block characters
    arguments = build_parser(COMMANDS).parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except UserError as error:
        errors.print(f"segattr: {error}", style="red")
        return USAGE
    except KeyboardInterrupt:
        errors.print("segattr: interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK


def score(arguments: argparse.Namespace) -> int:
    """``segattr score``: attribute every trace of a file and write one record each."""
    from segattr.dataset.jsonl import ScoredWriter
    from segattr.dataset.runner import score_dataset
    from segattr.dataset.traces import read_traces
    from segattr.encoding import encode
    from segattr.scores import SegmentScorer, UndecidedWarning

    _require_traces(arguments)
    if arguments.out.exists() and arguments.out.samefile(arguments.traces):
        raise UserError(f"OUT must be another file than TRACES, got {arguments.out} for both.")
    encoding = encoding_of(arguments)
    try:
        scorer = SegmentScorer(tau=arguments.tau, beta=arguments.beta)
        method = method_of(arguments, scorer)
        writer = ScoredWriter(
            arguments.out,
            settings_of(arguments, encoding),
            resume=arguments.resume,
            overwrite=arguments.overwrite,
        )
    except FileExistsError:
        raise UserError(
            f"OUT must be a new file, got {arguments.out}, which has content. Pass --resume to "
            "continue it, --overwrite to replace it."
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(str(error)) from None
    with writer:
        ig = load_ig(arguments, **method)
        fields = dict(arguments.field)
        try:
            total = sum(1 for _ in read_traces(arguments.traces, fields))
        except OSError as error:
            raise UserError(str(error)) from None
        if not total:
            raise UserError(f"TRACES must hold traces, got {arguments.traces}, which is empty.")
        traces = read_traces(arguments.traces, fields)
        tokenizer: Any = ig.tokenizer
        tokens_of = partial(encode, tokenizer=tokenizer, **encoding)
        outcomes = score_dataset(traces, tokens_of, ig, scorer, writer)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UndecidedWarning)  # the summary counts them
            return _follow(outcomes, total, writer, arguments)


def calibrate(arguments: argparse.Namespace) -> int:
    """``segattr calibrate``: fit a rule to a model on some traces."""
    from segattr.dataset.traces import BadLine, read_traces
    from segattr.encoding import encode
    from segattr.ig.calibration import fit_rule
    from segattr.scores import SegmentScorer

    _require_traces(arguments)
    if arguments.out.exists():
        raise UserError(f"OUT must be a new file, got {arguments.out}, which exists. Remove it.")
    if not os.access(arguments.out.parent, os.W_OK):
        raise UserError(f"OUT must be in a folder one can write to, got {arguments.out}.")
    encoding = encoding_of(arguments)
    encoded: list[EncodedTrace] = []
    try:
        ig = load_ig(arguments, scorer=SegmentScorer(tau=arguments.tau, beta=arguments.beta))
        tokenizer: Any = ig.tokenizer
        for line, trace in read_traces(arguments.traces, dict(arguments.field)):
            if len(encoded) == arguments.use:
                break
            try:
                if isinstance(trace, BadLine):
                    raise ValueError(trace.error)
                encoded.append(encode(trace, tokenizer, **encoding))
            except ValueError as error:
                errors.print(f"{arguments.traces}:{line}: left out: {error}")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                rule = fit_rule(ig, progress(encoded, len(encoded), "sampling"), arguments.points)
            finally:
                for warning in caught:
                    errors.print(str(warning.message))
        rule.save(arguments.out)
    except (OSError, ValueError, FloatingPointError, MemoryError) as error:
        raise UserError(str(error)) from None
    seen = rule.validation
    print(
        f"{arguments.out}: {arguments.points} points; on {seen['traces']} held-out traces the "
        f"token scores are off by {seen['median_error']:.1%} in the median and "
        f"{seen['worst_error']:.1%} at worst, kept segments agree to {seen['kept_agreement']:.3f}, "
        f"completeness gaps reach {rule.largest_gap:.1%}"
    )
    return OK


def show(arguments: argparse.Namespace) -> int:
    """``segattr show``: print one scored trace."""
    from segattr.dataset.jsonl import read_scored

    ids: list[str] = []
    wanted: ScoredTrace | None = None
    try:
        for scored in read_scored(arguments.scored):
            ids.append(scored.id)
            if wanted is None and arguments.id in (None, scored.id):
                wanted = scored
    except (OSError, ValueError) as error:
        raise UserError(str(error)) from None
    if wanted is None:
        known = ", ".join(ids[:8]) + (", ..." if len(ids) > 8 else "") or "none"
        raise UserError(
            f"--id must be one of the {len(ids)} traces of {arguments.scored} ({known}), "
            f"got {arguments.id!r}."
        )
    console = Terminal()
    with console.capture() as printed:
        print_trace(wanted, console)
        if arguments.id is None and len(ids) > 1:
            console.print(f"1 of {len(ids)} traces; choose with --id ID", style="dim")
    sys.stdout.write(printed.get())
    sys.stdout.flush()
    return OK


def export(arguments: argparse.Namespace) -> int:
    """``segattr export``: write scored traces in the format of a trainer."""
    from segattr.dataset.jsonl import read_scored
    from segattr.dataset.traces import BadLine
    from segattr.export import TRAINERS
    from segattr.export import export as write

    try:
        variant = variant_of(arguments)
        left_out: list[BadLine] = []
        records = read_scored(arguments.scored, left_out)
        first = next(records, None)
        if first is None:
            raise ValueError(f"SCORED must hold scored traces, got {arguments.scored}: empty.")
        is_text = TRAINERS[arguments.to].line is not None
        done = write(
            progress(
                itertools.chain([first], records), _count_lines(arguments.scored), "exporting"
            ),
            arguments.to,
            arguments.out,
            variant,
            tokenizer=load_tokenizer(arguments, first.asked) if is_text else None,
            overwrite=arguments.overwrite,
        )
    except (OSError, ValueError, ImportError) as error:
        raise UserError(str(error)) from None
    skipped = done.too_long if arguments.too_long == "skip" else []
    failed = done.failed if skipped else [*done.failed, *done.too_long]
    damaged = [(f"{arguments.scored}:{bad.line}", bad.error) for bad in left_out]
    failed = [*damaged, *failed]
    for name, reason in failed:
        errors.print(f"{name}: left out: {reason}")
    if done.as_tokens:
        errors.print(
            f"{done.as_tokens} of {done.rows} rows would lose tokens or weights as text and are in "
            "a file of tokens instead"
        )
    print(
        f"{arguments.out}: {done.rows} rows, {done.tokens} tokens, {done.supervised} with loss "
        f"({done.supervised / done.tokens:.0%}); {len(failed)} failed, {len(skipped)} skipped, "
        f"{len(done.cut)} cut. How to train on it: {arguments.out / 'README.md'}"
    )
    return SOME_FAILED if failed else OK


def demo(arguments: argparse.Namespace) -> int:
    """``segattr demo``: score the bundled traces with the bundled model and show one."""
    from segattr.demo.showcase import run_demo

    try:
        run_demo(arguments.id, arguments.out)
    except (OSError, ValueError) as error:
        raise UserError(str(error)) from None
    return OK


def _count_lines(path: Path) -> int:
    with open(path, "rb") as file:
        return sum(1 for _ in file)


def _require_traces(arguments: argparse.Namespace) -> None:
    if not arguments.traces.is_file():
        raise UserError(f"TRACES must be a regular file, got {arguments.traces}, which is none.")


def _follow(
    outcomes: Iterable[Outcome], total: int, writer: ScoredWriter, arguments: argparse.Namespace
) -> int:
    """Show progress and errors, then the summary; return the exit code."""
    tally = Tally()
    try:
        for outcome in progress(outcomes, total, "scoring"):
            tally.add(outcome)
            if outcome.error is not None:
                errors.print(
                    f"{arguments.traces}:{outcome.line}: {outcome.kind.value}: {outcome.error}"
                )
    except OSError as error:
        raise UserError(
            f"{arguments.out} could not be written: {error}. It holds what was scored before."
        ) from None
    except KeyboardInterrupt:
        errors.print(
            f"segattr: interrupted; {arguments.out} holds {writer.written} more traces. "
            "Continue with --resume."
        )
        return INTERRUPTED
    for line in tally.lines():
        errors.print(line)
    bad = tally.kinds["failed"] + tally.kinds["too long"] * (arguments.too_long == "error")
    return SOME_FAILED if bad else OK


def progress(items: Iterable[Item], total: int, what: str) -> Iterator[Item]:
    """Pass the items on under a progress bar on stderr."""
    columns = (
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=errors) as bar:
        yield from bar.track(items, total=total)


COMMANDS = {
    "score": score,
    "show": show,
    "export": export,
    "calibrate": calibrate,
    "demo": demo,
}
