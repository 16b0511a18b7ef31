"""The ``segattr`` command: score a file of traces, show a scored trace, run the bundled demo."""

from __future__ import annotations

import argparse
import os
import statistics
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

if TYPE_CHECKING:
    from segattr.runner import Outcome

OK, SOME_FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
errors = Console(stderr=True, highlight=False, soft_wrap=True)


class UserError(Exception):
    """Something the user can mend; printed without a traceback."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    arguments = build_parser({"score": score, "show": show, "demo": demo}).parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except UserError as error:
        errors.print(f"segattr: {error}", markup=False, style="red")
        return USAGE
    except KeyboardInterrupt:
        errors.print("segattr: interrupted")
        return INTERRUPTED


def score(arguments: argparse.Namespace) -> int:
    """``segattr score``: attribute every trace of a file and write one record each."""
    from segattr.dataset import ScoredWriter, read_traces
    from segattr.runner import score_dataset

    if not arguments.traces.is_file():
        raise UserError(f"TRACES must be a file, got {arguments.traces}, which does not exist.")
    encoding = _encoding(arguments)
    try:
        scorer_settings = _scorer(arguments)
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
        total = sum(1 for _ in read_traces(arguments.traces, fields))
        outcomes = score_dataset(
            read_traces(arguments.traces, fields), ig, scorer_settings, writer, encoding=encoding
        )
        return _follow(outcomes, total, arguments)


def show(arguments: argparse.Namespace) -> int:
    """``segattr show``: print one scored trace."""
    from segattr.dataset import read_scored
    from segattr.terminal import print_trace

    try:
        records = {record["id"]: record for record in read_scored(arguments.scored)}
    except (OSError, ValueError) as error:
        raise UserError(str(error)) from None
    if not records:
        raise UserError(f"{arguments.scored} holds no scored trace.")
    wanted = next(iter(records)) if arguments.id is None else arguments.id
    if wanted not in records:
        known = ", ".join(list(records)[:8]) + (", ..." if len(records) > 8 else "")
        raise UserError(
            f"--id must be one of the file's {len(records)} traces ({known}), got {wanted!r}."
        )
    console = Console(highlight=False, soft_wrap=True)
    print_trace(records[wanted], console)
    if arguments.id is None and len(records) > 1:
        console.print(f"1 of {len(records)} traces; choose with --id ID", style="dim")
    return OK


def demo(arguments: argparse.Namespace) -> int:
    """``segattr demo``: score the bundled traces with the bundled model and show one."""
    from segattr.demo.showcase import run_demo

    return run_demo(arguments.id, arguments.out)


def _follow(outcomes: Iterable[Outcome], total: int, arguments: argparse.Namespace) -> int:
    """Show progress and errors, then the summary; return the exit code."""
    seen: list[Outcome] = []
    try:
        for outcome in progress(outcomes, total, "scoring"):
            seen.append(outcome)
            if outcome.kind in ("failed", "too long"):
                skipped = "skipped: " if _skipped(outcome, arguments) else ""
                errors.print(
                    f"{arguments.traces}:{outcome.line}: {skipped}{outcome.error}", markup=False
                )
    except OSError as error:
        raise UserError(
            f"{arguments.out} could not be written: {error}. It holds what was scored before."
        ) from None
    except KeyboardInterrupt:
        done = sum(outcome.kind == "scored" for outcome in seen)
        errors.print(
            f"segattr: interrupted; {arguments.out} holds {done} more traces. Continue with "
            "--resume."
        )
        return INTERRUPTED
    _summarise(seen, arguments)
    bad = [o for o in seen if o.kind in ("failed", "too long") and not _skipped(o, arguments)]
    return SOME_FAILED if bad else OK


def _skipped(outcome: Outcome, arguments: argparse.Namespace) -> bool:
    return outcome.kind == "too long" and arguments.too_long == "skip"


def _summarise(outcomes: Sequence[Outcome], arguments: argparse.Namespace) -> None:
    kinds = [outcome.kind for outcome in outcomes]
    counts = [
        f"{kinds.count(kind)} {kind}"
        for kind in ("scored", "done before", "too long", "failed")
        if kind in kinds
    ]
    errors.print(f"{', '.join(counts) or 'no traces'}; written to {arguments.out}")
    records = [outcome.record for outcome in outcomes if outcome.record is not None]
    if not records:
        return
    seconds = sum(outcome.seconds for outcome in outcomes)
    longest = max(len(record["token_scores"]) for record in records)
    kept = statistics.mean(_kept_share(record) for record in records)
    gap = statistics.median(record["completeness_gap"] for record in records)
    errors.print(
        f"{60 * len(records) / seconds:.1f} traces/min, longest {longest} tokens, "
        f"peak memory {_peak_memory() / 2**30:.2f} GiB; {kept:.0%} of the reasoning kept on "
        "average, "
        f"median completeness gap {gap:.1%}"
    )


def _kept_share(record: Mapping[str, Any]) -> float:
    lengths = [
        (stop - start, segment["kept"])
        for segment in record["segments"]
        for start, stop in [segment["span"]]
    ]
    return sum(length for length, kept in lengths if kept) / sum(length for length, _ in lengths)


def _peak_memory() -> int:
    """Bytes: of the GPU if one was used, else of this process."""
    import torch

    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )


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


def _scorer(arguments: argparse.Namespace) -> Any:
    from segattr.scores import SegmentScorer

    return SegmentScorer(tau=arguments.tau, beta=arguments.beta)


def _encoding(arguments: argparse.Namespace) -> dict[str, Any]:
    keywords = arguments.keywords
    if keywords not in PRESETS:
        try:
            keywords = [
                line.encode().decode("unicode_escape")
                for line in Path(keywords).read_text().splitlines()
                if line
            ]
        except OSError:
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
