"""Training rows to a batch: padded, or flattened to one row without padding.

Axes: ``B`` rows, ``T`` tokens of the longest row (padded) or of all of them (flattened).
"""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from segattr.training.documents import Document, documents_of
from segattr.training.rows import IGNORED

MODES = ("weight", "mask", "bernoulli")
Batch = dict[str, Any]


class LossMaskCollator:
    """Rows of `training_row` to one batch; the ``data_collator`` of a Trainer.

    Reads ``input_ids``; ``labels``; weights, from ``loss_weights`` or else ``loss_mask``; and
    ``seq_lengths``, where one row holds several packed documents. Loss is where there is both a
    label and a weight above 0; one of the two may be missing, and for want of both
    ``assistant_masks`` serve. Other columns are left alone. The first token of a document is never
    a target.

    A stock trainer hands on ``input_ids`` and ``labels`` only: for weights and for packed rows,
    whose documents would attend to each other, set ``remove_unused_columns=False``, or use
    `TokenWeightMixin`, which keeps the columns.

        >>> collate = LossMaskCollator(pad_token_id=0)
        >>> batch = collate([{"input_ids": [5, 6, 7], "labels": [-100, 6, -100]},
        ...                  {"input_ids": [8, 9], "labels": [-100, 9]}])
        >>> batch["input_ids"].tolist()
        [[5, 6, 7], [8, 9, 0]]
        >>> batch["labels"].tolist()
        [[-100, 6, -100], [-100, 9, -100]]
        >>> batch["attention_mask"].tolist()
        [[1, 1, 1], [1, 1, 0]]

    Args:
        pad_token_id: What padding is filled with; it never carries loss.
        flatten: Put all documents one after the other into one row, told apart by ``position_ids``
            that start again at 0 (padding-free; needed for packed rows).
        emit_weights: Add ``loss_weights``, for a trainer that multiplies with them
            (`TokenWeightMixin`); a stock one ignores them.
        mode: What becomes of a row's weights: ``"weight"`` leaves them; ``"mask"`` makes them 1
            above ``threshold``, else 0; ``"bernoulli"`` makes them 1 with the weight as probability
            (torch's random numbers), which is right in expectation in any trainer.
        threshold: Of ``mode="mask"``.
        normalize: ``"mean1"`` scales the weights of each document to mean 1 over its tokens with
            loss, for trainers that divide by their number instead of their weight.
        pad_to_multiple_of: Round ``T`` up to a multiple of this.
        padding_side: ``"right"`` or ``"left"``.
        on_empty: Rows without any token that carries loss, whose mean loss is 0/0, are an
            ``"error"``, or one to ``"skip"``.

    Raises:
        ValueError: If an argument is out of range, or does not go with another.
    """

    def __init__(
        self,
        pad_token_id: int,
        *,
        flatten: bool = False,
        emit_weights: bool = False,
        mode: str = "weight",
        threshold: float = 0.0,
        normalize: str | None = None,
        pad_to_multiple_of: int = 1,
        padding_side: str = "right",
        on_empty: str = "error",
    ) -> None:
        if not isinstance(pad_token_id, (int, numbers.Integral)) or pad_token_id < 0:
            raise ValueError(
                f"pad_token_id must be a token id, got {pad_token_id!r}. Pass the EOS token's id "
                "if there is no pad token."
            )
        if pad_to_multiple_of < 1:
            raise ValueError(f"pad_to_multiple_of must be at least 1, got {pad_to_multiple_of}.")
        if not 0 <= threshold < float("inf"):
            raise ValueError(f"threshold must be at least 0, got {threshold}.")
        _require_word("mode", mode, MODES)
        _require_word("normalize", normalize, (None, "mean1"))
        _require_word("padding_side", padding_side, ("right", "left"))
        _require_word("on_empty", on_empty, ("error", "skip"))
        if flatten and padding_side == "left":
            raise ValueError(
                "padding_side must be 'right' with flatten=True, got 'left': a flattened batch has "
                "no padding on a side. Leave it out."
            )
        if normalize and not (emit_weights and mode == "weight"):
            raise ValueError(
                f"normalize={normalize!r} needs emit_weights=True and mode='weight', got "
                f"emit_weights={emit_weights} and mode={mode!r}. Without weights there is nothing "
                "to scale."
            )
        if threshold and mode != "mask":
            raise ValueError(f"threshold={threshold} needs mode='mask', got mode={mode!r}.")
        self.pad_token_id = int(pad_token_id)
        self.flatten = flatten
        self.emit_weights = emit_weights
        self.mode = mode
        self.threshold = threshold
        self.normalize = normalize
        self.pad_to_multiple_of = pad_to_multiple_of
        self.padding_side = padding_side
        self.on_empty = on_empty

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> Batch:
        """Return one batch.

        Returns:
            Padded: ``input_ids``, ``attention_mask``, ``labels``, int64 ``[B, T]``. Flattened:
            ``input_ids``, ``position_ids``, ``labels``, int64 ``[1, T]``, the documents' borders
            ``cu_seq_lens_q`` and ``cu_seq_lens_k``, int32, the ints ``max_length_q`` and
            ``max_length_k``, and ``use_cache`` False: with a cache, transformers 4 lets documents
            attend to each other. Both: ``loss_weights``, float32, if ``emit_weights``.

        Raises:
            ValueError: If a row has neither labels nor weights, columns of different lengths, a
                weight that is negative or not finite or does not fit the mode, packed documents
                but no ``flatten``, or no token with loss.
        """
        documents: list[Document] = []
        needs_weights = self.emit_weights or self.mode != "weight"
        for index, row in enumerate(rows):
            found = documents_of(row, index, needs_weights)
            if not self.flatten and len(found) > 1:
                raise ValueError(
                    f"row {index} must hold one document to be padded, got {len(found)}: they "
                    "would attend to each other. Pass flatten=True."
                )
            for document in found:
                self._check_weights(document.weights, index)
                if self.mode == "mask":
                    document.weights[:] = document.weights > self.threshold
            if any(document.weights.any() for document in found):
                documents += found
            elif self.on_empty == "error":
                raise ValueError(
                    f"row {index} keeps no token: its loss would be 0/0. Drop it, raise beta, or "
                    "pass on_empty='skip'."
                )
        if not documents:
            raise ValueError(
                f"the batch must keep at least one row, got {len(rows)} without any token that "
                "carries loss. Filter them from the data set."
            )
        if self.mode == "bernoulli":
            _draw(documents)
        if self.normalize:
            for document in documents:
                on = document.weights > 0
                document.weights.mul_(on.sum() / document.weights.sum().clamp_min(1e-300))
        return self._flattened(documents) if self.flatten else self._padded(documents)

    def _check_weights(self, weights: Tensor, index: int) -> None:
        fractional = ((weights != 0) & (weights != 1)).any()
        if self.mode == "bernoulli" and (weights > 1).any():
            raise ValueError(
                f"row {index} must have weights of at most 1 to be drawn, got "
                f"{weights.max().item():g}. Divide them by their largest."
            )
        if self.mode == "weight" and not self.emit_weights and fractional:
            raise ValueError(
                f"row {index} has weights that are neither 0 nor 1, which a mask cannot hold. Pass "
                "emit_weights=True for a trainer that reads them, or mode='mask' or 'bernoulli'."
            )

    def _padded(self, documents: Sequence[Document]) -> Batch:
        longest = max(len(document.ids) for document in documents)
        width = -(-longest // self.pad_to_multiple_of) * self.pad_to_multiple_of
        batch = {
            "input_ids": self._pad([d.ids for d in documents], self.pad_token_id, width),
            "attention_mask": self._pad([torch.ones_like(d.ids) for d in documents], 0, width),
            "labels": self._pad([d.labels for d in documents], IGNORED, width),
        }
        if self.emit_weights:
            batch["loss_weights"] = self._pad([d.weights.float() for d in documents], 0, width)
        return batch

    def _pad(self, rows: Sequence[Tensor], value: int, width: int) -> Tensor:
        batch = rows[0].new_full((len(rows), width), value)
        for line, row in zip(batch, rows, strict=True):
            start = 0 if self.padding_side == "right" else width - len(row)
            line[start : start + len(row)] = row
        return batch

    def _flattened(self, documents: list[Document]) -> Batch:
        total = sum(len(document.ids) for document in documents)
        if missing := -total % self.pad_to_multiple_of:
            padding = torch.full((missing,), self.pad_token_id)
            documents = [*documents, Document(padding, torch.zeros(missing, dtype=torch.float64))]
        lengths = [len(document.ids) for document in documents]
        borders = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
        batch = {
            "input_ids": torch.cat([d.ids for d in documents])[None],
            "labels": torch.cat([d.labels for d in documents])[None],
            "position_ids": torch.cat([torch.arange(length) for length in lengths])[None],
            "cu_seq_lens_q": borders,
            "cu_seq_lens_k": borders,
            "max_length_q": max(lengths),
            "max_length_k": max(lengths),
            "use_cache": False,
        }
        if self.emit_weights:
            batch["loss_weights"] = torch.cat([d.weights.float() for d in documents])[None]
        return batch


def _draw(documents: Sequence[Document]) -> None:
    """Replace weights by draws with them as probability; again where a whole batch drew nothing."""
    probabilities = [document.weights.clone() for document in documents]
    drawn = False
    while not drawn:
        for document, probability in zip(documents, probabilities, strict=True):
            document.weights.copy_(torch.bernoulli(probability))
            drawn |= bool(document.weights.any())


def _require_word(name: str, value: str | None, words: Sequence[str | None]) -> None:
    if value not in words:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, words))}, got {value!r}.")
