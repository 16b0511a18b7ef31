"""torchtune's recipes read rows of tokens and masks with this builder; see README.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torchtune.datasets import PackedDataset, SFTDataset


class _AsTheyAre:
    """A row's tokens and mask, checked and not changed."""

    def __init__(self, max_length: int | None) -> None:
        self.max_length = max_length

    def __call__(self, row: Mapping[str, Any]) -> dict[str, list]:
        tokens, mask = list(row["tokens"]), [bool(value) for value in row["mask"]]
        if self.max_length is not None and len(tokens) > self.max_length:
            raise ValueError(
                f"tokenizer.max_seq_len must be at least {len(tokens)}, the length of a row, got "
                f"{self.max_length}. Raise it, or lower the export's max_length."
            )
        return {"tokens": tokens, "mask": mask}


def masked_rows(tokenizer: Any, *, data_files: str, packed: bool = False) -> Any:
    """A recipe's dataset of rows of ``tokens`` and ``mask`` (1: no loss); nothing is cut."""
    length = getattr(tokenizer, "max_seq_len", None)
    rows = SFTDataset(
        source="parquet",
        data_files=data_files,
        split="train",
        message_transform=None,
        model_transform=_AsTheyAre(length),
    )
    if not packed:
        return rows
    return PackedDataset(rows, max_seq_len=length, split_across_pack=False)
