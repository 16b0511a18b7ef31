"""Segments that start where the model hesitates: at peaks of the entropy of its next token.

Tokens of high entropy are where a reasoning forks (Wang et al., arXiv 2506.01939: the top fifth).
Axes: ``T`` tokens, ``N`` of the reasoning, ``V`` vocabulary.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from segattr.engine.causal_lm import CausalLM
from segattr.engine.lookup import logits_of
from segattr.trace import Span, Trace

SHARE = 0.2  # of the tokens, which may be peaks
LEAST = 16
ROWS = 512  # logits in float32 at a time


@dataclass(frozen=True, eq=False)
class EntropyPeaks:
    """Cuts traces without segments of their own at peaks of entropy; one forward pass each.

    Args:
        lm: The model.
        least: Fewest tokens of a segment; 16 if None.
        encoding: Options of `segattr.encode` for the text that the model reads.
    """

    lm: CausalLM
    least: int | None
    encoding: dict[str, Any]

    def __call__(self, trace: Trace) -> Trace:
        """Return the trace with its segments.

        Raises:
            ValueError: If it cannot be encoded.
        """
        if trace.segments is not None:
            return trace
        options = {**self.encoding, "strip_final_answer": False}
        encoded = self.lm.encoded(trace, **options, segmenter="windows", segment_tokens=1)
        start, stop = encoded.reasoning
        with self.lm.frozen():
            ids = encoded.input_ids[None, :stop].to(self.lm.device)
            # The logits of a row are those of the token after it.
            logits = logits_of(self.lm.model, ids, stop - start + 1, use_cache=False)[0, :-1]
            entropies = torch.cat([_entropy(rows) for rows in logits.split(ROWS)]).cpu()
        assert encoded.characters is not None
        first = {tokens[0]: characters[0] for tokens, characters in _whole(encoded)}
        tokens = (at + start for at in _peaks(entropies, self.least or LEAST))
        cuts = [first[token] for token in tokens if token in first]  # a character may be several
        edges = [0, *(cut for cut in cuts if cut > 0), len(trace.reasoning)]
        return replace(trace, segments=list(itertools.pairwise(edges)))


def _whole(encoded: Any) -> list[tuple[Span, Span]]:
    """Tokens with the characters that start in them."""
    pairs = zip(encoded.segments, encoded.characters, strict=True)
    return [(tokens, characters) for tokens, characters in pairs if tokens[0] < tokens[1]]


def _entropy(logits: Tensor) -> Tensor:
    """Entropy of each row, in nats."""
    logprobs = logits.float().log_softmax(-1)
    return -(logprobs.exp() * logprobs).nansum(-1)


def _peaks(entropies: Tensor, least: int) -> list[int]:
    """The highest tokens that are so many apart, out of the highest `SHARE`, in order."""
    chosen: list[int] = []
    for at in entropies.argsort(descending=True)[: int(SHARE * len(entropies))].tolist():
        inside = least <= at <= len(entropies) - least
        if inside and all(abs(at - other) >= least for other in chosen):
            chosen.append(at)
    return sorted(chosen)
