"""The ``segattr`` command: score a file of traces, show a scored trace, run the bundled demo."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from segattr import __version__
from segattr.arguments import build_parser
from segattr.segments import PRESETS
from segattr.tally import Tally

if TYPE_CHECKING:
    from segattr.dataset import ScoredWriter
    from segattr.runner import Outcome

OK, SOME_FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
errors = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)


class UserError(Exception):
    """Something the user can mend; printed without a traceback."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without block characters
    arguments = build_parser({"score": score, "show": show, "demo": demo}).parse_args(argv)
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
    from segattr.dataset import ScoredWriter, read_traces
    from segattr.runner import score_dataset
    from segattr.scores import SegmentScorer

    if not arguments.traces.is_file():
        raise UserError(f"TRACES must be a regular file, got {arguments.traces}, which is none.")
    if arguments.out.exists() and arguments.out.samefile(arguments.traces):
        raise UserError(f"OUT must be another file than TRACES, got {arguments.out} for both.")
    encoding = _encoding(arguments)
    try:
        scorer = SegmentScorer(tau=arguments.tau, beta=arguments.beta)
        writer = ScoredWriter(
            arguments.out,
            _settings(arguments, encoding),
            resume=arguments.resume,
            overwrite=arguments.overwrite,
        )
    except (OSError, ValueError) as error:
        raise UserError(str(error)) from None
    with writer:
        ig = _load(arguments)
        fields = dict(arguments.field)
        try:
            total = sum(1 for _ in read_traces(arguments.traces, fields))
        except OSError as error:
            raise UserError(str(error)) from None
        if not total:
            raise UserError(f"TRACES must hold traces, got {arguments.traces}, which is empty.")
        traces = read_traces(arguments.traces, fields)
        outcomes = score_dataset(traces, ig, scorer, writer, encoding=encoding)
        return _follow(outcomes, total, writer, arguments)


def show(arguments: argparse.Namespace) -> int:
    """``segattr show``: print one scored trace."""
    from segattr.dataset import read_scored
    from segattr.terminal import print_trace

    ids: list[str] = []
    wanted: dict[str, Any] | None = None
    try:
        for record in read_scored(arguments.scored):
            ids.append(str(record["id"]))
            if wanted is None and arguments.id in (None, ids[-1]):
                wanted = record
    except (OSError, ValueError) as error:
        raise UserError(str(error)) from None
    if wanted is None:
        known = ", ".join(ids[:8]) + (", ..." if len(ids) > 8 else "") or "none"
        raise UserError(
            f"--id must be one of the {len(ids)} traces of {arguments.scored} ({known}), "
            f"got {arguments.id!r}."
        )
    console = Console(highlight=False, markup=False, soft_wrap=True)
    with console.capture() as printed:
        print_trace(wanted, console)
        if arguments.id is None and len(ids) > 1:
            console.print(f"1 of {len(ids)} traces; choose with --id ID", style="dim")
    sys.stdout.write(printed.get())
    sys.stdout.flush()
    return OK


def demo(arguments: argparse.Namespace) -> int:
    """``segattr demo``: score the bundled traces with the bundled model and show one."""
    from segattr.demo.showcase import run_demo

    try:
        run_demo(arguments.id, arguments.out)
    except (OSError, ValueError) as error:
        raise UserError(str(error)) from None
    return OK


def _follow(
    outcomes: Iterable[Outcome], total: int, writer: ScoredWriter, arguments: argparse.Namespace
) -> int:
    """Show progress and errors, then the summary; return the exit code."""
    tally = Tally()
    try:
        for outcome in progress(outcomes, total, "scoring"):
            tally.add(outcome)
            if outcome.error is not None:
                errors.print(f"{arguments.traces}:{outcome.line}: {outcome.kind}: {outcome.error}")
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


def progress(items: Iterable[Outcome], total: int, what: str) -> Iterator[Outcome]:
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


def _load(arguments: argparse.Namespace) -> Any:
    """The model and tokenizer, inside a FastIG."""
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from segattr.ig import FastIG

    transformers.utils.logging.disable_progress_bar()
    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    placement = {"device_map": "auto"} if device == "sharded" else {}
    dtype = arguments.dtype if arguments.dtype == "auto" else getattr(torch, arguments.dtype)
    trust = arguments.trust_remote_code
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            arguments.tokenizer or arguments.model, trust_remote_code=trust
        )
        model: Any = AutoModelForCausalLM.from_pretrained(
            arguments.model,
            dtype=dtype,
            trust_remote_code=trust,
            use_safetensors=None if arguments.unsafe_weights else True,
            attn_implementation=arguments.attn_implementation,
            **placement,
        )
        model = model if placement else model.to(device)
    except Exception as error:  # whatever a broken folder or a missing device raises
        what = f"{type(error).__name__}: {error}"
        raise UserError(f"--model {arguments.model} could not be loaded: {what}") from None
    baseline = int(arguments.baseline) if arguments.baseline.isdigit() else arguments.baseline
    memory = arguments.max_memory
    try:
        return FastIG(
            model,
            tokenizer,
            rule=arguments.rule,
            steps=arguments.steps,
            baseline=baseline,
            scope=arguments.scope,
            engine=arguments.engine,
            backend=arguments.backend,
            max_memory=None if memory is None else int(memory * 2**30),
        )
    except (ValueError, TypeError, OverflowError, RuntimeError) as error:
        raise UserError(str(error)) from None


def _encoding(arguments: argparse.Namespace) -> dict[str, Any]:
    keywords = arguments.keywords
    if keywords not in PRESETS:
        try:
            lines = Path(keywords).read_text(encoding="utf-8").splitlines()
            keywords = [_unescape(line) for line in lines if line]
        except (OSError, UnicodeDecodeError):
            raise UserError(
                f"--keywords must be {' or '.join(PRESETS)} or a file with one keyword a line, "
                f"got {keywords!r}."
            ) from None
    if not keywords:
        raise UserError(f"--keywords must hold keywords, got {arguments.keywords}, which is empty.")
    if arguments.max_length is not None and arguments.max_length < 1:
        raise UserError(f"--max-length must be at least 1, got {arguments.max_length}.")
    if arguments.prompt_template is not None and "{question}" not in arguments.prompt_template:
        raise UserError("--prompt-template must hold {question}, got one that does not.")
    return {
        "keywords": keywords,
        "opening": _unescape(arguments.opening),
        "instruction": _unescape(arguments.instruction),
        "prompt_template": arguments.prompt_template and _unescape(arguments.prompt_template),
        "strip_final_answer": arguments.strip_final_answer,
        "max_length": arguments.max_length,
    }


def _settings(arguments: argparse.Namespace, encoding: Mapping[str, Any]) -> dict[str, Any]:
    """What decides the numbers; a file is only continued with the same."""
    names = (
        "model",
        "tokenizer",
        "field",
        "rule",
        "steps",
        "baseline",
        "scope",
        "dtype",
        "tau",
        "beta",
    )
    encoding = {name: value for name, value in encoding.items() if name != "max_length"}
    return {
        "segattr": __version__,
        **{name: getattr(arguments, name) for name in names},
        **encoding,
    }


def _unescape(text: str) -> str:
    return text.replace("\\n", "\n")


if __name__ == "__main__":
    sys.exit(main())
