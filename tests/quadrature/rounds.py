"""Refinements for tests, after so many rounds."""

from __future__ import annotations

import torch

from segattr.quadrature.refinement import Refinement


def bisect(function, rounds, potential=None, **settings):
    """A refinement after so many rounds, whatever it says."""
    path = Refinement(**settings)
    for _ in range(rounds):
        nodes = path.wanted
        path.add(None if potential is None else potential(nodes), function(nodes))
    return path


def columns(*functions):
    return lambda x: torch.stack([function(x) for function in functions], -1)


def noisy(function, noise, seed):
    """The function with rounding errors as this noise has them, others at every call."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def evaluate(x):
        values = function(x)
        count, components = values.shape
        factors = 1 + noise.common * random(count, 1) + noise.own * random(count, components)
        rms = values.square().mean(1, keepdim=True).sqrt()
        return factors * values + noise.floor * rms * random(count, components)

    return evaluate
