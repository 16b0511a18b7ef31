"""The ``segattr`` command: score a file of traces, show a scored trace, run the bundled demo."""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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

if TYPE_CHECKING:
    from segattr.runner import Outcome

OK, SOME_FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
errors = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)


class UserError(Exception):
    """Something the user can mend; printed without a traceback."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
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
        raise UserError(f"TRACES must be a file, got {arguments.traces}, which does not exist.")
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
        if not (total := sum(1 for _ in read_traces(arguments.traces, fields))):
            raise UserError(f"TRACES must hold traces, got {arguments.traces}, which is empty.")
        traces = read_traces(arguments.traces, fields)
        outcomes = score_dataset(traces, ig, scorer, writer, encoding=encoding)
        return _follow(outcomes, total, arguments)


def show(arguments: argparse.Namespace) -> int:
    """``segattr show``: print one scored trace."""
    from segattr.dataset import read_scored
    from segattr.terminal import print_trace

    ids: list[str] = []
    wanted: dict[str, Any] | None = None
    try:
        for record in read_scored(arguments.scored):
            ids.append(record["id"])
            if wanted is None and arguments.id in (None, record["id"]):
                wanted = record
    except (OSError, ValueError) as error:
        raise UserError(str(error)) from None
    if wanted is None:
        known = ", ".join(ids[:8]) + (", ..." if len(ids) > 8 else "") or "none"
        raise UserError(
            f"--id must be one of the {len(ids)} traces of {arguments.scored} ({known}), "
            f"got {arguments.id!r}."
        )
    console = Console(highlight=False, soft_wrap=True)
    print_trace(wanted, console)
    if arguments.id is None and len(ids) > 1:
        console.print(f"1 of {len(ids)} traces; choose with --id ID", style="dim")
    return OK


def demo(arguments: argparse.Namespace) -> int:
    """``segattr demo``: score the bundled traces with the bundled model and show one."""
    from segattr.demo.showcase import run_demo

    return run_demo(arguments.id, arguments.out)


@dataclass
class Tally:
    """What is remembered of a run's outcomes: a few numbers each."""

    kinds: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    lengths: list[int] = field(default_factory=list)
    kept: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        self.kinds[outcome.kind] += 1
        self.seconds += outcome.seconds
        if outcome.record is not None:
            self.lengths.append(len(outcome.record["token_scores"]))
            self.kept.append(_kept_share(outcome.record))
            self.gaps.append(outcome.record["completeness_gap"])

    def lines(self) -> Iterator[str]:
        """The summary."""
        counts = [f"{count} {kind}" for kind, count in self.kinds.items()]
        yield ", ".join(counts)
        if self.lengths:
            yield (
                f"{60 * len(self.lengths) / self.seconds:.1f} traces/min, "
                f"longest {max(self.lengths)} tokens, peak memory {_peak_memory() / 2**30:.2f} GiB"
            )
            yield (
                f"{statistics.mean(self.kept):.0%} of the reasoning kept on average, "
                f"median completeness gap {statistics.median(self.gaps):.1%}"
            )


def _follow(outcomes: Iterable[Outcome], total: int, arguments: argparse.Namespace) -> int:
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
            f"segattr: interrupted; {arguments.out} holds {tally.kinds['scored']} more traces. "
            "Continue with --resume."
        )
        return INTERRUPTED
    for line in tally.lines():
        errors.print(line)
    bad = tally.kinds["failed"] + tally.kinds["too long"] * (arguments.too_long == "error")
    return SOME_FAILED if bad else OK


def _kept_share(record: Mapping[str, Any]) -> float:
    """Share of the reasoning's tokens in kept segments."""
    start, stop = record["prompt"][1], record["segments"][-1]["span"][1]
    spans = [segment["span"] for segment in record["segments"] if segment["kept"]]
    return sum(stop - start for start, stop in spans) / (stop - start)


def _peak_memory() -> int:
    """Bytes: of the GPU if one was used, else of this process."""
    import psutil
    import torch

    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


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
        baseline = int(arguments.baseline) if arguments.baseline.isdigit() else arguments.baseline
        return FastIG(
            model,
            tokenizer,
            rule=arguments.rule,
            steps=arguments.steps,
            baseline=baseline,
            scope=arguments.scope,
            max_memory=None if arguments.max_memory is None else int(arguments.max_memory * 2**30),
        )
    except (OSError, ValueError, TypeError, ImportError, RuntimeError) as error:
        raise UserError(f"--model {arguments.model} could not be used: {error}") from None


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
    names = ("model", "tokenizer", "rule", "steps", "baseline", "scope", "dtype", "tau", "beta")
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
