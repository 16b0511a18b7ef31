"""Training rows to a batch: read (documents), weigh (modes), lay out (layout).

Axes: ``B`` rows, ``T`` tokens of the longest row (padded) or of all of them (flattened).
"""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

from segattr.checks import require_word
from segattr.training.documents import Document, documents_of
from segattr.training.layout import Batch, flattened, padded
from segattr.training.modes import (
    drawn,
    masked,
    require_mask,
    require_probabilities,
    scaled_to_mean_1,
    scaled_to_sum_1,
)

MODES = ("weight", "mask", "bernoulli")
NORMALIZED = {"mean1": scaled_to_mean_1, "trace": scaled_to_sum_1}


@dataclass(eq=False)
class LossMaskCollator:
    """Rows of `training_row` to one batch; the ``data_collator`` of a Trainer.

    Reads ``input_ids``, ``labels``, the weights (``loss_weights``, or else ``loss_mask``) and, for
    rows that hold several packed documents, ``seq_lengths``. A token carries loss where it has a
    label and a weight above 0. A row may have labels only or weights only; with neither,
    ``assistant_masks`` are its weights. Other columns are left alone. The first token of a document
    is never a target.

    A stock trainer hands on ``input_ids`` and ``labels`` only. Weights need
    ``remove_unused_columns=False``, and so do packed rows, whose documents would otherwise attend
    to each other; `TokenWeightMixin` keeps the columns by itself.

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
        threshold: The weight above which ``mode="mask"`` puts loss.
        normalize: ``"trace"`` scales the weights of each document to sum 1, so that every trace
            counts the same: the weighted mean of `TokenWeightMixin` is then the mean over traces of
            each trace's own weighted mean, Eq. 9 of arXiv 2602.00425. ``"mean1"`` scales them to
            mean 1 over its tokens with loss, for trainers that divide by the number of these
            instead of their weight. ``None``: all tokens of a step count by their weight alone.
        pad_to_multiple_of: Round ``T`` up to a multiple of this.
        padding_side: ``"right"`` or ``"left"``.
        on_empty: What to do with a row without any token that carries loss, whose mean loss is
            0/0: ``"error"`` refuses it, ``"skip"`` leaves it out.

    Raises:
        ValueError: If an argument is out of range, or does not go with another.
    """

    pad_token_id: int
    _: KW_ONLY
    flatten: bool = False
    emit_weights: bool = False
    mode: str = "weight"
    threshold: float = 0.0
    normalize: str | None = None
    pad_to_multiple_of: int = 1
    padding_side: str = "right"
    on_empty: str = "error"

    def __post_init__(self) -> None:
        self._check_each()
        self._check_together()
        self.pad_token_id = int(self.pad_token_id)

    def _check_each(self) -> None:
        pad = self.pad_token_id
        if not isinstance(pad, numbers.Integral) or pad < 0:
            got = f"a {type(pad).__name__}" if hasattr(pad, "pad_token_id") else repr(pad)
            raise ValueError(
                f"pad_token_id must be a token id, got {got}. Pass tokenizer.pad_token_id, or "
                "tokenizer.eos_token_id if there is no pad token."
            )
        if self.pad_to_multiple_of < 1:
            raise ValueError(
                f"pad_to_multiple_of must be at least 1, got {self.pad_to_multiple_of}."
            )
        if not 0 <= self.threshold < float("inf"):
            raise ValueError(f"threshold must be at least 0, got {self.threshold}.")
        require_word("mode", self.mode, MODES)
        require_word("normalize", self.normalize, (None, *NORMALIZED))
        require_word("padding_side", self.padding_side, ("right", "left"))
        require_word("on_empty", self.on_empty, ("error", "skip"))

    def _check_together(self) -> None:
        if self.flatten and self.padding_side == "left":
            raise ValueError(
                "padding_side must be 'right' with flatten=True, got 'left': a flattened batch has "
                "no padding on a side. Leave it out."
            )
        if self.normalize and not (self.emit_weights and self.mode == "weight"):
            raise ValueError(
                f"normalize={self.normalize!r} needs emit_weights=True and mode='weight', got "
                f"emit_weights={self.emit_weights} and mode={self.mode!r}. Without weights there "
                "is nothing to scale."
            )
        if self.threshold and self.mode != "mask":
            raise ValueError(
                f"threshold={self.threshold} needs mode='mask', got mode={self.mode!r}."
            )

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> Batch:
        """Return one batch.

        Returns:
            Padded: ``input_ids``, ``attention_mask``, ``labels``, int64 ``[B, T]``. Flattened:
            ``input_ids``, ``position_ids``, ``labels``, int64 ``[1, T]``, the documents' borders
            ``cu_seq_lens_q`` and ``cu_seq_lens_k``, int32, the ints ``max_length_q`` and
            ``max_length_k``, and ``use_cache`` False: with a cache, transformers 4 lets documents
            attend to each other. Both: ``loss_weights``, float32, if ``emit_weights``.

        Raises:
            TypeError: If a row has no columns.
            ValueError: If a row has neither labels nor weights, columns of different lengths, a
                weight that is negative or not finite or does not fit the mode, packed documents
                without ``flatten``, or no token with loss.
        """
        read = [document for i, row in enumerate(rows) for document in self._read(row, i)]
        if not read:
            raise ValueError(
                f"the batch must keep at least one row, got {len(rows)} without any token that "
                "carries loss. Filter them from the data set."
            )
        weighed = self._weigh(read)
        if self.flatten:
            return flattened(weighed, self.pad_token_id, self.pad_to_multiple_of, self.emit_weights)
        return padded(
            weighed,
            self.pad_token_id,
            self.pad_to_multiple_of,
            self.padding_side,
            self.emit_weights,
        )

    def _read(self, row: Mapping[str, Any], index: int) -> list[Document]:
        """Return a row's documents, checked; none of a row to skip."""
        documents = documents_of(row, index, self.emit_weights or self.mode != "weight")
        if not self.flatten and len(documents) > 1:
            raise ValueError(
                f"row {index} must hold one document to be padded, got {len(documents)}: they "
                "would attend to each other. Pass flatten=True."
            )
        for document in documents:
            if self.mode == "bernoulli":
                require_probabilities(document, index)
            if self.mode == "weight" and not self.emit_weights:
                require_mask(document, index)
        # The threshold is 0 in all modes except "mask".
        if any((document.weights > self.threshold).any() for document in documents):
            return documents
        if self.on_empty == "error":
            raise ValueError(
                f"row {index} keeps no token: its loss would be 0/0. Drop it, raise beta, or pass "
                "on_empty='skip'."
            )
        return []

    def _weigh(self, documents: Sequence[Document]) -> Sequence[Document]:
        if self.mode == "mask":
            return masked(documents, self.threshold)
        if self.mode == "bernoulli":
            return drawn(documents)
        return NORMALIZED[self.normalize](documents) if self.normalize else documents
