"""Axolotl's own data code, from its YAML to its batches, on what we export for it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import transformers
import yaml

from segattr.demo import ASSETS
from segattr.export import Variant, export

os.environ.setdefault("AXOLOTL_DO_NOT_TRACK", "1")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
pytest.importorskip("axolotl", reason="needs Axolotl: make test-trainers")


@pytest.fixture
def model(tmp_path):
    """A folder with the bundled tokenizer and a config, which Axolotl loads too."""
    folder = tmp_path / "model"
    transformers.LlamaConfig(vocab_size=2304, hidden_size=32, num_hidden_layers=1).save_pretrained(
        folder
    )
    for file in (ASSETS / "tokenizer").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def batches(export_folder: Path, model: Path, folder: Path, **changes) -> list[dict]:
    """Rows as Axolotl's collator batches them, with the YAML of the export's README."""
    from axolotl.cli.config import load_cfg
    from axolotl.common.datasets import load_datasets
    from axolotl.loaders import load_tokenizer
    from axolotl.utils.collators import DataCollatorForSeq2Seq

    guide = (export_folder / "README.md").read_text()
    settings = {
        **yaml.safe_load(guide.partition("```yaml\n")[2].partition("```")[0]),
        "base_model": str(model),
        "shuffle_merged_datasets": False,
        "val_set_size": 0,
        "dataset_prepared_path": str(folder / "prepared"),
        "output_dir": str(folder / "out"),
        "micro_batch_size": 2,
        "gradient_accumulation_steps": 1,
        "num_epochs": 1,
        "learning_rate": 1e-4,
        "optimizer": "adamw_torch",
        "bf16": False,
        **changes,
    }
    (folder / "prepared").mkdir()
    path = folder / "config.yml"
    path.write_text(yaml.safe_dump(settings))
    config = load_cfg(str(path))
    collate = DataCollatorForSeq2Seq(load_tokenizer(config), padding=True, return_tensors="pt")
    rows = []
    for row in load_datasets(cfg=config).train_dataset:
        batch = collate([dict(row)])
        length = int(batch["attention_mask"][0].sum())
        assert (batch["labels"][0, length:] == -100).all()
        rows.append({name: batch[name][0, :length].tolist() for name in ("input_ids", "labels")})
    return rows


@pytest.mark.parametrize("name", ["axolotl", "axolotl-text"])
def test_axolotl_trains_on_our_mask(
    scored_traces, cut_inside_a_character, tokenizer, model, tmp_path, name
):
    records = [*scored_traces, cut_inside_a_character]
    done = export(records, name, tmp_path / "export", tokenizer=tokenizer)
    assert done.as_tokens == (name == "axolotl-text")  # as text, the last one would change
    found = batches(tmp_path / "export", model, tmp_path)
    rows = [Variant().row(record) for record in records]
    assert found == [{n: row[n] for n in ("input_ids", "labels")} for row in rows]


def test_pruned_rows_arrive_too(scored_traces, tokenizer, model, tmp_path):
    variant = Variant(prune=True)
    export(scored_traces, "axolotl-text", tmp_path / "export", variant, tokenizer=tokenizer)
    rows = [variant.row(record) for record in scored_traces]
    found = batches(tmp_path / "export", model, tmp_path)
    assert [row["labels"] for row in found] == [row["labels"] for row in rows]
