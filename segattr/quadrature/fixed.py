"""Rules with a fixed number of nodes.

    integral over [0, 1] of g(alpha) ~ sum_k weights[k] g(alphas[k])

Axes: ``K`` nodes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from segattr.checks import require_word


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
    """Return the nodes of a rule and their weights.

    Two of the rules are first-order, and their biases differ:

    - ``riemann`` is the paper's Eq. 2 (``alpha = j / K``, ``j = 1..K``). It evaluates each cell at
      its right end, and is off by about ``(g(1) - g(0)) / 2K``.
    - ``linspace`` is the paper's released code (both 0 and 1, equal weights ``1 / K``). It gives 0
      and 1 twice the weight of the trapezoid rule, and is off by about
      ``((g(0) + g(1)) / 2 - integral) / K``.

    ``midpoint`` and ``trapezoid`` are the textbook rules of second order; ``gauss-legendre`` is
    exact for polynomials of degree ``2K - 1``.

    Args:
        rule: One of `RULES`.
        num_points: Number of nodes ``K``, at least 1; at least 2 for the rules with both ends.

    Returns:
        ``(alphas, weights)``, float64 ``[K]`` each; alphas ascend in [0, 1], weights sum to 1.

    Raises:
        ValueError: If the rule is unknown or has too few nodes.
    """
    require_word("rule", rule, RULES)
    fewest = 2 if rule in ("linspace", "trapezoid") else 1
    if not isinstance(num_points, int) or num_points < fewest:
        raise ValueError(f"{rule} needs at least {fewest} points, got {num_points!r}. Raise steps.")
    alphas, weights = RULES[rule](num_points)
    return torch.from_numpy(alphas), torch.from_numpy(weights)
