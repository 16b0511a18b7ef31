"""Paths whose points are kept on disk: on a real model they are what costs.

Axes: ``K`` path points, ``T`` tokens.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from segattr.engine.planner import Planner
from segattr.ig.path import Path as EmbeddingPath

AT_ONCE = 16  # path points that a run which is stopped may lose


class Points:
    """What is known of a path.

    Args:
        file: Where it is kept; it need not exist.
        what: What the numbers depend on; a file of something else is an error.

    Attributes:
        alphas: float64 ``[K]``, ascending.
        logprobs: F there, float64 ``[K]``.
        values: The tokens' integrands there, ``[K, T]``.
        seconds: That they took together.
    """

    def __init__(self, file: Path, what: str) -> None:
        self.file, self.what = file, what
        self.alphas = torch.empty(0, dtype=torch.float64)
        self.logprobs = torch.empty(0, dtype=torch.float64)
        self.values = torch.empty(0, 0)
        self.seconds = 0.0
        if file.exists():
            self._read()

    def _read(self) -> None:
        with safe_open(self.file, "pt") as stored:
            facts = stored.metadata()
            if facts["what"] != self.what:
                raise ValueError(
                    f"{self.file} must be of {self.what}, got {facts['what']}. Remove it."
                )
            self.seconds = float(facts["seconds"])
            self.alphas, self.logprobs, self.values = map(
                stored.get_tensor, ("alphas", "logprobs", "values")
            )

    def add(self, alphas: Tensor, logprobs: Tensor, values: Tensor, seconds: float) -> None:
        """Keep more points, on disk too."""
        self.alphas, order = torch.cat([self.alphas, alphas]).sort()
        self.logprobs = torch.cat([self.logprobs, logprobs.double()])[order]
        known = [self.values] if len(self.values) else []
        self.values = torch.cat([*known, values])[order]
        self.seconds += seconds
        tensors = {"alphas": self.alphas, "logprobs": self.logprobs, "values": self.values}
        facts = {"what": self.what, "seconds": str(self.seconds)}
        scratch = self.file.with_suffix(".part")
        save_file(tensors, scratch, facts)
        os.replace(scratch, self.file)

    def at(self, alphas: Tensor) -> tuple[Tensor, Tensor]:
        """F and the integrands at path points, in the order asked for.

        Raises:
            KeyError: If one of them is not known.
        """
        if not self.has(alphas):
            raise KeyError(f"{self.file} must have all of {len(alphas)} path points.")
        places = torch.searchsorted(self.alphas, alphas)
        return self.logprobs[places], self.values[places]

    def has(self, alphas: Tensor) -> bool:
        """Whether all of these path points are known."""
        return bool(torch.isin(alphas, self.alphas).all())

    def seconds_for(self, count: int) -> float:
        """What so many path points take."""
        return self.seconds / len(self.alphas) * count if len(self.alphas) else 0.0


class StoredPath(EmbeddingPath):
    """A path that evaluates no point twice, in this run or another one.

    Args:
        engine, planner, num_tokens: As in `segattr.ig.path.Path`.
        points: What is known of it.

    Attributes:
        is_complete: Whether a point that is not known is an error (KeyError), not evaluated.
    """

    def __init__(self, engine: Any, planner: Planner, num_tokens: int, points: Points) -> None:
        super().__init__(engine, planner, num_tokens)
        self.points = points
        self.is_complete = False

    def evaluate(self, alphas: Tensor) -> tuple[Tensor, Tensor]:
        asked = self.evaluations + len(alphas)
        missing = alphas[~torch.isin(alphas, self.points.alphas)].unique()
        for part in missing.split(AT_ONCE) if len(missing) and not self.is_complete else ():
            begin = time.perf_counter()
            logprobs, values = super().evaluate(part)
            self.points.add(part, logprobs, values, time.perf_counter() - begin)
        self.evaluations = asked
        logprobs, values = self.points.at(alphas)
        self._logprobs |= zip(alphas.tolist(), logprobs.tolist(), strict=True)
        return logprobs, values
