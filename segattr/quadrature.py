"""Where along the path gradients are evaluated, and with which weights they are summed.

    integral over [0, 1] of g(alpha) ~ sum_k weights[k] g(alphas[k])

Axes: ``K`` path points.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor


def _riemann(k: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(1, k + 1) / k, np.full(k, 1 / k)


def _linspace(k: int) -> tuple[np.ndarray, np.ndarray]:
    return np.linspace(0, 1, k), np.full(k, 1 / k)


def _midpoint(k: int) -> tuple[np.ndarray, np.ndarray]:
    return (np.arange(k) + 0.5) / k, np.full(k, 1 / k)


def _trapezoid(k: int) -> tuple[np.ndarray, np.ndarray]:
    weights = np.full(k, 1 / (k - 1))
    weights[[0, -1]] /= 2
    return np.linspace(0, 1, k), weights


def _gauss_legendre(k: int) -> tuple[np.ndarray, np.ndarray]:
    nodes, weights = np.polynomial.legendre.leggauss(k)
    return (nodes + 1) / 2, weights / 2


RULES: dict[str, Callable[[int], tuple[np.ndarray, np.ndarray]]] = {
    "riemann": _riemann,
    "linspace": _linspace,
    "midpoint": _midpoint,
    "trapezoid": _trapezoid,
    "gauss-legendre": _gauss_legendre,
}


def nodes_and_weights(rule: str, num_points: int) -> tuple[Tensor, Tensor]:
    """Return the path points of a rule and their weights.

    ``riemann`` is the paper's Eq. 2 (``alpha = j / K``, ``j = 1..K``); ``linspace`` is its released
    code (both ends included, equal weights ``1 / K``, so a bias of order ``1 / K`` towards the
    ends); ``midpoint``, ``trapezoid`` and ``gauss-legendre`` are the textbook rules.

    Args:
        rule: One of `RULES`.
        num_points: Gradient evaluations, at least 1; at least 2 for the rules with both ends.

    Returns:
        ``(alphas, weights)``, float64 ``[K]`` each, ascending in [0, 1]; the weights sum to 1.

    Raises:
        ValueError: If the rule is unknown or has too few points.
    """
    if rule not in RULES:
        raise ValueError(f"rule must be one of {', '.join(map(repr, RULES))}, got {rule!r}.")
    fewest = 2 if rule in ("linspace", "trapezoid") else 1
    if not isinstance(num_points, int) or num_points < fewest:
        raise ValueError(f"{rule} needs at least {fewest} points, got {num_points!r}. Raise steps.")
    alphas, weights = RULES[rule](num_points)
    return torch.from_numpy(alphas), torch.from_numpy(weights)
