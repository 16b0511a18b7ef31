"""The integral of any function over [0, 1], by a rule's fixed nodes or by refinement.

Axes: ``K`` nodes, ``T`` components.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from segattr.checks import require_word
from segattr.quadrature.fixed import RULES, nodes_and_weights
from segattr.quadrature.refinement import MAX_EVALUATIONS, Refinement, refine


@dataclass(frozen=True)
class Integral:
    """The integral of a function over [0, 1].

    Args:
        value: float64, in the shape of the function's values.
        error: Its estimated absolute error, float64, in the same shape; None for fixed rules, which
            cannot tell.
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

    The error of ``"auto"`` is estimated from nested levels. What happens only between its nodes
    goes unseen, such as a bump that is zero at all of the nine equally spaced nodes it begins with.

    Args:
        function: Takes a float in [0, 1], returns a tensor, always of the same shape.
        rule: ``"auto"`` (9 equally spaced nodes, then bisection where the function is rough), or
            one of `segattr.quadrature.fixed.RULES`.
        points: Number of nodes of a fixed rule. ``None`` means 50.
        tolerance: Where ``"auto"`` stops: the error's share of the value, in L2 over components.
        max_evaluations: Limit on calls by ``"auto"``, at least 9.

    Returns:
        The integral, with the error and whether it converged for ``"auto"`` only.

    Raises:
        ValueError: If an argument is out of range, or the shape of the values changes.
        FloatingPointError: If a value is not finite.
    """
    require_word("rule", rule, ("auto", *RULES))
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
    """Raise ValueError if no estimated error could be within the tolerance."""
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
    """Raise if a value is not finite, and say at which path point.

    Args:
        rows: Values at the nodes, ``[K, T]``.
        alphas: The nodes, ``[K]``.
        what: Name of what has these values, for the error.
        component: Name of what a column stands for; left out if there is only one column.
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
