"""verl's SFT data code and loss on what we export for it."""

from __future__ import annotations

import os

import pytest
import torch

from segattr.export import Variant, export

verl = pytest.importorskip("verl", reason="needs verl: make test-trainers")


def loader(folder):
    """verl's data loader, by the overrides of the export's README."""
    import verl.trainer
    from hydra import compose, initialize_config_dir
    from torchdata.stateful_dataloader import StatefulDataLoader
    from verl.trainer.sft_trainer import create_sft_dataset
    from verl.utils.dataset.dataset_utils import SFTTensorCollator

    guide = (folder / "README.md").read_text()
    overrides = [word for word in guide.split() if word.startswith("data.") and "=" in word]
    assert len(overrides) == 6
    configs = os.path.join(os.path.dirname(verl.trainer.__file__), "config")
    with initialize_config_dir(configs, version_base=None):
        config = compose("sft_trainer_engine", overrides=overrides)
    rows = create_sft_dataset(config.data.train_files, config.data, None, None, max_samples=-1)
    collate = SFTTensorCollator(config.data.pad_mode)
    return StatefulDataLoader(rows, batch_size=3, collate_fn=collate)


@pytest.mark.parametrize("option", [{}, {"weighting": "strength"}, {"normalize": "trace"}], ids=str)
def test_verl_trains_with_our_weights(scored_traces, tmp_path, option):
    from verl.utils import tensordict_utils
    from verl.workers.utils.losses import sft_loss

    variant = Variant(**option)
    export(scored_traces, "verl", tmp_path / "export", variant)
    rows = [variant.row(record) for record in scored_traces]
    (batch,) = loader(tmp_path / "export")
    for number, row in enumerate(rows):
        assert batch["input_ids"][number].tolist() == row["input_ids"]
        assert batch["loss_mask"][number].tolist() == pytest.approx(row["loss_weights"], rel=1e-6)
    # Entry t of its log-probabilities is of token t + 1.
    logprobs = [-torch.rand(len(row["input_ids"])) for row in rows]
    total = sum(sum(row["loss_weights"]) for row in rows)
    facts = {"pad_mode": "no_padding", "dp_size": 1, "batch_num_tokens": total}
    data = tensordict_utils.get_tensordict(tensor_dict=batch, non_tensor_dict=facts)
    nested = torch.nested.as_nested_tensor(logprobs, layout=torch.jagged)
    loss, _ = sft_loss(None, {"log_probs": nested}, data)
    expected = -sum(
        float(values[t - 1]) * weight
        for values, row in zip(logprobs, rows, strict=True)
        for t, weight in enumerate(row["loss_weights"])
        if t
    )
    assert float(loss) == pytest.approx(expected / total, rel=1e-5)
