"""Weigh: what a mode of the collator makes of the weights of a batch's documents.

Each function returns new documents. Axes: ``T`` tokens of a document.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from segattr.training.documents import Document


def masked(documents: Sequence[Document], threshold: float) -> list[Document]:
    """Return weights of 1 above the threshold, else 0."""
    return [Document(d.ids, (d.weights > threshold).to(d.weights)) for d in documents]


def drawn(documents: Sequence[Document]) -> list[Document]:
    """Draw weights of 0 or 1 with the weight as probability.

    Drawn again where a whole batch drew nothing: its mean loss would be 0/0.
    """
    while True:
        draws = [Document(d.ids, torch.bernoulli(d.weights)) for d in documents]
        if any(draw.weights.any() for draw in draws):
            return draws


def scaled_to_mean_1(documents: Sequence[Document]) -> list[Document]:
    """Return weights whose mean is 1 over the tokens with loss of each document."""
    return [Document(d.ids, d.weights * (d.weights > 0).sum()) for d in scaled_to_sum_1(documents)]


def scaled_to_sum_1(documents: Sequence[Document]) -> list[Document]:
    """Return weights whose sum is 1 over each document; those of one without loss stay 0."""
    # 1e-300: a document of a pack may be without loss.
    return [Document(d.ids, d.weights / d.weights.sum().clamp_min(1e-300)) for d in documents]


def require_mask(document: Document, index: int) -> None:
    """Raise ValueError for weights of row ``index`` that labels alone cannot hand on."""
    if ((document.weights != 0) & (document.weights != 1)).any():
        raise ValueError(
            f"row {index} has weights that are neither 0 nor 1, which a mask cannot hold. Pass "
            "emit_weights=True for a trainer that reads them, or mode='mask' or 'bernoulli'."
        )


def require_probabilities(document: Document, index: int) -> None:
    """Raise ValueError for weights of row ``index`` that cannot be drawn."""
    if (document.weights > 1).any():
        raise ValueError(
            f"row {index} must have weights of at most 1 to be drawn, got "
            f"{document.weights.max().item():g}. Divide them by their largest."
        )
