"""Read: a row's columns to documents, each with its tokens and the weight of each token's loss.

Axes: ``T`` tokens of a row, or of one of its documents.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from segattr.checks import require_nonnegative, require_type
from segattr.training.rows import (
    ASSISTANT_MASKS,
    IGNORED,
    INPUT_IDS,
    LABELS,
    LOSS_MASK,
    LOSS_WEIGHTS,
    SEQ_LENGTHS,
)

WEIGHT_COLUMNS = (LOSS_WEIGHTS, LOSS_MASK)  # the first that a row has is read
EXTRA_COLUMNS = (*WEIGHT_COLUMNS, ASSISTANT_MASKS, SEQ_LENGTHS)  # read, unknown to stock trainers


@dataclass(frozen=True)
class Document:
    """Tokens that attend to each other, int64 ``[T]``, and their weights, float64 ``[T]``.

    Never changed: who wants other weights makes another document.
    """

    ids: Tensor
    weights: Tensor

    @property
    def labels(self) -> Tensor:
        return self.ids.where(self.weights > 0, IGNORED)


def documents_of(row: Mapping[str, Any], index: int, needs_weights: bool) -> list[Document]:
    """Return the documents of one row; the first token of each has no weight.

    Args:
        row: Columns as `LossMaskCollator` reads them.
        index: The row's place in its batch, for messages.
        needs_weights: Whether labels alone are refused.

    Raises:
        TypeError: If the row has no columns.
        ValueError: If a column is missing, of another length, or holds what it must not.
    """
    remedy = "Pass rows of training_row(attribution.encoded, scores)."
    require_type(f"row {index}", row, Mapping, remedy)
    columns = {name: value for name, value in row.items() if value is not None}
    weights = _weights(columns, index, needs_weights)
    ids = torch.as_tensor(columns[INPUT_IDS], dtype=torch.int64)
    lengths = torch.as_tensor(columns.get(SEQ_LENGTHS, [len(ids)])).tolist()
    if min(lengths, default=0) < 0 or sum(lengths) != len(ids):
        raise ValueError(
            f"row {index} must have seq_lengths that sum to its {len(ids)} tokens, got {lengths}. "
            "Was it truncated by a trainer that cuts some columns only?"
        )
    parts = zip(ids.split(lengths), weights.split(lengths), strict=True)
    return [
        Document(part, weight.where(torch.arange(len(part)) > 0, 0.0))
        for part, weight in parts
        if len(part)
    ]


def _weights(row: Mapping[str, Any], index: int, needs_weights: bool) -> Tensor:
    """Return what labels and weights together make of each token, float64 ``[T]``."""
    name = _weight_column(row)
    missing = name not in row if name else needs_weights
    if INPUT_IDS not in row or missing:
        wanted = "weights" if needs_weights else "labels or weights"
        raise ValueError(
            f"row {index} must have input_ids and {wanted} ({', '.join(WEIGHT_COLUMNS)}), got "
            f"{', '.join(row)}. Does the trainer drop columns? Set remove_unused_columns=False."
        )
    ids = torch.as_tensor(row[INPUT_IDS], dtype=torch.int64)
    if ids.ndim != 1:
        raise ValueError(f"row {index} must be one sequence, got shape {list(ids.shape)}.")
    weights = torch.ones(len(ids), dtype=torch.float64)
    if name is not None:
        weights = torch.as_tensor(row[name], dtype=torch.float64)
        _require_length(len(weights), len(ids), name, index)
        remedy = "A weight of 0 takes the loss away."
        require_nonnegative(f"{name} of row {index}", weights, remedy)
    if LABELS in row:
        weights = weights.where(_labels(row, ids, index) != IGNORED, 0.0)
    return weights


def _weight_column(row: Mapping[str, Any]) -> str | None:
    """Return the column that holds the weights; None where labels alone say what carries loss."""
    present = [name for name in WEIGHT_COLUMNS if name in row]
    if present:
        return present[0]
    return None if LABELS in row else ASSISTANT_MASKS


def _labels(row: Mapping[str, Any], ids: Tensor, index: int) -> Tensor:
    """Return a row's labels, int64 ``[T]``, checked."""
    labels = torch.as_tensor(row[LABELS], dtype=torch.int64)
    _require_length(len(labels), len(ids), LABELS, index)
    wrong = (labels != ids) & (labels != IGNORED)
    if wrong.any():
        bad = int(wrong.nonzero()[0])
        raise ValueError(
            f"row {index} must have labels that are the input_ids or {IGNORED}, got "
            f"{labels[bad]} for {ids[bad]} at token {bad}. Labels are not shifted: the model "
            "does that."
        )
    return labels


def _require_length(got: int, expected: int, name: str, index: int) -> None:
    if got != expected:
        raise ValueError(
            f"row {index} must have {name} as long as its {expected} input_ids, got {got}. Was it "
            "truncated by a trainer that cuts some columns only?"
        )
