"""Ways to score the tokens of a trace, behind one call, for comparison.

Every candidate takes a `View` of a trace and returns token scores ``[T]``. Those that take a path
evaluate F and the tokens' integrands ``v_t = <x_t - x'_t, dF/dx_t>`` at equally spaced points, on
either engine, and differ in what they make of these.
Axes: ``K`` path points, ``T`` tokens.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor
from yardsticks import Coalitions, blocked, deletions

from segattr import EncodedTrace, FastIG
from segattr.engine.ends import PathEnds
from segattr.ig import Secant
from segattr.ig.path import Path

POINTS = 33
NOISY, NOISE = 8, 0.1  # how many inputs, and how far off: of the distance from the baseline
MOST_OF_THE_RISE = 0.9


@dataclass(frozen=True)
class View:
    """A trace, what moves and from where, and the path that this makes."""

    ig: FastIG
    encoded: EncodedTrace
    ends: PathEnds
    path: Path

    def along(self, count: int) -> tuple[Tensor, Tensor]:
        """F ``[K]`` and the integrands ``[K, T]`` at equally spaced points, in float64."""
        logprobs, values = self.path.evaluate(torch.linspace(0, 1, count, dtype=torch.float64))
        return logprobs.double(), values.double()


def integrated_gradients(view: View, count: int) -> Tensor:
    """Trapezoids (Sundararajan et al., 2017)."""
    _, values = view.along(count)
    return middles(values).mean(0)


def split_ig(view: View, count: int) -> Tensor:
    """Only the path up to where F has made most of its rise (Left-IG: Miglani et al., 2020)."""
    logprobs, values = view.along(count)
    wanted = logprobs[0] + MOST_OF_THE_RISE * (logprobs.max() - logprobs[0])
    stop = int((logprobs >= wanted).nonzero()[0])
    return middles(values)[:stop].sum(0) / (count - 1)


def idgi(view: View, count: int) -> Tensor:
    """Every step's change of F, shared out by squares (IDGI: Yang et al., 2023), of tokens."""
    logprobs, values = view.along(count)
    squares = values[:-1].square()
    return (logprobs.diff()[:, None] * shares(squares)).sum(0)


def normalised_rise(view: View, count: int) -> Tensor:
    """Integrands of one size, each with the weight of F's rise there: our own."""
    logprobs, values = view.along(count)
    return (logprobs.diff().clamp_min(0)[:, None] * shares(middles(values))).sum(0)


def middles(values: Tensor) -> Tensor:
    return (values[1:] + values[:-1]) / 2


def shares(values: Tensor) -> Tensor:
    return values / values.abs().sum(1, keepdim=True).clamp_min(1e-300)


def gradient_x_input(view: View) -> Tensor:
    """The integrand at the input."""
    return view.path.evaluate(torch.ones(1, dtype=torch.float64))[1][0].double()


def noisy_gradient_x_input(view: View) -> Tensor:
    """Its mean over inputs that are a little off (SmoothGrad: Smilkov et al., 2017)."""
    ends, engine = view.ends, type(view.path.engine)
    way = ends.inputs - ends.baseline
    size = NOISE * way.square().mean(-1, keepdim=True).sqrt()
    random = torch.Generator().manual_seed(0)
    found = []
    for _ in range(NOISY):
        off = size * torch.randn(way.shape, generator=random).to(way)
        moved = replace(ends, inputs=ends.inputs + off, baseline=ends.baseline + off)
        path = Path(
            engine(view.ig.model, moved, view.ig.backend), view.path.planner, view.path.num_tokens
        )
        found.append(path.evaluate(torch.ones(1, dtype=torch.float64))[1][0].double())
    return torch.stack(found).mean(0)


def secant(view: View, count: int, split: str) -> Tensor:
    """Finite propagation; on the fused engine alone."""
    return Secant(count, split).integrate(view.path, view.encoded.segments).token_scores.double()


@torch.no_grad()
def attention(view: View) -> Tensor:
    """How much the rows that predict the answer attend to a token: mean of layers and heads."""
    start, stop = (edge - 1 for edge in view.encoded.target)
    model, ids = that_shows_attention(view.ig.model), view.encoded.input_ids[None, :stop]
    cache = model(ids[:, :start], use_cache=True, logits_to_keep=1).past_key_values
    found = model(ids[:, start:], past_key_values=cache, output_attentions=True).attentions
    rows = torch.stack([layer[0].double().mean((0, 1)) for layer in found]).mean(0)
    return torch.nn.functional.pad(rows, (0, len(view.encoded.input_ids) - len(rows)))


@cache
def that_shows_attention(model: Any) -> Any:
    """A copy: transformers leaves its hooks in a model that has shown its attention once."""
    shown = copy.deepcopy(model)
    shown.set_attn_implementation("eager")
    return shown


def falls(view: View, measure: Callable[[FastIG, EncodedTrace], Tensor]) -> Tensor:
    """By how much F falls without a segment, evenly over its tokens."""
    scores = torch.zeros(len(view.encoded.input_ids), dtype=torch.float64)
    for fall, (start, stop) in zip(
        measure(view.ig, view.encoded), view.encoded.segments, strict=True
    ):
        scores[start:stop] = fall / (stop - start)
    return scores


def from_the_baseline(ig: FastIG, encoded: EncodedTrace) -> Tensor:
    return Coalitions(ig, encoded).without_each()[: len(encoded.segments)]


def position(view: View) -> Tensor:
    """The later a segment, the stronger, whatever its length."""
    scores = torch.zeros(len(view.encoded.input_ids), dtype=torch.float64)
    for number, (start, stop) in enumerate(view.encoded.segments, start=1):
        scores[start:stop] = number / (stop - start) ** 0.5
    return scores


def length(view: View) -> Tensor:
    """The longer a segment, the stronger."""
    scores = torch.zeros(len(view.encoded.input_ids), dtype=torch.float64)
    for start, stop in view.encoded.segments:
        scores[start:stop] = (stop - start) ** 0.5
    return scores


@dataclass(frozen=True)
class Candidate:
    """One way, and its cost in forward passes: 3 a gradient, 3 a piece of secants and 1 an end.

    ``units`` is None for one a segment; ``pathless`` ones are the same on every path.
    """

    score: Callable[[View], Tensor]
    units: int | None
    pathless: bool = False


ALONG: dict[str, Callable[[View, int], Tensor]] = {
    "IG": integrated_gradients,
    "split IG": split_ig,
    "IDGI": idgi,
    "normalised rise": normalised_rise,
}
CANDIDATES: dict[str, Candidate] = {
    **{
        f"{name}, {POINTS} points": Candidate(partial(score, count=POINTS), 3 * POINTS)
        for name, score in ALONG.items()
    },
    "IG, 129 points": Candidate(partial(integrated_gradients, count=129), 3 * 129),
    "gradient x input": Candidate(gradient_x_input, 3),
    f"gradient x input, {NOISY} noisy": Candidate(noisy_gradient_x_input, 3 * NOISY),
    **{
        f"secant, {count}, {split}": Candidate(
            partial(secant, count=count, split=split), 3 * count + 1
        )
        for split in ("mean", "content")
        for count in (1, 2, 4)
    },
    "leave one out": Candidate(partial(falls, measure=from_the_baseline), None),
    "deletion": Candidate(partial(falls, measure=deletions), None, pathless=True),
    "blocked attention": Candidate(partial(falls, measure=blocked), None, pathless=True),
    "attention": Candidate(attention, 1, pathless=True),
    "position": Candidate(position, 0, pathless=True),
    "length": Candidate(length, 0, pathless=True),
}
