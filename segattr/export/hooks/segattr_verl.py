"""verl's SFT trainer reads rows of tokens and loss weights with this class; see README.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow.parquet
import torch
from torch import Tensor
from torch.utils.data import Dataset


class WeightedRows(Dataset):
    """Rows of ``input_ids`` and float ``loss_mask``, as ``data.custom_cls`` of verl.

    A weight stands at the token it is for; verl shifts. Nothing is cut.
    """

    def __init__(
        self,
        parquet_files: str | Sequence[str],
        tokenizer: Any,
        config: Mapping[str, Any],
        processor: Any = None,
        max_samples: int = -1,
    ) -> None:
        if config.get("pad_mode", "no_padding") != "no_padding":
            raise ValueError(
                f"data.pad_mode must be no_padding, got {config['pad_mode']}: with another, verl "
                "reads weights as a mask."
            )
        files = [parquet_files] if isinstance(parquet_files, str) else list(parquet_files)
        self.rows = [row for file in files for row in pyarrow.parquet.read_table(file).to_pylist()]
        if max_samples >= 0:
            del self.rows[max_samples:]
        longest = max((len(row["input_ids"]) for row in self.rows), default=0)
        limit = config.get("max_length")
        if limit is not None and longest > limit:
            raise ValueError(
                f"data.max_length must be at least {longest}, the longest row, got {limit}. Raise "
                "it, or lower the export's max_length."
            )

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """``input_ids`` and ``position_ids``, int64 ``[T]``; ``loss_mask``, float32 ``[T]``."""
        row = self.rows[index]
        ids = torch.tensor(row["input_ids"])
        return {
            "input_ids": ids,
            "position_ids": torch.arange(len(ids)),
            "loss_mask": torch.tensor(row["loss_mask"], dtype=torch.float32),
        }
