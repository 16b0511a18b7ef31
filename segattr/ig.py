"""Integrated Gradients of an answer's log-probability over a long trace.

    a_t = <x_t - x'_t, integral_0^1 dF/dx_t (x' + alpha (x - x')) d alpha>
    F = sum of log p(answer tokens)

(Sundararajan et al., 2017; arXiv 2602.00425, Eqs. 1-2.)
Axes: ``K`` path points, ``T`` tokens, ``D`` hidden size.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from segattr import ops, reference
from segattr.attribution import Attribution
from segattr.baseline import baseline_embedding, baseline_token, require_baseline, table_shape
from segattr.encoding import encode
from segattr.engine import ENGINES
from segattr.engine.autograd import AutogradEngine, frozen, require_causal_lm
from segattr.engine.decoder import why_not_fused
from segattr.engine.fused import FusedEngine
from segattr.planner import Load, Planner
from segattr.quadrature import nodes_and_weights
from segattr.trace import EncodedTrace, Trace, check_length

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SCOPES = ("all", "reasoning")
Engine = AutogradEngine | FusedEngine


class FastIG:
    """Attribute the answer's log-probability to every token of a trace.

    All answer tokens share one backward pass, path points go through in chunks that fit the memory,
    and the model is left as it was: weights' ``requires_grad``, training mode, hooks and gradients,
    also after an exception.

    Args:
        model: Any transformers causal LM; peft-wrapped, quantised and ``device_map``-sharded ones
            too.
        tokenizer: For traces given as text; ``None`` loads the one at ``model.name_or_path``.
        rule: Where gradients are evaluated: ``"riemann"`` (the paper's Eq. 2), ``"linspace"`` (its
            released code), ``"midpoint"``, ``"trapezoid"`` or ``"gauss-legendre"``.
        steps: Gradient evaluations per trace; ``None``: 50.
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
        rule: str = "midpoint",
        steps: int | None = None,
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
        self.steps = 50 if steps is None else steps
        self.alphas, self.weights = nodes_and_weights(rule, self.steps)
        self.baseline = baseline
        self.scope = scope
        self.strip_final_answer = strip_final_answer
        self.engine = engine
        self.backend = backend
        self.planner = Planner(self.model, max_memory)
        self._engine_class()
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
            Signed scores for all ``T`` tokens, F at both ends of the path and the settings.

        Raises:
            TraceTooLongError: If the sequence is longer than the model's context.
            MemoryError: If not even one path point fits.
            ValueError: If the trace cannot be encoded, or has token ids the model does not know.
            FloatingPointError: If a log-probability or a gradient is not finite.
        """
        encoded = trace if isinstance(trace, EncodedTrace) else self.encode(trace)
        self._check(encoded)
        token_id = baseline_token(self.baseline, self.model, self.tokenizer)
        with torch.inference_mode(False), frozen(self.model), torch.no_grad():
            inputs, baseline = self._path_ends(encoded, token_id)
            start, stop = encoded.target
            engine = self._engine_class()(
                self.model, inputs, baseline, encoded.input_ids[start:stop], start, self.backend
            )
            load = Load(len(engine.inputs), stop - start, engine.name == "fused")
            logprobs, values = self.planner.run(self.alphas, engine.evaluate, load)
            shares = (self.weights @ values.double()).to(values.dtype)
            _require_finite(logprobs, self.alphas)
            target_logprob = self._logprob_at(engine, logprobs, 1.0)
            baseline_logprob = self._logprob_at(engine, logprobs, 0.0)
        return Attribution(
            token_scores=_token_scores(shares, len(encoded.input_ids)),
            encoded=encoded,
            target_logprob=target_logprob,
            baseline_logprob=baseline_logprob,
            evaluations=len(self.alphas),
            settings=self._settings(token_id, engine),
        )

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

    def _check(self, encoded: EncodedTrace) -> None:
        context = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        check_length(encoded, context, "the model's context")
        known, _ = table_shape(self.model)
        largest = int(encoded.input_ids.max())
        if largest >= known or int(encoded.input_ids.min()) < 0:
            raise ValueError(
                f"input_ids must be below the model's {known} embeddings, got {largest}. "
                "Was the trace encoded with another model's tokenizer?"
            )

    def _path_ends(self, encoded: EncodedTrace, token_id: int | None) -> tuple[Tensor, Tensor]:
        """Embeddings of the tokens and of their starting points, ``[T, D]`` each."""
        embed = self.model.get_input_embeddings()
        device = next(embed.parameters()).device
        inputs = embed(encoded.input_ids.to(device))
        baseline = (
            baseline_embedding(self.baseline, token_id, self.model).to(inputs).expand_as(inputs)
        )
        if self.scope == "reasoning":
            moved = torch.zeros(len(inputs), 1, dtype=torch.bool, device=device)
            moved[slice(*encoded.reasoning)] = True
            baseline = torch.where(moved, baseline, inputs)
        return inputs, baseline

    def _engine_class(self) -> type[Engine]:
        """The engine for the model as it is now: adapters and hooks may come and go."""
        if self.engine == "autograd":
            return AutogradEngine
        if (reason := why_not_fused(self.model)) is None:
            return FusedEngine
        if self.engine == "fused":
            raise ValueError(
                f"engine='fused' must be able to run the model, but {reason}. Pass engine='auto'."
            )
        return AutogradEngine

    def _logprob_at(self, engine: Engine, logprobs: Tensor, alpha: float) -> float:
        """F at one end of the path; already known if the rule has a point there."""
        if (known := (self.alphas == alpha).nonzero()).numel():
            return float(logprobs[known[0, 0]])
        end = torch.tensor([alpha], dtype=torch.float64)
        logprob = engine.logprob(end)
        _require_finite(logprob, end)
        return float(logprob)

    def _settings(self, token_id: int | None, engine: Engine) -> dict[str, Any]:
        return {
            "model": self.model.name_or_path,
            "rule": self.rule,
            "steps": self.steps,
            "baseline": self.baseline if isinstance(self.baseline, (str, int)) else "tensor",
            "baseline_token_id": token_id,
            "scope": self.scope,
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "engine": engine.name,
            "backend": "torch" if engine.ops is reference else "triton",
            "strip_final_answer": self.strip_final_answer,
        }


def _require_word(name: str, word: str, accepted: Sequence[str]) -> None:
    if word not in accepted:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, accepted))}, got {word!r}.")


def _require_finite(logprobs: Tensor, alphas: Tensor) -> None:
    if not logprobs.isfinite().all():
        at = int((~logprobs.isfinite()).nonzero()[0])
        raise FloatingPointError(
            f"the answer's log-probability must be finite, got {logprobs[at]} at path point {at} "
            f"(alpha = {alphas[at]:.4g}). Use dtype=torch.float32 or another baseline."
        )


def _token_scores(shares: Tensor, num_tokens: int) -> Tensor:
    """The tokens' shares on the CPU; tokens that were not run get 0."""
    scores = torch.zeros(num_tokens, dtype=shares.dtype)
    scores[: len(shares)] = shares.cpu()
    if not scores.isfinite().all():
        at = int((~scores.isfinite()).nonzero()[0])
        raise FloatingPointError(
            f"gradients must be finite, got {scores[at]} at token {at}. Use dtype=torch.float32."
        )
    return scores
