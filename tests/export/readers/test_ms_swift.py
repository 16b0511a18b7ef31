"""ms-swift's own data code on what we export for it: files, templates, batches."""

from __future__ import annotations

import json
import os
import tempfile

import pytest

from segattr.demo import ASSETS
from segattr.export import Variant, export

os.environ.setdefault("MODELSCOPE_CACHE", tempfile.mkdtemp(prefix="swift-"))
pytest.importorskip("swift", reason="needs ms-swift: make test-trainers")


@pytest.fixture
def model(tmp_path):
    """The bundled tokenizer beside a config, as ms-swift wants it.

    Beside one of Qwen2, transformers would read the tokenizer with a pattern of its own.
    """
    folder = tmp_path / "model"
    folder.mkdir()
    for file in (ASSETS / "tokenizer").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 4096}))
    return folder


def batches(files, model) -> list[tuple[list[int], list[float]]]:
    """Ids and weights of each row, by the options of the export's README."""
    from swift.dataset import load_dataset
    from swift.dataset.utils import LazyLLMDataset
    from swift.model import get_processor
    from swift.template import get_template

    rows, _ = load_dataset([str(file) for file in files], strict=True, load_from_cache_file=False)
    template = get_template(
        get_processor(str(model), model_type="qwen2"),
        template_type="qwen2_5",
        use_chat_template=False,
        is_binary_loss_scale=False,
    )
    template.set_mode("train")
    encoded = LazyLLMDataset(rows, template.encode, strict=True, random_state=0)
    found = []
    for index in range(len(encoded)):
        batch = template.data_collator([encoded[index]])
        ids, labels = batch["input_ids"][0], batch["labels"][0]
        trained = labels != -100
        assert (labels[trained] == ids[trained]).all()
        weights = batch["loss_scale"][0] if "loss_scale" in batch else trained.float()
        found.append((ids.tolist(), (weights * trained).tolist()))
    return found


def test_ms_swift_trains_on_our_mask(
    scored_traces, cut_inside_a_character, tokenizer, model, tmp_path
):
    """Rows of text and, for the one that text would change, of tokens."""
    out, records = tmp_path / "export", [*scored_traces, cut_inside_a_character]
    export(records, "ms-swift", out, tokenizer=tokenizer)
    files = [out / "data.jsonl", out / "tokens.jsonl"]
    assert "--dataset " + " ".join(map(str, files)) in (out / "README.md").read_text()
    rows = [Variant().row(record) for record in records]
    assert batches(files, model) == [(row["input_ids"], row["loss_weights"]) for row in rows]


def test_ms_swift_trains_with_our_weights(scored_traces, tokenizer, model, tmp_path):
    variant = Variant(weighting="strength")
    export(scored_traces, "ms-swift", tmp_path / "export", variant, tokenizer=tokenizer)
    found = batches([tmp_path / "export/tokens.jsonl"], model)
    for (ids, weights), record in zip(found, scored_traces, strict=True):
        row = variant.row(record)
        scale = sum(row["assistant_masks"]) / sum(row["loss_weights"])  # of mean 1
        assert ids == row["input_ids"]
        assert weights == pytest.approx([w * scale for w in row["loss_weights"]], rel=1e-6)
