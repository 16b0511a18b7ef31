"""Training rows to a padded batch.

Axes: ``B`` rows, ``T`` tokens of the longest row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from segattr.rows import IGNORED


class LossMaskCollator:
    """Pad rows of `training_row` to one batch; the ``data_collator`` of a Trainer.

    Only ``input_ids`` and ``labels`` are read, so rows may have been through a trainer that drops
    other columns; rows without ``labels`` but with ``assistant_masks`` work too.

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
        pad_to_multiple_of: Round ``T`` up to a multiple of this.
        padding_side: ``"right"`` or ``"left"``.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self, pad_token_id: int, *, pad_to_multiple_of: int = 1, padding_side: str = "right"
    ) -> None:
        if not isinstance(pad_token_id, int) or pad_token_id < 0:
            raise ValueError(
                f"pad_token_id must be a token id, got {pad_token_id!r}. Pass the EOS token's id "
                "if there is no pad token."
            )
        if pad_to_multiple_of < 1:
            raise ValueError(f"pad_to_multiple_of must be at least 1, got {pad_to_multiple_of}.")
        if padding_side not in ("right", "left"):
            raise ValueError(f"padding_side must be 'right' or 'left', got {padding_side!r}.")
        self.pad_token_id = pad_token_id
        self.pad_to_multiple_of = pad_to_multiple_of
        self.padding_side = padding_side

    def __call__(self, rows: Sequence[Mapping[str, Sequence[int]]]) -> dict[str, Tensor]:
        """Return ``input_ids``, ``attention_mask`` and ``labels``, int64 ``[B, T]`` each.

        Raises:
            ValueError: If a row has neither labels nor masks, lists of different lengths, or no
                token with loss.
        """
        labels = [_labels(row, index) for index, row in enumerate(rows)]
        longest = max(len(row) for row in labels)
        width = -(-longest // self.pad_to_multiple_of) * self.pad_to_multiple_of
        return {
            "input_ids": self._pad([row["input_ids"] for row in rows], self.pad_token_id, width),
            "attention_mask": self._pad([[1] * len(row) for row in labels], 0, width),
            "labels": self._pad(labels, IGNORED, width),
        }

    def _pad(self, rows: Sequence[Sequence[int]], value: int, width: int) -> Tensor:
        batch = torch.full((len(rows), width), value)
        for line, row in zip(batch, rows, strict=True):
            place = (
                slice(0, len(row))
                if self.padding_side == "right"
                else slice(width - len(row), width)
            )
            line[place] = torch.as_tensor(row, dtype=torch.int64)
        return batch


def _labels(row: Mapping[str, Sequence[int]], index: int) -> list[int]:
    """The row's labels, checked; the first token is never a target."""
    ids = row["input_ids"]
    name = "labels" if "labels" in row else "assistant_masks"
    if name not in row:
        raise ValueError(
            f"row {index} must have labels or assistant_masks, got {', '.join(row)}. "
            "Does the trainer drop columns? Set remove_unused_columns=False."
        )
    if len(row[name]) != len(ids):
        raise ValueError(
            f"row {index} must have {name} as long as its {len(ids)} input_ids, got "
            f"{len(row[name])}. "
            "Was it truncated by a trainer that cuts input_ids only?"
        )
    values = [int(value) for value in row[name]]
    if name == "assistant_masks":
        values = [int(token) if on else IGNORED for token, on in zip(ids, values, strict=True)]
    values[:1] = [IGNORED]
    if all(value == IGNORED for value in values):
        raise ValueError(
            f"row {index} keeps no token: its loss would be 0/0. Drop it, or raise beta."
        )
    return values
