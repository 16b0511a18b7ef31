"""Models and tokenizers by name; what cannot be had is said once, and before weights are read."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import SCORE

from segattr.cli import loading
from segattr.cli.main import main
from segattr.demo import ASSETS
from segattr.ig import Rule


def with_model(traces: Path, folder: Path) -> list[str]:
    """The command that scores with the model in a folder, into ``out.jsonl`` beside the traces."""
    out = str(traces.with_name("out.jsonl"))
    return [
        *("score", str(traces), *SCORE, "--out", out),
        *("--model", str(folder), "--tokenizer", "bundled"),
    ]


def test_pickled_weights_are_not_loaded(traces, tmp_path, capsys, demo):
    folder = tmp_path / "pickled"
    shutil.copytree(ASSETS / "model", folder)
    (folder / "model.safetensors").unlink()
    torch.save(demo[0].state_dict(), folder / "pytorch_model.bin")
    arguments = with_model(traces, folder)
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert "could not be loaded: OSError" in said
    assert "Pass --unsafe-weights to load pickled weights, if you trust them" in said
    assert main([*arguments, "--unsafe-weights"]) == 0


@pytest.mark.parametrize("damage", ["renamed", "three missing", "another shape"])
def test_a_checkpoint_that_does_not_match_is_not_scored(traces, tmp_path, capsys, damage):
    """transformers would fill the gaps with random weights, and score with them."""
    folder = tmp_path / "damaged"
    shutil.copytree(ASSETS / "model", folder)
    weights = load_file(folder / "model.safetensors")
    names = sorted(weights)
    if damage == "renamed":
        weights = {f"_orig_mod.{name}": weight for name, weight in weights.items()}
    elif damage == "three missing":
        weights = {name: weights[name] for name in names[3:]}
    else:
        weights[names[-1]] = weights[names[-1]][:-1].contiguous()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert main(with_model(traces, folder)) == 2
    said = capsys.readouterr().err
    assert "could not be loaded" in said
    if damage == "renamed":
        assert "has extra" in said
        assert "_orig_mod.model.embed_tokens.weight" in said
    else:
        assert names[0 if damage == "three missing" else -1] in said
    assert not (tmp_path / "out.jsonl").read_bytes()


@pytest.fixture
def unloaded(monkeypatch):
    """Fail at the end of the test if weights were read; the command would catch an error."""
    read = []
    monkeypatch.setattr(loading, "load_causal_lm", lambda name, **_: read.append(name))
    yield
    assert not read


def copy_of_the_tokenizer(folder, **config):
    shutil.copytree(ASSETS / "tokenizer", folder)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
    return folder


def said_once(text: str, captured) -> bool:
    return captured.readouterr().err.count(text) == 1


def test_a_folder_that_is_not_there_is_named_at_once(traces, tmp_path, capsys):
    out = ["--out", str(tmp_path / "out.jsonl")]
    for name in ("./nothere", "/no/where", "~/no/where", "a/b/c"):
        assert main(["score", str(traces), "--model", name, *out]) == 2
        assert f"--model must be a folder or a name on the hub, got {name}: no such folder" in (
            capsys.readouterr().err
        )


def test_a_hub_that_does_not_answer_costs_seconds(traces, tmp_path, capsys, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    for proxy in loading.PROXIES:
        monkeypatch.delenv(proxy, raising=False)
    began = time.perf_counter()
    out = ["--out", str(tmp_path / "out.jsonl")]
    assert main(["score", str(traces), "--model", "nobody/nothing", *out]) == 2
    assert time.perf_counter() - began < 10
    assert "--model nobody/nothing could not be loaded" in capsys.readouterr().err


def test_a_tokenizer_without_a_chat_template_is_said_once(traces, tmp_path, capsys, unloaded):
    folder = copy_of_the_tokenizer(tmp_path / "plain", chat_template=None)
    for file in folder.glob("chat_template*"):
        file.unlink()
    options = ["--tokenizer", str(folder), "--out", str(tmp_path / "out.jsonl")]
    assert main(["score", str(traces), *SCORE, *options]) == 2
    assert said_once("must have a chat template, got one without. Pass --prompt-template", capsys)


def test_a_broken_chat_template_is_said_once(traces, tmp_path, capsys, unloaded):
    folder = copy_of_the_tokenizer(tmp_path / "broken")
    (folder / "chat_template.jinja").write_text("{{ raise_exception('no roles here') }}")
    options = ["--tokenizer", str(folder), "--out", str(tmp_path / "out.jsonl")]
    assert main(["score", str(traces), *SCORE, *options]) == 2
    assert said_once("no roles here", capsys)


def test_a_folder_without_a_tokenizer_is_said_once(traces, tmp_path, capsys, unloaded):
    options = ["--model", str(ASSETS / "model"), "--out", str(tmp_path / "out.jsonl")]
    for more in ([], ["--prompt-template", "{question}"]):
        assert main(["score", str(traces), *options, *more]) == 2
        said = capsys.readouterr().err
        model = ASSETS / "model"
        assert (
            said
            == f"segattr: --model must hold a tokenizer, got {model} without. Pass --tokenizer.\n"
        )


def test_a_device_that_is_not_there_is_said_before_weights_are_read(
    traces, tmp_path, capsys, unloaded
):
    options = ["--device", "cuda:99", "--out", str(tmp_path / "out.jsonl")]
    assert main(["score", str(traces), *SCORE, *options]) == 2
    assert said_once("--device must be there to use, got cuda:99", capsys)


def test_a_backend_that_cannot_run_is_said_before_weights_are_read(
    traces, tmp_path, capsys, monkeypatch, unloaded
):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    options = ["--backend", "triton", "--device", "cpu", "--out", str(tmp_path / "out.jsonl")]
    assert main(["score", str(traces), *SCORE, *options]) == 2
    assert said_once("--backend triton needs a CUDA tensor and Triton", capsys)


def test_options_that_contradict_are_said_before_weights_are_read(
    traces, tmp_path, capsys, unloaded
):
    rule = Rule(torch.tensor([0.5]).double(), torch.ones(1).double(), "0", "token 0", "all", 1.0)
    rule.save(tmp_path / "rule.json")
    out = ["--model", "bundled", "--out", str(tmp_path / "out.jsonl")]
    for options, message in (
        (["--steps", "5"], "--steps must be left out with"),
        (["--rule", "auto", "--steps", "5"], "--steps must be left out with --rule auto"),
        (["--rule", "midpoint", "--tolerance", "0.1"], "--tolerance must be left out with"),
        (["--rule", "secant", "--agreement", "1"], "--agreement must be left out with --rule sec"),
        (["--rule", str(tmp_path / "rule.json"), "--scope", "reasoning"], "fitted to this scope"),
        (["--rule", str(tmp_path / "rule.json")], "Pass --scope all, or fit another with"),
    ):
        assert main(["score", str(traces), *out, *options]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out.jsonl").exists()
