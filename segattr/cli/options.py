"""Groups of options that several commands share, each made into what the library takes.

tyro turns the dataclasses into flags, their docstrings into help, and the errors of their checks
into the command's.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from segattr.attribution import WIDE_GAP
from segattr.checks import require_word
from segattr.cli.console import in_flags
from segattr.dataset.flags import Requirements
from segattr.engine import ENGINES
from segattr.engine.ops import BACKENDS
from segattr.ig.baseline import BASELINES
from segattr.ig.choice import DEFAULT, RULE_NAMES, rule_of
from segattr.ig.fast_ig import SCOPES
from segattr.ig.fitted import Rule
from segattr.ig.rules import AGREEMENT, IntegrationRule
from segattr.quadrature.refinement import MAX_EVALUATIONS
from segattr.scores import SegmentScorer

DTYPES = ("auto", "bfloat16", "float16", "float32", "float64")


def one_of(words: Any) -> str:
    return ", ".join(words)


def optional(metavar: str, what: str | None = None) -> Any:
    """An option that may be left out, without a default to show; ``what`` is its help."""
    return arg(metavar=metavar, help=what, help_behavior_hint="")


def switches_of(flag: str, text: str | None) -> dict[str, Any]:
    """Return the switches of a chat template that an option gives as JSON.

    Raises:
        ValueError: If it is no object.
    """
    if text is None:
        return {}
    try:
        switches = json.loads(text)
    except ValueError:
        switches = None
    if not isinstance(switches, dict):
        example = '{"thinking": true}'
        raise ValueError(f"{flag} must be a JSON object such as '{example}', got {text!r}.")
    return switches


def requirements_of(names: str, max_gap: float = WIDE_GAP) -> Requirements:
    """Return what a trace must have, from names with commas between; "none" stands for no name.

    Raises:
        ValueError: If a name is unknown, in the words of the command.
    """
    words = [name.strip() for name in names.split(",") if name.strip()]
    try:
        return Requirements([] if words == ["none"] else words, max_gap)
    except ValueError as error:
        raise ValueError(in_flags(str(error), ["require", "max_gap"])) from None


@dataclass(frozen=True)
class Source:
    """The traces, and the model that reads them."""

    traces: Annotated[
        Positional[tuple[str, ...]],
        arg(
            metavar="TRACES",
            help="Files of question, reasoning, answer: JSON (also gzip or zstd), Parquet, Arrow; "
            "folders of save_to_disk; patterns such as 'shards/*.jsonl'; - for standard input.",
            help_behavior_hint="(required)",
        ),
    ]
    model: Annotated[str, arg(metavar="MODEL")]
    """Folder or hub name of a causal LM with its tokenizer, or bundled: the demo's."""
    tokenizer: Annotated[str | None, optional("TOKENIZER")] = None
    """Folder or hub name of another tokenizer."""

    @property
    def named_tokenizer(self) -> tuple[str, str]:
        """The option that names the tokenizer, and the name."""
        if self.tokenizer is None:
            return "--model", self.model
        return "--tokenizer", self.tokenizer


@dataclass(frozen=True)
class PathOptions:
    """Where the path to the trace starts, and what moves along it."""

    baseline: Annotated[str, arg(metavar="BASELINE")] = "pad"
    """Where the path starts: pad, newline, zero, mean (of all embeddings), or a token id."""
    scope: Annotated[
        str,
        arg(
            metavar="SCOPE",
            help="What moves along the path: the reasoning only, or all tokens, as in the paper.",
        ),
    ] = "reasoning"

    def __post_init__(self) -> None:
        if not self.baseline.isdecimal():
            remedy = "Or give a token id."
            require_word("--baseline", self.baseline, BASELINES, remedy)
        require_word("--scope", self.scope, SCOPES)

    def settings(self) -> dict[str, Any]:
        """Arguments of `FastIG`."""
        baseline = int(self.baseline) if self.baseline.isdecimal() else self.baseline
        return {"baseline": baseline, "scope": self.scope}


@dataclass(frozen=True)
class RuleOptions:
    """Finite propagation, or where the gradients of Integrated Gradients are evaluated."""

    rule: Annotated[
        str | None,
        optional(
            "RULE",
            f"{DEFAULT} if left out: finite propagation, differences in place of gradients, for "
            "Llama, Qwen2, Qwen3, Mistral, Phi-3, Phi-4 and Gemma 2 and 3. Integrated Gradients, "
            "the paper's, for any causal LM: auto (more path points where it matters, until the "
            f"kept segments agree), {one_of(RULE_NAMES[1:-1])}, or a file RULE.json that calibrate "
            "wrote. The paper's own are riemann, and linspace in its code, with 50 steps.",
        ),
    ] = None
    steps: Annotated[int | None, optional("N")] = None
    """Path points of a rule with a name, 50 if left out; pieces of --rule secant, 1 if left out."""
    agreement: Annotated[
        float | None,
        optional(
            "X",
            "Auto stops where the kept segments are expected to agree so well (Jaccard index) with "
            f"those of the exact integral; 1: where none is undecided; {AGREEMENT} if left out.",
        ),
    ] = None
    max_evaluations: Annotated[
        int | None,
        optional(
            "N", f"Limit of auto on gradient evaluations a trace; {MAX_EVALUATIONS} if left out."
        ),
    ] = None
    tolerance: Annotated[float | None, optional("X")] = None
    """Auto also stops where no strength or consistency is off by more, by its estimate."""

    def make(self, scorer: SegmentScorer, scope: str) -> IntegrationRule:
        """Return the rule that makes the scorer's segments agree, for this scope.

        Raises:
            ValueError: If the options contradict each other, in the words of the command.
        """
        rule: Any = self.rule
        try:
            if isinstance(rule, str) and rule.endswith(".json"):
                rule = Rule.load(rule)
            made = rule_of(
                rule,
                steps=self.steps,
                scorer=scorer,
                tolerance=self.tolerance,
                max_evaluations=self.max_evaluations,
                agreement=self.agreement,
            )
            if isinstance(made, Rule):
                made.require_scope(scope)
            return made
        except (OSError, ValueError) as error:
            names = [*(field.name for field in dataclasses.fields(self)), "scope"]
            raise ValueError(in_flags(str(error), names)) from None

    def asked(self) -> dict[str, Any]:
        """The options as recorded; a fitted rule by its contents."""
        rule = DEFAULT if self.rule is None else self.rule
        if (file := Path(rule)).suffix == ".json":
            rule = f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()[:12]}"
        return {**dataclasses.asdict(self), "rule": rule}


@dataclass(frozen=True)
class MachineOptions:
    """How the model is loaded, and what it runs on."""

    dtype: Annotated[
        str, arg(metavar="DTYPE", help=f"Of the weights: {one_of(DTYPES)}; auto is as stored.")
    ] = "auto"
    device: Annotated[str | None, optional("DEVICE")] = None
    """Such as cuda:1, cpu, or sharded (over all GPUs); a GPU if there is one."""
    engine: Annotated[
        str,
        arg(
            metavar="ENGINE",
            help=f"What runs the model: {one_of(ENGINES)}; auto is fused for Llama, Qwen2, Qwen3, "
            "Mistral, Phi-3, Phi-4 and Gemma 2 and 3; autograd is for Integrated Gradients.",
        ),
    ] = "auto"
    backend: Annotated[
        str,
        arg(
            metavar="BACKEND",
            help=f"What computes its ops: {one_of(BACKENDS)}; auto is Triton on a GPU.",
        ),
    ] = "auto"
    max_memory: Annotated[float | None, optional("GIB")] = None
    """Memory to use beyond the weights; most of what is free if left out."""
    attn_implementation: Annotated[str | None, optional("NAME")] = None
    """As in transformers, such as sdpa or flash_attention_2."""
    trust_remote_code: bool = False
    """Run code that comes with the model."""
    unsafe_weights: bool = False
    """Also load weights that are not safetensors."""

    def __post_init__(self) -> None:
        require_word("--dtype", self.dtype, DTYPES)
        require_word("--engine", self.engine, ENGINES)
        require_word("--backend", self.backend, BACKENDS)
        if self.max_memory is not None and not 0 < self.max_memory < 2**40:
            raise ValueError(f"--max-memory must be GiB above 0, got {self.max_memory}.")
