"""``segattr calibrate``: fit a rule to a model on some traces."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import arg

from segattr.cli.console import OK, UserError, errors, in_flags, progress
from segattr.cli.loading import load_ig, prepare_tokenizer
from segattr.cli.options import MachineOptions, PathOptions, Source
from segattr.cli.reading import Item, open_traces
from segattr.cli.text_options import ENTROPY, TextOptions
from segattr.dataset.json_text import BadLine
from segattr.encoding import encode
from segattr.ig.calibration import fit_rule
from segattr.ig.fitted import Rule
from segattr.scores import SegmentScorer
from segattr.trace import EncodedTrace

if TYPE_CHECKING:
    from segattr.ig.fast_ig import FastIG


@dataclass(frozen=True)
class Calibrate:
    """Fit path points and rule weights of Integrated Gradients to one model, for score --rule.

    What is printed about held-out traces says whether that pays. Takes 65 to 257 gradient
    evaluations a trace.
    """

    source: Source
    out: Annotated[Path, arg(metavar="RULE.json")]
    """File to write."""
    path: PathOptions
    scorer: SegmentScorer
    text: TextOptions
    machine: MachineOptions
    points: Annotated[int, arg(metavar="K")] = 6
    """Path points of the rule."""
    use: Annotated[int, arg(metavar="N")] = 24
    """Traces to use, the first of the files; the last quarter of them judges."""

    def __post_init__(self) -> None:
        if self.use < 4:
            raise ValueError(f"--use must be at least 4 traces, got {self.use}.")

    def run(self) -> int:
        if self.out.exists():
            raise UserError(f"OUT must be a new file, got {self.out}, which exists. Remove it.")
        if not os.access(self.out.parent, os.W_OK):
            raise UserError(f"OUT must be in a folder one can write to, got {self.out}.")
        encoding = self.text.encoding()
        if encoding["segmenter"] == ENTROPY:
            raise UserError("--segmenter entropy is for score; calibrate with another one.")
        first, given = open_traces(self.source, self.text)
        tokenizer = prepare_tokenizer(self.source, self.machine, encoding, first)
        traces = self._encoded(given, tokenizer, encoding)
        ig = load_ig(
            self.source,
            self.machine,
            self.path,
            tokenizer,
            rule="auto",
            scorer=self.scorer,
            max_length=self.text.max_length,
        )
        rule = self._fit(ig, traces)
        seen = rule.validation
        print(
            f"{self.out}: {self.points} points; on {seen['traces']} held-out traces the token "
            f"scores are off by {seen['median_error']:.1%} in the median and "
            f"{seen['worst_error']:.1%} at worst, kept segments agree to "
            f"{seen['kept_agreement']:.3f}, completeness gaps reach {rule.largest_gap:.1%}"
        )
        return OK

    def _encoded(
        self, given: Iterable[Item], tokenizer: Any, encoding: dict[str, Any]
    ) -> list[EncodedTrace]:
        """The first traces that can be encoded; the others are named."""
        encoded: list[EncodedTrace] = []
        for place, trace in given:
            if len(encoded) == self.use:
                break
            try:
                if isinstance(trace, BadLine):
                    raise ValueError(trace.error)
                encoded.append(encode(trace, tokenizer, **encoding))
            except ValueError as error:
                errors.print(f"{place}: left out: {error}")
        return encoded

    def _fit(self, ig: FastIG, traces: list[EncodedTrace]) -> Rule:
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                try:
                    rule = fit_rule(ig, progress(traces, len(traces), "sampling"), self.points)
                finally:
                    for warning in caught:
                        errors.print(str(warning.message))
            rule.save(self.out)
        except (OSError, ValueError, FloatingPointError, MemoryError) as error:
            raise UserError(in_flags(str(error), ["points"])) from None
        return rule
