"""What segment scores are judged by: Shapley values, leaving segments out, correlations, intervals.

A coalition is a set of *players*, the segments (with scope "all", one more for all other tokens):
their tokens have their own embeddings, those of absent players the baseline's. F of a coalition
takes one forward pass of the model itself and no gradient.
Axes: ``M`` players, ``S`` segments, ``C`` coalitions, ``T`` tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segattr import EncodedTrace, FastIG
from segattr.engine.lookup import logits_at
from segattr.ig.path import path_ends

EXACT = 8  # players whose coalitions are all tried
BATCH_TOKENS = 4096
RESAMPLED = 2000
Worth = Callable[[Tensor], Tensor]


class Coalitions:
    """F of any coalition of one trace's players.

    Args:
        ig: Says which model, baseline and scope.
        encoded: The trace.

    Attributes:
        count: Players, ``M``.
    """

    def __init__(self, ig: FastIG, encoded: EncodedTrace) -> None:
        self.model = ig.model
        self.count = len(encoded.segments) + (ig.scope == "all")
        rows = slice(encoded.target[1] - 1)
        with torch.no_grad():
            inputs, start = path_ends(ig.lm, encoded, ig.baseline, ig.scope)
        self.ids, self.inputs, self.start = encoded.input_ids[rows], inputs[rows], start[rows]
        self.target_ids = encoded.input_ids[slice(*encoded.target)]
        owners = torch.full((len(inputs),), len(encoded.segments))
        for number, (first, stop) in enumerate(encoded.segments):
            owners[first:stop] = number
        self.owners = owners[rows]  # the last number is of all that is no segment

    @torch.no_grad()
    def worth(self, present: Tensor) -> Tensor:
        """Return F of coalitions, bool ``[C, M]``: float64 ``[C]``."""
        there = torch.nn.functional.pad(present, (0, 1), value=True)  # what is no player stays
        batches = there[:, self.owners, None].split(max(1, BATCH_TOKENS // len(self.ids)))
        points = (torch.where(batch, self.inputs, self.start) for batch in batches)
        return torch.cat([self._logprob(batch) for batch in points])

    def without_each(self) -> Tensor:
        """Return how much F falls when one player alone is absent, ``[M]``."""
        coalitions = torch.ones(self.count + 1, self.count, dtype=torch.bool)
        coalitions[1:].fill_diagonal_(False)
        whole, *others = self.worth(coalitions)
        return whole - torch.stack(others)

    def _logprob(self, points: Tensor) -> Tensor:
        logits = logits_at(self.model, self.ids, points, len(self.target_ids))
        chosen = self.target_ids.expand(len(points), -1)[..., None]
        return logits.double().log_softmax(-1).gather(-1, chosen).sum((1, 2))


def shapley(worth: Worth, count: int, permutations: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Shapley values of a game (Shapley, 1953), and their standard errors.

    Args:
        worth: Of coalitions, bool ``[C, M]``: float64 ``[C]``.
        count: Players, ``M``. Up to 8 of them all coalitions are tried.
        permutations: Sampled orders of more players, in pairs of one and its reverse; at least 4.
        seed: Of the sampling.

    Returns:
        ``[M]`` each. The values sum to the worth of all players less that of none; the errors are 0
        where all coalitions were tried.
    """
    if count <= EXACT:
        values = _exact(worth, count)
        return values, torch.zeros_like(values)
    rng = np.random.default_rng(seed)
    orders = torch.stack(
        [torch.from_numpy(rng.permutation(count)) for _ in range(permutations // 2)]
    )
    pairs = torch.stack([_gains(worth, orders), _gains(worth, orders.flip(1))]).mean(0)
    return pairs.mean(0), pairs.std(0) / math.sqrt(len(pairs))


def _gains(worth: Worth, orders: Tensor) -> Tensor:
    """What each player adds when it joins, one order a row: ``[orders, M]``."""
    places = orders.argsort(1)  # [orders, M]
    count = orders.shape[1]
    present = places[:, None, :] < torch.arange(count + 1)[:, None]  # [orders, M + 1, M]
    distinct, index = present.flatten(0, 1).unique(dim=0, return_inverse=True)
    values = worth(distinct)[index].view(-1, count + 1)
    return values.diff(dim=1).gather(1, places)


def _exact(worth: Worth, count: int) -> Tensor:
    present = torch.tensor(list(product([False, True], repeat=count)))
    values, sizes = worth(present), present.sum(1)
    share = torch.tensor(
        [1 / (count * math.comb(count - 1, size)) for size in range(count)], dtype=torch.float64
    )
    # The order of the other players is the same in both halves.
    return torch.stack(
        [
            (share[sizes[~there]] * (values[there] - values[~there])).sum()
            for there in present.unbind(1)
        ]
    )


@torch.no_grad()
def deletions(ig: FastIG, encoded: EncodedTrace) -> Tensor:
    """Return how much F falls when a segment's tokens are taken out of the sequence, ``[S]``."""
    whole = logprob(ig, encoded.input_ids, encoded.target)
    numbers = range(len(encoded.segments))
    return whole - torch.stack([logprob_without(ig, encoded, [number]) for number in numbers])


@torch.no_grad()
def logprob_without(ig: FastIG, encoded: EncodedTrace, numbers: Sequence[int]) -> Tensor:
    """Return F when these segments' tokens are taken out of the sequence, and others move up."""
    there = torch.ones(len(encoded.input_ids), dtype=torch.bool)
    for number in numbers:
        there[slice(*encoded.segments[number])] = False
    start, stop = (edge - int((~there).sum()) for edge in encoded.target)
    return logprob(ig, encoded.input_ids[there], (start, stop))


@torch.no_grad()
def blocked(ig: FastIG, encoded: EncodedTrace) -> Tensor:
    """Return how much F falls when no later token can attend to a segment, ``[S]``.

    Exactly what a segment that was taken out would leave if all other tokens kept their positions;
    as attention masks of the whole sequence, which transformers hands to its attention as they are.
    """
    rows = encoded.target[1] - 1
    causal = torch.ones(rows, rows, dtype=torch.bool).tril()
    whole = logprob(ig, encoded.input_ids, encoded.target, causal)
    falls = []
    for start, stop in encoded.segments:
        mask = causal.clone()
        mask[stop:, start:stop] = False
        falls.append(whole - logprob(ig, encoded.input_ids, encoded.target, mask))
    return torch.stack(falls)


def logprob(ig: FastIG, ids: Tensor, target: tuple[int, int], mask: Tensor | None = None) -> Tensor:
    """Return the log-probability of the target, ``()`` float64.

    Args:
        ig: Whose model.
        ids: The sequence.
        target: Half-open span of the answer's tokens.
        mask: Which tokens each row may attend to, bool ``[T, T]`` without the last token of all;
            None: those up to it.
    """
    start, stop = target
    options: dict[str, Any] = {"use_cache": False, "logits_to_keep": stop - start}
    if mask is not None:
        bias = torch.zeros(mask.shape, dtype=ig.model.dtype).masked_fill(~mask, -torch.inf)
        options["attention_mask"] = bias[None, None]
    logits = ig.model(ids[None, : stop - 1], **options).logits[0].double()
    return logits.log_softmax(-1).gather(-1, ids[start:stop, None]).sum()


def pearson(one: Sequence[float], other: Sequence[float]) -> float:
    """Correlation; 0 where one of them does not vary."""
    centred = [np.asarray(values, dtype=float) - np.mean(values) for values in (one, other)]
    size = float(np.prod([np.linalg.norm(values) for values in centred]))
    return float(centred[0] @ centred[1]) / size if size > 0 else 0.0


def spearman(one: Sequence[float], other: Sequence[float]) -> float:
    """Correlation of the ranks, equal values sharing theirs."""
    return pearson(*(ranks(values) for values in (one, other)))


def ranks(values: Sequence[float]) -> np.ndarray:
    """Ranks from 0 on, equal values sharing theirs."""
    above = np.subtract.outer(values, values)
    return (above > 0).sum(1) + (above == 0).sum(1) / 2


def relative_error(found: Sequence[float], expected: Sequence[float]) -> float:
    """L2 norm of what is missed, as a share of the expected values' norm."""
    missed = np.subtract(found, expected)
    return float(np.linalg.norm(missed) / np.linalg.norm(expected))


def interval(values: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """The 95 % bootstrap interval of the mean."""
    rng = np.random.default_rng(seed)
    drawn = rng.choice(np.asarray(values, dtype=float), (RESAMPLED, len(values))).mean(1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)
