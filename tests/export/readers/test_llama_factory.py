"""LLaMA-Factory's own data code, from its YAML to its batches, on what we export for it."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
import types

import pytest
import yaml

from segattr.demo import ASSETS
from segattr.export import Variant, export

pytest.importorskip("llamafactory", reason="needs LLaMA-Factory: make test-trainers")
if importlib.util.find_spec("torchaudio") is None:
    # Imported for audio files, used for nothing else; there is no CPU build to go with torch.
    sys.modules["torchaudio"] = types.ModuleType("torchaudio")
    sys.modules["torchaudio"].__spec__ = importlib.machinery.ModuleSpec("torchaudio", None)


def test_llama_factory_trains_on_our_mask(scored_traces, tmp_path, monkeypatch):
    from llamafactory.data import (
        SFTDataCollatorWith4DAttentionMask,
        get_dataset,
        get_template_and_fix_tokenizer,
    )
    from llamafactory.hparams import get_train_args, read_args
    from llamafactory.model import load_tokenizer

    export(scored_traces, "llama-factory", tmp_path / "export")
    guide = (tmp_path / "export/README.md").read_text()
    settings = {
        **yaml.safe_load(guide.partition("```yaml\n")[2].partition("```")[0]),
        "model_name_or_path": str(ASSETS / "tokenizer"),
        "finetuning_type": "full",
        "output_dir": str(tmp_path / "out"),
        "report_to": "none",
        "use_cpu": True,
    }
    path = tmp_path / "train.yaml"
    path.write_text(yaml.safe_dump(settings))
    monkeypatch.setattr(sys, "argv", ["llamafactory-cli", str(path)])
    model_args, data_args, training_args, _, _ = get_train_args(read_args())
    loaded = load_tokenizer(model_args)
    template = get_template_and_fix_tokenizer(loaded["tokenizer"], data_args)
    data = get_dataset(template, model_args, data_args, training_args, stage="sft", **loaded)
    collate = SFTDataCollatorWith4DAttentionMask(
        template=template, model=None, pad_to_multiple_of=8, label_pad_token_id=-100, **loaded
    )
    batch = collate([dict(row) for row in data["train_dataset"]])
    assert len(batch["labels"]) == len(scored_traces)
    for number, record in enumerate(scored_traces):
        row, length = Variant().row(record), int(batch["attention_mask"][number].sum())
        assert batch["input_ids"][number, :length].tolist() == row["input_ids"]
        assert batch["labels"][number, :length].tolist() == row["labels"]
        assert (batch["labels"][number, length:] == -100).all()
