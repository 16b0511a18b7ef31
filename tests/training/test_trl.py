"""What arrives in the batches of TRL's SFTTrainer. Runs where TRL is: make test-trainers."""

from __future__ import annotations

import datasets
import pytest
import torch
from tiny import make_model
from training_runs import TRL, settings, sft_trainer, tiny_tokenizer

from segattr import LossMaskCollator, TokenWeightMixin

trl = pytest.importorskip("trl", reason="needs TRL: make test-trainers")

pytestmark = pytest.mark.filterwarnings("ignore")
MODES = {
    "padded": {"max_length": 64},
    "padding-free": {"padding_free": True, "max_length": None},
    "packed": {"packing": True, "max_length": 64},
}


@pytest.mark.parametrize("mode", MODES)
def test_stock_sft_trainer_trains_on_the_mask_and_nothing_else(weighted_rows, tmp_path, mode):
    """Labels and assistant_masks together survive every version; read off its own data loader."""
    expected = [
        token
        for row in weighted_rows
        for token, on in zip(row["input_ids"], row["assistant_masks"], strict=True)
        if on
    ]
    columns = ("input_ids", "labels", "assistant_masks")
    data = datasets.Dataset.from_list(
        [{name: row[name] for name in columns} for row in weighted_rows]
    )
    arguments = trl.SFTConfig(**settings(tmp_path, per_device_train_batch_size=2, **MODES[mode]))
    trainer = trl.SFTTrainer(
        make_model("qwen2"), arguments, train_dataset=data, processing_class=tiny_tokenizer()
    )
    labels = [batch["labels"] for batch in trainer.get_train_dataloader()]
    supervised = torch.cat([part[part != -100] for part in labels])
    assert sorted(supervised.tolist()) == sorted(expected)


def test_the_collator_in_sft_trainer_gets_every_weight(weighted_rows, tmp_path):
    chosen = settings(tmp_path, per_device_train_batch_size=2)
    for flatten in (False, True):
        collator = LossMaskCollator(0, emit_weights=True, flatten=flatten)
        trainer = sft_trainer(make_model("qwen2"), weighted_rows, collator, chosen)
        batches = list(trainer.get_train_dataloader())
        got = sum(float(batch["loss_weights"].sum()) for batch in batches)
        assert got == pytest.approx(sum(sum(row["loss_weights"]) for row in weighted_rows))


@pytest.mark.skipif(TRL < (1, 16), reason="older SFT trainers cut all columns alike")
def test_truncation_by_the_trainer_is_noticed(weighted_rows, tmp_path):
    """SFTTrainer cuts input_ids and labels, but not the weights."""

    class WeightedSFT(TokenWeightMixin, trl.SFTTrainer):
        pass

    trainer = WeightedSFT(
        make_model("qwen2"),
        trl.SFTConfig(**settings(tmp_path, max_length=16)),
        processing_class=tiny_tokenizer(),
        train_dataset=datasets.Dataset.from_list(weighted_rows),
        data_collator=LossMaskCollator(0, emit_weights=True),
    )
    with pytest.raises(ValueError, match=r"as long as its 16 input_ids.*truncated by a trainer"):
        next(iter(trainer.get_train_dataloader()))
