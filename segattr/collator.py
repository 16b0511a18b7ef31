"""Training rows to a batch: padded, or flattened to one row without padding.

Axes: ``B`` rows, ``T`` tokens of the longest row (padded) or of all of them (flattened).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from segattr.rows import IGNORED

MODES = ("weight", "mask", "bernoulli")
WEIGHTS = ("loss_weights", "loss_mask", "assistant_masks")
Batch = dict[str, Any]


class LossMaskCollator:
    """Rows of `training_row` to one batch; the ``data_collator`` of a Trainer.

    Reads ``input_ids``; ``labels``; weights, from ``loss_weights`` or else ``loss_mask``; and
    ``seq_lengths``, where one row holds several packed documents. Loss is where there is both a
    label and a weight above 0; one of the two may be missing, and for want of both
    ``assistant_masks`` serve. Other columns are left alone. The first token of a document is never
    a target.

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
        threshold: Of the mask.
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
        if not isinstance(pad_token_id, int) or pad_token_id < 0:
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
        self.pad_token_id = pad_token_id
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
        documents: list[_Document] = []
        for index, row in enumerate(rows):
            found = _documents(row, index)
            if not self.flatten and len(found) > 1:
                raise ValueError(
                    f"row {index} must hold one document to be padded, got {len(found)}: they "
                    "would attend to each other. Pass flatten=True."
                )
            for document in found:
                self._check_weights(document.weights, index)
            if any((document.weights > 0).any() for document in found):
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
        documents = self._weighted(documents)
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

    def _weighted(self, documents: list[_Document]) -> list[_Document]:
        """The documents with the weights that the mode makes of theirs."""
        if self.mode == "bernoulli":
            # A batch that drew nothing has no loss at all, so it is drawn again.
            drawn = [torch.bernoulli(document.weights) for document in documents]
            while not any(weights.any() for weights in drawn):
                drawn = [torch.bernoulli(document.weights) for document in documents]
        elif self.mode == "mask":
            drawn = [(document.weights > self.threshold).double() for document in documents]
        else:
            drawn = [document.weights for document in documents]
        if self.normalize:
            drawn = [
                weights * ((weights > 0).sum() / weights.sum()) if weights.any() else weights
                for weights in drawn
            ]
        return [
            _Document(document.ids, weights)
            for document, weights in zip(documents, drawn, strict=True)
        ]

    def _padded(self, documents: Sequence[_Document]) -> Batch:
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

    def _flattened(self, documents: list[_Document]) -> Batch:
        total = sum(len(document.ids) for document in documents)
        if missing := -total % self.pad_to_multiple_of:
            padding = torch.full((missing,), self.pad_token_id)
            documents = [*documents, _Document(padding, torch.zeros(missing, dtype=torch.float64))]
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


@dataclass(frozen=True)
class _Document:
    """Tokens that attend to each other, int64 ``[T]``, and their weights, float64 ``[T]``."""

    ids: Tensor
    weights: Tensor

    @property
    def labels(self) -> Tensor:
        return self.ids.where(self.weights > 0, IGNORED)


def _documents(row: Mapping[str, Any], index: int) -> list[_Document]:
    """The documents of one row, checked; the first token of each has no weight."""
    ids = torch.as_tensor(row["input_ids"], dtype=torch.int64)
    labels = row.get("labels")
    names = WEIGHTS if labels is None else WEIGHTS[:2]
    name = next((name for name in names if row.get(name) is not None), None)
    if labels is None and name is None:
        raise ValueError(
            f"row {index} must have labels or weights ({', '.join(WEIGHTS)}), got "
            f"{', '.join(row)}. Does the trainer drop columns? Set remove_unused_columns=False."
        )
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
    if labels is not None:
        labels = torch.as_tensor(labels, dtype=torch.int64)
        _require_length(len(labels), len(ids), "labels", index)
        if not ((labels == ids) | (labels == IGNORED)).all():
            bad = int(((labels != ids) & (labels != IGNORED)).nonzero()[0])
            raise ValueError(
                f"row {index} must have labels that are the input_ids or {IGNORED}, got "
                f"{labels[bad]} for {ids[bad]} at token {bad}. Labels are not shifted: the model "
                "does that."
            )
        weights = weights.where(labels != IGNORED, 0.0)
    lengths = row.get("seq_lengths")
    lengths = [len(ids)] if lengths is None else torch.as_tensor(lengths).tolist()
    _require_length(sum(lengths), len(ids), "seq_lengths that sum to a row", index)
    documents = [
        _Document(part, weight.clone())
        for part, weight in zip(ids.split(lengths), weights.split(lengths), strict=True)
        if len(part)
    ]
    for document in documents:
        document.weights[0] = 0
    return documents


def _require_length(got: int, expected: int, name: str, index: int) -> None:
    if got != expected:
        raise ValueError(
            f"row {index} must have {name} as long as its {expected} input_ids, got {got}. Was it "
            "truncated by a trainer that cuts some columns only?"
        )


def _require_word(name: str, value: str | None, words: Sequence[str | None]) -> None:
    if value not in words:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, words))}, got {value!r}.")
