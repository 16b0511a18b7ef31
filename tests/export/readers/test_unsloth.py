"""Unsloth's SFTTrainer, as GPU users get it but on CPU torch, on what we export for it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from segattr.demo import ASSETS
from segattr.export import Variant, export

if importlib.util.find_spec("unsloth") is None:
    pytest.skip("needs Unsloth: make test-trainers", allow_module_level=True)

# In a process of its own, since importing Unsloth changes transformers and TRL. On a CPU it would
# leave TRL as it is; with this switch and these two calls it does what it does on a GPU.
SCRIPT = """
import json, os, sys
os.environ["UNSLOTH_ALLOW_CPU"] = "1"
import unsloth
del os.environ["UNSLOTH_ALLOW_CPU"]
from unsloth.models.rl import PatchFastRL
from unsloth.trainer import _patch_trl_trainer
PatchFastRL()
_patch_trl_trainer()
import datasets, transformers, trl

export, tokenizer, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
tokenizer = transformers.AutoTokenizer.from_pretrained(tokenizer)
config = transformers.LlamaConfig(
    vocab_size=2304, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
    num_attention_heads=4, pad_token_id=0, eos_token_id=1,
)
rows = datasets.load_dataset("parquet", data_files=export + "/data.parquet", split="train")
arguments = trl.SFTConfig(
    output_dir="out", report_to=[], use_cpu=True, bf16=False, fp16=False, optim="adamw_torch",
    per_device_train_batch_size=3, **options,
)
trainer = trl.SFTTrainer(
    transformers.LlamaForCausalLM(config), args=arguments, train_dataset=rows,
    processing_class=tokenizer,
)
assert "Unsloth" in type(trainer).__mro__[1].__name__ + type(trainer).__name__
trained = [label for batch in trainer.get_train_dataloader()
           for label in batch["labels"].flatten().tolist() if label != -100]
with open("trained.json", "w") as file:
    json.dump(trained, file)
"""


@pytest.mark.parametrize("packing", [False, True])
def test_unsloth_trains_on_our_mask(scored_traces, tmp_path, packing):
    done = export(scored_traces, "unsloth", tmp_path / "export")
    length = f"max_length={done.longest}"
    assert length in (tmp_path / "export/README.md").read_text()
    options = {"packing": packing, "max_length": done.longest}
    arguments = [str(tmp_path / "export"), str(ASSETS / "tokenizer"), json.dumps(options)]
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,  # Unsloth writes a cache there
        check=False,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert result.returncode == 0, result.stderr
    expected = [
        label
        for record in scored_traces
        for label in Variant().row(record)["labels"]
        if label != -100
    ]
    assert sorted(json.loads((tmp_path / "trained.json").read_text())) == sorted(expected)
