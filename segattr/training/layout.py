"""Lay out: documents to the tensors of one batch, padded or flattened.

Axes: ``B`` rows, ``T`` tokens of the longest row (padded) or of all of them (flattened).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from segattr.training.documents import Document
from segattr.training.rows import ATTENTION_MASK, IGNORED, INPUT_IDS, LABELS, LOSS_WEIGHTS

Batch = dict[str, Any]


def padded(
    documents: Sequence[Document], pad_token_id: int, multiple: int, side: str, emit_weights: bool
) -> Batch:
    """Return one document a row, filled up at one side to a common length, ``[B, T]``."""
    width = _rounded_up(max(len(document.ids) for document in documents), multiple)

    def pad(rows: Sequence[Tensor], value: int) -> Tensor:
        batch = rows[0].new_full((len(rows), width), value)
        for line, row in zip(batch, rows, strict=True):
            start = 0 if side == "right" else width - len(row)
            line[start : start + len(row)] = row
        return batch

    batch = {
        INPUT_IDS: pad([d.ids for d in documents], pad_token_id),
        ATTENTION_MASK: pad([torch.ones_like(d.ids) for d in documents], 0),
        LABELS: pad([d.labels for d in documents], IGNORED),
    }
    if emit_weights:
        batch[LOSS_WEIGHTS] = pad([d.weights.float() for d in documents], 0)
    return batch


def flattened(
    documents: Sequence[Document], pad_token_id: int, multiple: int, emit_weights: bool
) -> Batch:
    """Return all documents in one row, ``[1, T]``, and their borders for flash attention.

    Padding is one more document, so that no other one attends to it.
    """
    total = sum(len(document.ids) for document in documents)
    if missing := _rounded_up(total, multiple) - total:
        padding = torch.full((missing,), pad_token_id)
        documents = [*documents, Document(padding, torch.zeros(missing, dtype=torch.float64))]
    lengths = [len(document.ids) for document in documents]
    borders = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    batch = {
        INPUT_IDS: torch.cat([d.ids for d in documents])[None],
        LABELS: torch.cat([d.labels for d in documents])[None],
        "position_ids": torch.cat([torch.arange(length) for length in lengths])[None],
        "cu_seq_lens_q": borders,
        "cu_seq_lens_k": borders,
        "max_length_q": max(lengths),
        "max_length_k": max(lengths),
        "use_cache": False,  # with a cache, transformers 4 lets documents attend to each other
    }
    if emit_weights:
        batch[LOSS_WEIGHTS] = torch.cat([d.weights.float() for d in documents])[None]
    return batch


def _rounded_up(length: int, multiple: int) -> int:
    return -(-length // multiple) * multiple
