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
