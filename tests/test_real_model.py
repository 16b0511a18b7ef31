"""The folder of the real model is made once, whole or not at all, and of known files only."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoTokenizer

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.append(str(BENCHMARKS))

import real_model  # noqa: E402


def fake(monkeypatch, tmp_path: Path) -> tuple[Path, Path]:
    """A file in place of the GGUF, whose bytes are the weights, and the folder to be made of it."""
    gguf, folder = tmp_path / "fake.gguf", tmp_path / "cache" / ".real-model"
    gguf.write_bytes(b"weights")
    folder.parent.mkdir()

    def write_model(gguf: Path, folder: Path) -> None:
        folder.mkdir()
        (folder / real_model.WEIGHTS).write_bytes(gguf.read_bytes())

    def write_tokenizer(gguf: Path, folder: Path) -> None:
        (folder / "tokenizer.json").write_text("{}")

    for name in ("GGUF_SHA256", "WEIGHTS_SHA256"):
        monkeypatch.setattr(real_model, name, real_model.sha256(gguf))
    monkeypatch.setattr(real_model, "write_model", write_model)
    monkeypatch.setattr(real_model, "write_tokenizer", write_tokenizer)
    return gguf, folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_whole_folder_is_kept(tmp_path, monkeypatch):
    gguf, folder = fake(monkeypatch, tmp_path)
    assert real_model.make_real(gguf, folder)
    assert set(contents(folder)) == {real_model.WEIGHTS, "tokenizer.json", real_model.SUMS}
    assert list(folder.parent.iterdir()) == [folder]
    gguf.unlink()  # so that it could not be made again
    assert not real_model.make_real(gguf, folder)


BREAKS = {
    "weights cut off": lambda folder: (folder / real_model.WEIGHTS).write_bytes(b"weigh"),
    "tokenizer lost": lambda folder: (folder / "tokenizer.json").unlink(),
    "tokenizer changed": lambda folder: (folder / "tokenizer.json").write_text("[]"),
    "a file added": lambda folder: (folder / "added_tokens.json").write_text("{}"),
    "sums lost": lambda folder: (folder / real_model.SUMS).unlink(),
    "sums cut off": lambda folder: (folder / real_model.SUMS).write_text(""),
}


@pytest.mark.parametrize("broken", BREAKS.values(), ids=BREAKS)
def test_a_broken_folder_is_made_anew(broken, tmp_path, monkeypatch):
    gguf, folder = fake(monkeypatch, tmp_path)
    real_model.make_real(gguf, folder)
    whole = contents(folder)
    broken(folder)
    assert contents(folder) != whole
    assert real_model.make_real(gguf, folder)
    assert contents(folder) == whole
    assert list(folder.parent.iterdir()) == [folder]


def test_a_folder_that_other_code_made_is_made_anew(tmp_path, monkeypatch):
    gguf, folder = fake(monkeypatch, tmp_path)
    real_model.make_real(gguf, folder)
    changed = tmp_path / "real_model.py"
    changed.write_text("# other code")
    monkeypatch.setattr(real_model, "__file__", str(changed))
    assert real_model.make_real(gguf, folder)


@pytest.mark.parametrize(
    ("constant", "name"), [("GGUF_SHA256", "fake.gguf"), ("WEIGHTS_SHA256", real_model.WEIGHTS)]
)
def test_unknown_bytes_are_refused_and_leave_nothing(constant, name, tmp_path, monkeypatch):
    gguf, folder = fake(monkeypatch, tmp_path)
    monkeypatch.setattr(real_model, constant, "0" * 64)
    said = f"^{name} must have the sha256 0{{64}}, got {real_model.sha256(gguf)}\\. "
    with pytest.raises(ValueError, match=said):
        real_model.make_real(gguf, folder)
    assert list(folder.parent.iterdir()) == []


def test_a_run_that_is_stopped_leaves_what_was_there(tmp_path, monkeypatch):
    def stopped(gguf: Path, folder: Path) -> None:
        raise KeyboardInterrupt

    gguf, folder = fake(monkeypatch, tmp_path)
    folder.mkdir()
    monkeypatch.setattr(real_model, "write_tokenizer", stopped)
    with pytest.raises(KeyboardInterrupt):
        real_model.make_real(gguf, folder)
    assert list(folder.parent.iterdir()) == [folder]
    assert contents(folder) == {}


@pytest.mark.parametrize(("there", "got"), [(True, "other files"), (False, "no folder")])
def test_what_was_not_made_is_not_loaded(there, got, tmp_path, monkeypatch):
    monkeypatch.setattr(real_model, "FOLDER", tmp_path / "real")
    if there:
        (tmp_path / "real").mkdir()
    with pytest.raises(FileNotFoundError, match=rf"got {got}\. Run make real-model\.$"):
        real_model.load_real()


def test_the_tokenizer_parts_digits_from_all_else(tmp_path, monkeypatch):
    """Or two line breaks before a number would not be the one token they are elsewhere."""
    tokens = ["<end>", "<start>", *sorted(ByteLevel.alphabet()), "ĊĊ", "ĠĠ", "12"]
    said = "{% for m in messages %}<start>{{ m.content }}<end>{% endfor %}"
    metadata = {
        "llama.context_length": 64,
        "tokenizer.chat_template": said,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3, 3] + [1] * (len(tokens) - 2),
        "tokenizer.ggml.merges": ["Ċ Ċ", "Ġ Ġ", "1 2"],
        **{f"tokenizer.ggml.{name}_token_id": 0 for name in ("eos", "padding", "unknown")},
        "tokenizer.ggml.bos_token_id": 1,
    }
    monkeypatch.setattr(real_model, "reads", lambda gguf: metadata.__getitem__)
    real_model.write_tokenizer(tmp_path / "fake.gguf", tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.tokenize("a\n\n12  é") == ["a", "ĊĊ", "1", "2", "Ġ", "Ġ", "Ã", "©"]
    assert tokenizer("a<end>").keys() == {"input_ids", "attention_mask"}
    assert tokenizer("a<end>")["input_ids"] == [tokens.index("a"), 0]
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<start>", "<end>")
    assert tokenizer.pad_token == tokenizer.unk_token == "<end>"
    messages = [{"role": "user", "content": "a"}]
    assert tokenizer.apply_chat_template(messages, tokenize=False) == "<start>a<end>"
    saved = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert saved["tokenizer_class"] == "PreTrainedTokenizerFast"
