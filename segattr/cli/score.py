"""``segattr score``: attribute every trace of some files and write one record each."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import arg, create_mutex_group

from segattr.attribution import DOUBTS, WIDE_GAP
from segattr.cli.console import (
    INTERRUPTED,
    OK,
    SOME_FAILED,
    UserError,
    errors,
    progress_by_share,
)
from segattr.cli.loading import encoder, load_ig, prepare_tokenizer
from segattr.cli.options import (
    MachineOptions,
    PathOptions,
    RuleOptions,
    Source,
    one_of,
    optional,
    requirements_of,
)
from segattr.cli.reading import open_traces, require_other_file
from segattr.cli.summary import Tally
from segattr.cli.text_options import TextOptions
from segattr.dataset.flags import FLAGS, Requirements
from segattr.dataset.jsonl import ScoredWriter
from segattr.dataset.runner import Kind, Outcome, score_dataset
from segattr.scores import SegmentScorer, UndecidedWarning
from segattr.version import __version__

TRUSTWORTHY = ",".join(DOUBTS)
EXISTING = create_mutex_group(required=False, title="if OUT exists")


@dataclass(frozen=True)
class Score:
    """Attribute the answer to every trace's segments: how much each moves its log-probability.

    Writes one JSON object a trace: its texts, the scores of its segments and tokens, and what ran.
    The paper's attribution is --rule linspace --scope all.
    Traces whose scores cannot be trusted are named, counted and left out; see --require.

    Exit codes: 0 all scored, 1 some traces failed (named on stderr, the others are written), 2
    nothing could be done, 130 interrupted. An interrupted run goes on with --resume.
    """

    source: Source
    out: Annotated[Path, arg(metavar="OUT.jsonl")]
    """File to write."""
    attribution: RuleOptions
    path: PathOptions
    scorer: SegmentScorer
    text: TextOptions
    machine: MachineOptions
    too_long: Literal["error", "skip"] = "error"
    """Whether a trace that is too long counts as an error or as a skip."""
    require: Annotated[
        str,
        optional(
            "NAMES",
            f"What a trace must have to be written, of {one_of(FLAGS)}, with commas between: "
            "the answer likelier than at the baseline, several segments, a narrow gap, the "
            f"agreement asked for, no special tokens spelled out. Left out, it is {TRUSTWORTHY}; "
            "none writes all. What is not required is flagged in OUT.",
        ),
    ] = TRUSTWORTHY
    max_gap: Annotated[float, arg(metavar="X")] = WIDE_GAP
    """The widest completeness gap that is neither flagged nor left out."""
    resume: Annotated[bool, EXISTING] = False
    """Continue OUT, passing over the texts it holds."""
    overwrite: Annotated[bool, EXISTING] = False
    """Replace OUT."""

    def __post_init__(self) -> None:
        # Contradictions are errors of the command line, before a model is read.
        self.attribution.make(self.scorer, self.path.scope)
        self.requirements()

    def requirements(self) -> Requirements:
        """What a trace must have to be written."""
        return requirements_of(self.require, self.max_gap)

    def run(self) -> int:
        encoding = self.text.encoding()
        first, traces = open_traces(self.source, self.text)
        require_other_file(self.out, self.source)
        with self._writer(encoding) as writer:
            tokenizer = prepare_tokenizer(self.source, self.machine, encoding, first)
            rule = self.attribution.make(self.scorer, self.path.scope)
            length = self.text.max_length
            ig = load_ig(
                self.source, self.machine, self.path, tokenizer, rule=rule, max_length=length
            )
            errors.print(f"segattr: {rule.cost}")
            outcomes = score_dataset(
                traces, encoder(ig.lm, encoding), ig, self.scorer, writer, self.requirements()
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UndecidedWarning)  # the summary counts them
                return self._follow(outcomes, writer)

    def _writer(self, encoding: dict[str, Any]) -> ScoredWriter:
        out, asked = self.out, self._asked(encoding)
        try:
            return ScoredWriter(out, asked, resume=self.resume, overwrite=self.overwrite)
        except FileExistsError:
            raise UserError(
                f"OUT must be a new file, got {out}, which has content. Pass --resume to continue "
                "it, --overwrite to replace it."
            ) from None
        except (OSError, ValueError) as error:
            raise UserError(str(error)) from None

    def _asked(self, encoding: dict[str, Any]) -> dict[str, Any]:
        """What decides the numbers; a file is only continued with the same."""
        rule = self.attribution.make(self.scorer, self.path.scope)
        source = {"model": self.source.model, "tokenizer": self.source.tokenizer}
        text = {name: value for name, value in encoding.items() if name != "max_length"}
        return {
            "segattr": __version__,
            **source,
            "dtype": self.machine.dtype,
            "field": self.text.fields(),
            **self.text.reading(),
            **self.attribution.asked(),
            **dataclasses.asdict(self.path),
            **dataclasses.asdict(self.scorer.for_method(rule.method)),
            **text,
        }

    def _follow(self, outcomes: Iterable[Outcome], writer: ScoredWriter) -> int:
        """Show progress and errors, then the summary; return the exit code."""
        tally = Tally()
        try:
            steps = ((outcome, outcome.place.read) for outcome in outcomes)
            for outcome in progress_by_share(steps, "scoring"):
                tally.add(outcome)
                if outcome.scored and outcome.scored.control_tokens:
                    tokens = ", ".join(outcome.scored.control_tokens)
                    errors.print(f"{outcome.place}: {outcome.scored.id} spells out {tokens}")
                if outcome.error is not None:
                    errors.print(f"{outcome.place}: {outcome.kind.value}: {outcome.error}")
        except OSError as error:
            raise UserError(
                f"{self.out} could not be written: {error}. It holds what was scored before."
            ) from None
        except KeyboardInterrupt:
            errors.print(
                f"segattr: interrupted; {self.out} holds {writer.written} more traces. Continue "
                "with --resume."
            )
            return INTERRUPTED
        for line in tally.lines():
            errors.print(line)
        bad = tally.kinds[Kind.FAILED] + tally.kinds[Kind.TOO_LONG] * (self.too_long == "error")
        return SOME_FAILED if bad else OK
