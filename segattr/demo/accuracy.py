"""How often a model answers the world's questions, given the trace or parts of it."""

from __future__ import annotations

import random
from collections.abc import Iterable

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from segattr.demo.world import LEVELS, NECESSARY, Sample, sample
from segattr.encoding import encode
from segattr.trace import EncodedTrace, Trace


def answers_correctly(model: PreTrainedModel, encoded: EncodedTrace) -> bool:
    """Whether greedy decoding after the stub gives exactly the answer's tokens.

    Greedy decoding reproduces the answer if and only if each of its tokens is the most probable one
    after the tokens before it, so one forward pass decides.
    """
    start, stop = encoded.target
    with torch.no_grad():
        logits = model(encoded.input_ids[None, : stop - 1], use_cache=False).logits[0, start - 1 :]
    return bool((logits.argmax(-1) == encoded.input_ids[start:stop]).all())


def accuracy(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    samples: Iterable[Sample],
    without: frozenset[str] = frozenset(),
) -> float:
    """Fraction of samples answered correctly, without the segments of some kinds."""
    right = [
        answers_correctly(model, encode(Trace(s.question, s.without(without), s.answer), tokenizer))
        for s in samples
    ]
    return sum(right) / len(right)


def accuracy_report(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, count: int, seed: int
) -> dict[str, float]:
    """Accuracy on fresh questions of every level, with and without what is necessary."""
    report = {}
    for name, level in LEVELS.items():
        samples = [sample(rng, level) for rng in [random.Random(seed)] for _ in range(count)]
        report[name] = accuracy(model, tokenizer, samples)
        report[f"{name}, necessary segments taken out"] = accuracy(
            model, tokenizer, samples, NECESSARY
        )
    return report
