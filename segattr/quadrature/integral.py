"""Where along a path an integrand is evaluated, and with which weights it is summed.

    integral over [0, 1] of g(alpha) ~ sum_k weights[k] g(alphas[k])

Knows nothing of models. Axes: ``K`` path points.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from segattr.quadrature.refinement import MAX_EVALUATIONS, Refinement, refine


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


@dataclass(frozen=True)
class Integral:
    """The integral of a function over [0, 1].

    Args:
        value: float64, in the shape of the function's values.
        error: Its estimated absolute error, likewise; None for fixed rules, which cannot tell.
        evaluations: How often the function was called.
        converged: Whether the estimated error is within the tolerance; None for fixed rules.
    """

    value: Tensor
    error: Tensor | None
    evaluations: int
    converged: bool | None


def integrate(
    function: Callable[[float], Tensor],
    rule: str = "auto",
    *,
    points: int | None = None,
    tolerance: float = 1e-3,
    max_evaluations: int = MAX_EVALUATIONS,
) -> Integral:
    """Integrate a function over [0, 1].

    The error of ``"auto"`` is estimated from nested levels. It sees nothing that happens between
    its nodes only: a bump narrower than an eighth that is zero at nine equally spaced places.

    Args:
        function: Takes a float in [0, 1], returns a tensor, always of the same shape.
        rule: ``"auto"`` (9 equally spaced points, then bisection where the function is rough), or
            one of `RULES`.
        points: Of a fixed rule; ``None``: 50.
        tolerance: Where ``"auto"`` stops: the error's share of the value, in L2 over components.
        max_evaluations: Most calls of ``"auto"``.

    Raises:
        ValueError: If an argument is out of range, or the shape of the values changes.
        FloatingPointError: If a value is not finite.
    """
    if rule != "auto":
        alphas, weights = nodes_and_weights(rule, 50 if points is None else points)
        shape, values = _evaluated(function, alphas)
        return Integral((weights @ values).reshape(shape), None, len(alphas), None)
    if points is not None:
        raise ValueError(f"points must be None with rule='auto', got {points}. Set tolerance.")
    require_tolerance(tolerance)
    shape = torch.Size()

    def evaluate(alphas: Tensor) -> tuple[None, Tensor]:
        nonlocal shape
        shape, values = _evaluated(function, alphas)
        return None, values

    def settled(path: Refinement) -> bool:
        return bool(path.error.norm() <= tolerance * path.value.norm())

    path = refine(evaluate, settled, Refinement(max_evaluations))
    return Integral(
        path.value.reshape(shape), path.error.reshape(shape), len(path.alphas), path.converged
    )


def require_tolerance(tolerance: float) -> None:
    if not tolerance > 0:
        raise ValueError(
            f"tolerance must be above 0, got {tolerance}. Lower max_evaluations to save time."
        )


def _evaluated(function: Callable[[float], Tensor], alphas: Tensor) -> tuple[torch.Size, Tensor]:
    """The shape of the function's values, and the values, float64 ``[K, T]``."""
    values = [torch.as_tensor(function(alpha)) for alpha in alphas.tolist()]
    for alpha, value in zip(alphas.tolist(), values, strict=True):
        if value.shape != values[0].shape:
            raise ValueError(
                f"function must return one shape, got {tuple(value.shape)} at {alpha:.6g} after "
                f"{tuple(values[0].shape)}."
            )
    rows = torch.stack([value.detach().double().flatten() for value in values]).cpu()
    require_finite(rows, alphas, "the function")
    return values[0].shape, rows


def require_finite(
    rows: Tensor, alphas: Tensor, what: str, component: str = "component", remedy: str = ""
) -> None:
    """Raise, naming the path point, if a value is not finite.

    Args:
        rows: Values at the path points, ``[K, T]``.
        alphas: The path points, ``[K]``.
        what: Has these values.
        component: What a column stands for; not named if there is only one.
        remedy: A sentence for the error.

    Raises:
        FloatingPointError: If one is not finite.
    """
    if not rows.isfinite().all():
        k, column = (~rows.isfinite()).nonzero()[0].tolist()
        where = f"{component} {column}, " if rows.shape[1] > 1 else ""
        raise FloatingPointError(
            f"{what} must be finite, got {rows[k, column]} at {where}path point alpha = "
            f"{alphas[k]:.6g}. {remedy}".rstrip()
        )
