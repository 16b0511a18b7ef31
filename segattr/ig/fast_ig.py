"""Integrated Gradients of an answer's log-probability over a long trace.

    a_t = <x_t - x'_t, integral_0^1 dF/dx_t (x' + alpha (x - x')) d alpha>
    F = sum of log p(answer tokens)

(Sundararajan et al., 2017; arXiv 2602.00425, Eqs. 1-2.)
Axes: ``K`` path points, ``T`` tokens, ``D`` hidden size.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from segattr.attribution import Attribution, completeness_gap
from segattr.encoding import encode
from segattr.engine import ENGINES, ops, reference
from segattr.engine.autograd import frozen, require_causal_lm
from segattr.engine.planner import Planner
from segattr.engine.reference import compute_dtype
from segattr.ig.baseline import baseline_token, require_baseline
from segattr.ig.path import Path, engine_class, path_ends, require_known
from segattr.ig.rules import Rule, describe_baseline, points_and_weights
from segattr.quadrature.integral import require_tolerance
from segattr.quadrature.refinement import (
    MAX_EVALUATIONS,
    Refinement,
    refine,
    require_max_evaluations,
)
from segattr.scores import SegmentScorer, segment_samples
from segattr.trace import EncodedTrace, Trace

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SCOPES = ("all", "reasoning")
PAPER = SegmentScorer()


class FastIG:
    """Attribute the answer's log-probability to every token of a trace.

    All answer tokens share one backward pass, path points go through in chunks that fit the memory,
    and the model is left as it was: weights' ``requires_grad``, training mode, hooks and gradients,
    also after an exception.

    Args:
        model: Any transformers causal LM; peft-wrapped, quantised and ``device_map``-sharded ones
            too.
        tokenizer: For traces given as text; ``None`` loads the one at ``model.name_or_path``.
        rule: Where gradients are evaluated: ``"auto"`` (9 points, then more where the integrand is
            rough, until the estimated error cannot change which segments are kept), ``"riemann"``
            (the paper's Eq. 2), ``"linspace"`` (its released code), ``"midpoint"``,
            ``"trapezoid"``, ``"gauss-legendre"``, or a `Rule` fitted to the model, which gives way
            to ``"auto"`` where the completeness gap is larger than its validation saw.
        steps: Gradient evaluations per trace of a rule given by name, but ``"auto"``; ``None``: 50.
        scorer: Whose kept segments ``"auto"`` makes certain: give the one you score with. ``None``:
            only the tolerance counts.
        tolerance: ``"auto"`` also stops where no segment's strength or consistency is off by more,
            by its estimate; ``None``: only the kept segments count.
        max_evaluations: Most gradient evaluations of ``"auto"`` per trace, at least 9, beside those
            of a `Rule` that gave way to it; an attribution that used them up without being certain
            says ``converged=False``. ``None``: 65.
        baseline: Where the path starts: ``"pad"`` (the pad token's embedding, as the paper; without
            a pad token the EOS token's, with a warning), ``"zero"``, ``"mean"`` (of the embedding
            table), a token id, or a tensor ``[D]``.
        scope: What moves along the path: ``"all"`` tokens (as the paper) or the ``"reasoning"``
            only, everything else staying in place; the latter ranks segments better where that is
            known.
        dtype: ``None`` runs the model as it is; another dtype runs a converted copy of it.
        engine: ``"fused"`` (Llama, Qwen2, Qwen3 and Mistral with plain weights), ``"autograd"``
            (any causal LM), or ``"auto"``: fused where that runs.
        backend: ``"triton"``, ``"torch"``, or ``"auto"``: Triton on CUDA devices that have it.
        max_memory: Bytes to use beyond the weights; ``None``: most of what is free.
        strip_final_answer: Leave the trace's own final statement of the answer out; see `encode`.

    Raises:
        TypeError, ValueError: If the model is not a causal LM, a word is unknown, or the engine
            asked for cannot run the model.
        RuntimeError: If the backend asked for cannot run on the model's device.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        rule: str | Rule = "auto",
        steps: int | None = None,
        scorer: SegmentScorer | None = PAPER,
        tolerance: float | None = None,
        max_evaluations: int | None = None,
        baseline: str | int | Tensor = "pad",
        scope: str = "all",
        dtype: torch.dtype | None = None,
        engine: str = "auto",
        backend: str = "auto",
        max_memory: int | None = None,
        strip_final_answer: bool = False,
    ) -> None:
        require_causal_lm(model)
        _require_word("engine", engine, ENGINES)
        _require_word("scope", scope, SCOPES)
        require_baseline(baseline, model)
        same = dtype is None or dtype == model.dtype
        self.model: Any = model if same else cast(Any, copy.deepcopy(model)).to(dtype)
        self.tokenizer = tokenizer
        self.rule = rule
        self.alphas, self.weights = points_and_weights(rule, steps)
        self.scorer = scorer
        self.tolerance = tolerance
        self.max_evaluations = MAX_EVALUATIONS if max_evaluations is None else max_evaluations
        _require_end(rule, scorer, tolerance, max_evaluations)
        if isinstance(rule, Rule):
            token_id = baseline_token(baseline, self.model, tokenizer)
            rule.require(self.model, describe_baseline(baseline, token_id), scope)
        self.baseline = baseline
        self.scope = scope
        self.strip_final_answer = strip_final_answer
        self.engine = engine
        self.backend = backend
        self.planner = Planner(self.model, max_memory)
        engine_class(self.model, engine)
        ops.choose(backend, next(self.model.parameters()))

    @classmethod
    def official(
        cls, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None = None
    ) -> FastIG:
        """Run the released pipeline of arXiv 2602.00425: linspace, 50 points, pad, all tokens.

        Its 50 equal weights include both ends, which biases the integral by about 1/50 of their
        excess over its mean; that bias is reproduced. Alphas and sums are float32 here where the
        release has bfloat16.
        """
        return cls(model, tokenizer, rule="linspace", steps=50, baseline="pad", scope="all")

    def attribute(self, trace: Trace | EncodedTrace) -> Attribution:
        """Attribute one trace.

        Args:
            trace: Text, which is encoded with the tokenizer, or an `EncodedTrace`.

        Returns:
            Signed scores for all ``T`` tokens, F at both ends of the path and the settings; from
            ``rule="auto"`` also error estimates.

        Raises:
            TraceTooLongError: If the sequence is longer than the model's context.
            MemoryError: If not even one path point fits.
            ValueError: If the trace cannot be encoded, or has token ids the model does not know.
            FloatingPointError: If a log-probability or a gradient is not finite.
        """
        encoded = trace if isinstance(trace, EncodedTrace) else self.encode(trace)
        with self._path(encoded) as path:
            findings = self._integrate(path, encoded)
            target_logprob, baseline_logprob = path.logprob(1.0), path.logprob(0.0)
        return Attribution(
            **findings,
            encoded=encoded,
            target_logprob=target_logprob,
            baseline_logprob=baseline_logprob,
            evaluations=path.evaluations,
            settings=self._settings(path, "converged" in findings),
        )

    def integrand(
        self, trace: Trace | EncodedTrace, alphas: Tensor | Sequence[float]
    ) -> tuple[Tensor, Tensor]:
        """Return F and the tokens' integrands at places of the path, whatever the rule.

        Args:
            trace: As for `attribute`.
            alphas: Places in [0, 1], ``[K]``.

        Returns:
            F, ``[K]``, and ``<x_t - x'_t, dF/dx_t>``, ``[K, T]``; float32 or better, on CPU.

        Raises:
            TraceTooLongError, MemoryError, ValueError, FloatingPointError: As `attribute`.
        """
        encoded = trace if isinstance(trace, EncodedTrace) else self.encode(trace)
        with self._path(encoded) as path:
            return path.evaluate(torch.as_tensor(alphas, dtype=torch.float64).reshape(-1))

    def attribute_many(self, traces: Iterable[Trace | EncodedTrace]) -> Iterator[Attribution]:
        """Attribute traces one after another, lazily, in the order given."""
        return map(self.attribute, traces)

    def encode(self, trace: Trace) -> EncodedTrace:
        """Encode a trace with the tokenizer; see `segattr.encode` for other settings."""
        if self.tokenizer is None:
            if not self.model.name_or_path:
                raise ValueError(
                    "tokenizer must be given for a model without name_or_path, got None. Pass "
                    "tokenizer=."
                )
            from transformers import AutoTokenizer

            self.tokenizer = AutoTokenizer.from_pretrained(self.model.name_or_path)
        return encode(trace, self.tokenizer, strip_final_answer=self.strip_final_answer)

    @contextmanager
    def _path(self, encoded: EncodedTrace) -> Iterator[Path]:
        """The trace's path, while the model is frozen."""
        require_known(encoded, self.model)
        token_id = baseline_token(self.baseline, self.model, self.tokenizer)
        with torch.inference_mode(False), frozen(self.model), torch.no_grad():
            inputs, baseline = path_ends(self.model, encoded, self.baseline, token_id, self.scope)
            start, stop = encoded.target
            engine = engine_class(self.model, self.engine)(
                self.model, inputs, baseline, encoded.input_ids[start:stop], start, self.backend
            )
            yield Path(engine, self.planner, len(inputs), token_id)

    def _integrate(self, path: Path, encoded: EncodedTrace) -> dict[str, Any]:
        """The token scores, and what is known about their errors."""
        if self.rule == "auto":
            return self._refine(path, encoded.segments)
        _, values = path.evaluate(self.alphas)
        scores = (self.weights @ values.double()).to(values.dtype)
        if isinstance(self.rule, Rule):
            change = path.logprob(1.0) - path.logprob(0.0)
            if completeness_gap(scores, change) > self.rule.largest_gap:
                return self._refine(path, encoded.segments)
        return {"token_scores": scores}

    def _refine(self, path: Path, spans: Sequence[tuple[int, int]]) -> dict[str, Any]:
        """Refine until the kept segments are certain, or the scores within the tolerance."""

        def settled(refinement: Refinement) -> bool:
            samples = segment_samples(refinement.samples(), spans)
            verdict = (self.scorer or PAPER).judge(samples, spans)
            if self.scorer is not None and not verdict["undecided"].any():
                return True
            if self.tolerance is None:
                return False
            errors = torch.cat([verdict["strength_error"], verdict["consistency_error"]])
            return bool(errors.max() <= self.tolerance)

        dtype = path.engine.inputs.dtype
        wide = compute_dtype(dtype)
        refinement = Refinement(self.max_evaluations, resolution=torch.finfo(dtype).eps)
        refine(path.evaluate, settled, refinement)
        samples = segment_samples(refinement.samples(), spans)
        if not refinement.is_plausible():
            samples[1:] = torch.nan
        return {
            "token_scores": refinement.value.to(wide),
            "converged": refinement.converged,
            "token_error": refinement.error.to(wide),
            "segment_samples": samples,
        }

    def _settings(self, path: Path, refined: bool) -> dict[str, Any]:
        rule = "calibrated" if isinstance(self.rule, Rule) else self.rule
        return {
            "model": self.model.name_or_path,
            "rule": "auto" if refined else rule,
            "steps": len(self.alphas) or None,  # of a rule that gave way to "auto", too
            "scorer": vars(self.scorer) if refined and self.scorer else None,
            "tolerance": self.tolerance if refined else None,
            "max_evaluations": self.max_evaluations if refined else None,
            "baseline": self.baseline if isinstance(self.baseline, (str, int)) else "tensor",
            "baseline_token_id": path.baseline_token_id,
            "scope": self.scope,
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "engine": path.engine.name,
            "backend": "torch" if path.engine.ops is reference else "triton",
            "strip_final_answer": self.strip_final_answer,
        }


def _require_word(name: str, word: str, accepted: Sequence[str]) -> None:
    if word not in accepted:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, accepted))}, got {word!r}.")


def _require_end(
    rule: str | Rule,
    scorer: SegmentScorer | None,
    tolerance: float | None,
    max_evaluations: int | None,
) -> None:
    """Raise if ``"auto"`` would not know where to stop, or if nothing would use a setting."""
    if isinstance(rule, str) and rule != "auto":
        for name, value in (("tolerance", tolerance), ("max_evaluations", max_evaluations)):
            if value is not None:
                raise ValueError(
                    f"{name} must be None with rule={rule!r}, got {value}. Pass rule='auto'."
                )
        return
    if max_evaluations is not None:
        require_max_evaluations(max_evaluations)
    if tolerance is not None:
        require_tolerance(tolerance)
    elif scorer is None:
        raise ValueError("tolerance must be given with scorer=None, got None. Pass either.")
