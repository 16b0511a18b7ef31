"""OpenRLHF's SFT on rows of tokens and loss weights: run this file in place of train_sft.

deepspeed segattr_openrlhf.py <the arguments of openrlhf.cli.train_sft>; see README.md.
"""

from __future__ import annotations

import runpy
from typing import Any

import openrlhf.datasets
import torch
from openrlhf.datasets.sft_dataset import SFTDataset
from torch import Tensor
from torch.utils.data import Dataset


class WeightedRows(SFTDataset):
    """Rows of ``input_ids`` and ``loss_weights`` in place of OpenRLHF's own; nothing is cut."""

    def __init__(
        self, dataset: Any, tokenizer: Any, max_length: int, strategy: Any, *_: Any, **__: Any
    ) -> None:
        Dataset.__init__(self)  # SFTDataset would look for prompts
        self.rows = dataset
        self.tokenizer = tokenizer  # read by collate_fn
        self.strategy = strategy
        self.max_length = max_length
        longest = max((len(ids) for ids in dataset["input_ids"]), default=0)
        if longest > max_length:
            raise ValueError(
                f"the maximum length must be at least {longest}, the longest row, got "
                f"{max_length}. Raise --data.max_len, or lower the export's max_length."
            )

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, idx: int) -> tuple[Tensor, Tensor, Tensor]:
        """Ids, attention mask and loss mask, ``[1, T]`` each."""
        ids = torch.tensor([self.rows[idx]["input_ids"]])
        return ids, torch.ones_like(ids), self.get_loss_mask(ids, idx)

    def get_loss_mask(self, input_ids: Tensor, idx: int) -> Tensor:
        """Shifted, as OpenRLHF wants it: entry t is the weight of token t + 1."""
        weights = self.rows[idx]["loss_weights"]
        return torch.tensor([[*weights[1:], 0.0]], dtype=torch.float32)


if __name__ == "__main__":
    openrlhf.datasets.SFTDataset = WeightedRows  # where train_sft takes it from
    runpy.run_module("openrlhf.cli.train_sft", run_name="__main__")
