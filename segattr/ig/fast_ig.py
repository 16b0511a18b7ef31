"""Attribution of an answer's log-probability F to a trace: finite propagation, or IG.

    a_t = <x_t - x'_t, m_t>    with multipliers m from secants of the whole path, see `Secant`; or
    a_t = <x_t - x'_t, integral_0^1 dF/dx_t (x' + alpha (x - x')) d alpha>

The latter are Integrated Gradients (Sundararajan et al., 2017; arXiv 2602.00425, Eqs. 1-2).
Axes: ``K`` path points, ``T`` tokens, ``D`` hidden size.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from segattr.attribution import Attribution
from segattr.checks import require_word
from segattr.engine import ENGINES, CausalLM
from segattr.engine.choice import engine_class, why_no_secants
from segattr.engine.ends import PathEnds
from segattr.engine.ops import choose
from segattr.engine.planner import Planner
from segattr.ig.baseline import Baseline, depth_of_the_caller
from segattr.ig.choice import rule_of
from segattr.ig.path import SCOPES, Path, path_ends
from segattr.ig.rules import DIFFERENCES, PAPER, Adaptive, IntegrationRule
from segattr.scores import SegmentScorer
from segattr.trace import EncodedTrace, Trace

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class FastIG:
    """Attribute the answer's log-probability to every token of a trace.

    All answer tokens share one backward pass, path points go through in chunks that fit the memory,
    and the model is left as it was: weights' ``requires_grad``, training mode, hooks and gradients,
    also after an exception.

    Args:
        model: Any transformers causal LM, also under peft, ``torch.compile`` or data-parallel
            wrappers, quantised, or spread with ``device_map``.
        tokenizer: For traces given as text; ``None`` loads the one at ``model.name_or_path``.
        rule: ``None`` means ``"secant"``: finite propagation, see `Secant`, which needs no
            gradients; or ``"auto"``, with a warning, where the fused engine cannot run the model or
            is not to. For Integrated Gradients, where they are evaluated: ``"auto"`` (9 path
            points, then more where the integrand is rough, until the kept segments are expected to
            agree with those of the exact integral), ``"riemann"`` (the paper's Eq. 2),
            ``"linspace"`` (its released code), ``"midpoint"``, ``"trapezoid"``,
            ``"gauss-legendre"``. Or an object: `Fixed`, `Adaptive`, `Secant`, or a `Rule` fitted to
            the model, which gives way to ``"auto"`` where the completeness gap is larger than its
            validation saw. What a trace costs, ``FastIG(...).rule.cost`` says.
        steps: Path points of a named rule other than ``"auto"``, ``None`` means 50; or pieces of
            ``rule="secant"``, if that is said, ``None`` means 1.
        scorer: Whose kept segments must agree with ``"auto"``: give the one you score with.
            ``None``: only the tolerance counts.
        agreement: ``"auto"`` stops where the kept segments' expected Jaccard index with those of
            the exact integral is at least this, in (0, 1], by its estimate; 1: where no segment is
            undecided. ``None`` means 0.95.
        tolerance: ``"auto"`` also stops where no segment's strength or consistency is off by more,
            by its estimate; ``None``: only the kept segments count.
        max_evaluations: Limit on path points for ``"auto"``, each a gradient evaluation, at least
            9; ``None`` means 129. Points spent by a `Rule` before it gave way are not counted. At
            the limit, ``converged`` is False.
        baseline: Where the path starts: ``"pad"`` (the pad token's embedding, as the paper; without
            a pad token the EOS token's, with a warning), ``"newline"`` (a line break's, from where
            paths of a real model were smoothest), ``"zero"``, ``"mean"`` (of the embedding table),
            a token id, or a tensor ``[D]``. Resolved here, once.
        scope: What moves along the path: the ``"reasoning"`` only, everything else staying in
            place, which ranks segments better where that is known; or ``"all"`` tokens, as the
            paper.
        dtype: ``None`` runs the model as it is; another dtype runs a converted copy of it.
        engine: ``"fused"`` (Llama, Qwen2, Qwen3, Mistral, Phi-3, Phi-4 and the text models of
            Gemma 2 and 3, with plain weights), ``"autograd"`` (any causal LM, but not
            ``rule="secant"``), or ``"auto"``: fused where that runs.
        backend: ``"triton"``, ``"torch"``, or ``"auto"``: Triton on CUDA devices that have it. The
            fused engine runs Gemma in torch.
        max_memory: Bytes to use beyond the weights; ``None``: most of what is free.
        max_length: Most tokens of a trace; ``None``: the model's context. May be more than that.
        strip_final_answer: Leave the trace's own final statement of the answer out; see `encode`.

    Raises:
        TypeError, ValueError: If the model is not a causal LM, a word is unknown, two settings
            contradict each other, or the engine asked for cannot run the model.
        RuntimeError: If the backend asked for cannot run on the model's device.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        rule: str | IntegrationRule | None = None,
        steps: int | None = None,
        scorer: SegmentScorer | None = PAPER,
        tolerance: float | None = None,
        max_evaluations: int | None = None,
        agreement: float | None = None,
        baseline: str | int | Tensor = "pad",
        scope: str = "reasoning",
        dtype: torch.dtype | None = None,
        engine: str = "auto",
        backend: str = "auto",
        max_memory: int | None = None,
        max_length: int | None = None,
        strip_final_answer: bool = False,
    ) -> None:
        require_word("engine", engine, ENGINES)
        require_word("scope", scope, SCOPES)
        limits: dict[str, Any] = {
            "tolerance": tolerance,
            "max_evaluations": max_evaluations,
            "agreement": agreement,
        }
        made = rule_of(rule, steps=steps, scorer=scorer, **limits)
        self.lm = CausalLM(model, tokenizer, dtype, max_length)
        self.rule = made if rule else _possible_default(made, self.lm.model, engine, scorer)
        self.scorer = self.rule.scorer or scorer  # a fixed rule has none, but `fit_rule` asks
        self.baseline = Baseline(baseline, self.lm)
        self.rule.require(self.lm.model, str(self.baseline), scope)
        self.scope = scope
        self.engine = engine
        self.backend = backend
        self.strip_final_answer = strip_final_answer
        self.planner = Planner(self.lm.model, max_memory)
        engine_class(self.lm.model, engine, self.rule.method == DIFFERENCES)
        choose(backend, torch.empty(0, device=self.lm.device))

    @classmethod
    def official(
        cls,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        max_length: int | None = None,
    ) -> FastIG:
        """Run the released pipeline of arXiv 2602.00425: linspace, 50 points, pad, all tokens.

        Its 50 equal weights include both ends, which biases the integral by about 1/50 of their
        excess over its mean; that bias is reproduced. Alphas and sums are float32 here where the
        release has bfloat16.
        """
        return cls(
            model,
            tokenizer,
            rule="linspace",
            steps=50,
            baseline="pad",
            scope="all",
            max_length=max_length,
        )

    def __repr__(self) -> str:
        model = self.lm.model
        return (
            f"FastIG({type(model).__name__} {model.name_or_path!r}, rule={str(self.rule)!r}, "
            f"baseline={str(self.baseline)!r}, scope={self.scope!r}, engine={self.engine!r}, "
            f"dtype={str(model.dtype).removeprefix('torch.')})"
        )

    @property
    def model(self) -> Any:
        """The model that runs."""
        return self.lm.model

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase | None:
        """The tokenizer, as given or as loaded so far."""
        return self.lm.tokenizer

    def attribute(self, trace: Trace | EncodedTrace) -> Attribution:
        """Attribute one trace.

        Args:
            trace: Text, which is encoded with the tokenizer, or an `EncodedTrace`.

        Returns:
            Signed scores for all ``T`` tokens, F at both ends of the path and the settings; from
            ``rule="auto"`` also error estimates.

        Raises:
            TypeError: If it is no trace.
            TraceTooLongError: If the sequence is longer than ``max_length`` or the model's context.
            MemoryError: If not even one path point fits.
            ValueError: If the trace cannot be encoded, or has token ids the model does not know;
                or, at the first trace, if the engine does not compute what the model itself says.
            FloatingPointError: If a log-probability or a gradient is not finite, or the scores of
                ``rule="secant"`` are not complete.
        """
        encoded = self.encode(trace)
        with self._path(encoded) as path:
            found = self.rule.integrate(path, encoded.segments)
            target_logprob, baseline_logprob = path.logprob(1.0), path.logprob(0.0)
        return Attribution(
            token_scores=found.token_scores,
            encoded=encoded,
            target_logprob=target_logprob,
            baseline_logprob=baseline_logprob,
            evaluations=path.evaluations,
            method=self.rule.method,
            converged=found.converged,
            token_error=found.token_error,
            segment_samples=found.segment_samples,
            settings={**self.lm.facts(), **found.settings, **self._settings(path)},
        )

    def integrand(
        self, trace: Trace | EncodedTrace, alphas: Tensor | Sequence[float]
    ) -> tuple[Tensor, Tensor]:
        """Return F and the tokens' integrands at path points, whatever the rule.

        Args:
            trace: As for `attribute`.
            alphas: Path points in [0, 1], ``[K]``.

        Returns:
            F, ``[K]``, and ``<x_t - x'_t, dF/dx_t>``, ``[K, T]``; float32 or better, on CPU.

        Raises:
            TraceTooLongError, MemoryError, ValueError, FloatingPointError: As `attribute`.
        """
        with self._path(self.encode(trace)) as path:
            return path.evaluate(torch.as_tensor(alphas, dtype=torch.float64).reshape(-1))

    def attribute_many(self, traces: Iterable[Trace | EncodedTrace]) -> Iterator[Attribution]:
        """Attribute traces one after another, lazily, in the order given."""
        return map(self.attribute, traces)

    def encode(self, trace: Trace | EncodedTrace) -> EncodedTrace:
        """Encode a trace with the tokenizer; see `segattr.encode` for other settings."""
        return self.lm.encoded(trace, strip_final_answer=self.strip_final_answer)

    @contextmanager
    def _path(self, encoded: EncodedTrace) -> Iterator[Path]:
        """The trace's path, while the model is frozen."""
        model = self.lm.model
        with self.lm.frozen():
            inputs, baseline = path_ends(self.lm, encoded, self.baseline, self.scope)
            kind = engine_class(model, self.engine, self.rule.method == DIFFERENCES)
            self.lm.require_agreement(kind, encoded, inputs, self.backend)
            ends = PathEnds.of(encoded.input_ids, inputs, baseline, encoded.target)
            yield Path(kind(model, ends, self.backend), self.planner, len(inputs))

    def _settings(self, path: Path) -> dict[str, Any]:
        return {
            "baseline": self.baseline.word,
            "baseline_token_id": self.baseline.token_id,
            "scope": self.scope,
            "engine": path.engine.name,
            "backend": path.engine.backend,
            "strip_final_answer": self.strip_final_answer,
        }


def _possible_default(
    default: IntegrationRule, model: Any, engine: str, scorer: SegmentScorer | None
) -> IntegrationRule:
    """The default rule, or Integrated Gradients, with a warning, where it cannot run."""
    if (reason := why_no_secants(model, engine)) is None:
        return default
    said = f"Integrated Gradients are computed instead of finite propagation: {reason}"
    warnings.warn(said, stacklevel=depth_of_the_caller())
    return Adaptive(scorer or PAPER)
