"""A row's columns taken apart: documents, each with its tokens and the weight of each token's loss.

Axes: ``T`` tokens of a row, or of one of its documents.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from segattr.training.rows import IGNORED

WEIGHT_COLUMNS = ("loss_weights", "loss_mask")


@dataclass(frozen=True)
class Document:
    """Tokens that attend to each other, int64 ``[T]``, and their weights, float64 ``[T]``."""

    ids: Tensor
    weights: Tensor

    @property
    def labels(self) -> Tensor:
        return self.ids.where(self.weights > 0, IGNORED)


def documents_of(row: Mapping[str, Any], index: int, needs_weights: bool) -> list[Document]:
    """Return the documents of one row; the first token of each has no weight.

    Args:
        row: Columns as `LossMaskCollator` reads them.
        index: Of the row in its batch, for messages.
        needs_weights: Labels alone will not do.

    Raises:
        ValueError: If a column is missing, of another length, or holds what it must not.
    """
    columns = {name: value for name, value in row.items() if value is not None}
    weights = _weights(columns, index, needs_weights)
    ids = torch.as_tensor(columns["input_ids"], dtype=torch.int64)
    lengths = torch.as_tensor(columns.get("seq_lengths", [len(ids)])).tolist()
    if min(lengths, default=0) < 0 or sum(lengths) != len(ids):
        raise ValueError(
            f"row {index} must have seq_lengths that sum to its {len(ids)} tokens, got {lengths}. "
            "Was it truncated by a trainer that cuts some columns only?"
        )
    documents = [
        Document(part, weight.clone())
        for part, weight in zip(ids.split(lengths), weights.split(lengths), strict=True)
        if len(part)
    ]
    for document in documents:
        document.weights[0] = 0
    return documents


def _weights(row: Mapping[str, Any], index: int, needs_weights: bool) -> Tensor:
    """What a row's labels and weights make of each of its tokens, float64 ``[T]``."""
    name = next((name for name in WEIGHT_COLUMNS if name in row), None)
    if name is None and "labels" not in row:
        name = "assistant_masks"
    without = name is not None and name not in row
    if "input_ids" not in row or without or (needs_weights and name is None):
        wanted = "weights" if needs_weights else "labels or weights"
        raise ValueError(
            f"row {index} must have input_ids and {wanted} ({', '.join(WEIGHT_COLUMNS)}), got "
            f"{', '.join(row)}. Does the trainer drop columns? Set remove_unused_columns=False."
        )
    ids = torch.as_tensor(row["input_ids"], dtype=torch.int64)
    if ids.ndim != 1:
        raise ValueError(f"row {index} must be one sequence, got shape {list(ids.shape)}.")
    weights = torch.ones(len(ids), dtype=torch.float64)
    if name is not None:
        weights = torch.as_tensor(row[name], dtype=torch.float64)
        _require_length(len(weights), len(ids), name, index)
        if not (weights.isfinite() & (weights >= 0)).all():
            bad = int((~(weights.isfinite() & (weights >= 0))).nonzero()[0])
            raise ValueError(
                f"row {index} must have {name} of at least 0 and finite, got {weights[bad]} at "
                f"token {bad}. A weight of 0 takes the loss away."
            )
    if "labels" in row:
        labels = torch.as_tensor(row["labels"], dtype=torch.int64)
        _require_length(len(labels), len(ids), "labels", index)
        if not ((labels == ids) | (labels == IGNORED)).all():
            bad = int(((labels != ids) & (labels != IGNORED)).nonzero()[0])
            raise ValueError(
                f"row {index} must have labels that are the input_ids or {IGNORED}, got "
                f"{labels[bad]} for {ids[bad]} at token {bad}. Labels are not shifted: the model "
                "does that."
            )
        weights = weights.where(labels != IGNORED, 0.0)
    return weights


def _require_length(got: int, expected: int, name: str, index: int) -> None:
    if got != expected:
        raise ValueError(
            f"row {index} must have {name} as long as its {expected} input_ids, got {got}. Was it "
            "truncated by a trainer that cuts some columns only?"
        )
