"""Models and tokenizers by name; what cannot be had is said once, before weights are read."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from segattr.cli.console import UserError, in_flags
from segattr.cli.options import MachineOptions, PathOptions, Source
from segattr.cli.text_options import ENTROPY
from segattr.demo import ASSETS, BUNDLED
from segattr.encoding import encode
from segattr.engine.causal_lm import CausalLM, is_without_tokenizer, load_causal_lm
from segattr.engine.entropy import EntropyPeaks
from segattr.engine.ops import choose
from segattr.trace import EncodedTrace, Trace

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from segattr.ig.fast_ig import FastIG

SECONDS = 5  # to reach the hub
PROXIES = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")


def load_tokenizer(flag: str, name: str, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    """Load a tokenizer.

    Args:
        flag: The option that named it, for errors.
        name: Folder or hub name, or ``bundled``.
        trust_remote_code: Run code that comes with it.

    Raises:
        UserError: If there is none.
    """
    from transformers import AutoTokenizer

    folder = _located(flag, name, "tokenizer")
    if is_without_tokenizer(folder):
        raise UserError(f"{flag} must hold a tokenizer, got {name} without. Pass --tokenizer.")
    try:
        return AutoTokenizer.from_pretrained(
            folder, trust_remote_code=trust_remote_code, local_files_only=_is_offline(folder)
        )
    except Exception as error:  # whatever a broken folder raises
        raise _not_loaded(flag, name, error) from None


def prepare_tokenizer(
    source: Source, machine: MachineOptions, encoding: dict[str, Any], first: Trace | None = None
) -> PreTrainedTokenizerBase:
    """Return the tokenizer, after all that can be known to fail before weights are read.

    Args:
        source: What names the tokenizer.
        machine: What it is to run on.
        encoding: Options of the text.
        first: The first trace, if it could be read.

    Raises:
        UserError: If the device, the tokenizer or the options of the text do not do.
    """
    require_device(machine)
    tokenizer = load_tokenizer(*source.named_tokenizer, machine.trust_remote_code)
    require_encoding(tokenizer, encoding, first)
    return tokenizer


def require_encoding(
    tokenizer: PreTrainedTokenizerBase, encoding: dict[str, Any], first: Trace | None = None
) -> None:
    """Encode a small trace, so that what fails for every trace is said once.

    What the first trace has beside its texts may be what the chat template wants, such as switches.

    Raises:
        UserError: If neither a plain question nor the first trace's can be encoded.
    """
    settings = {**_without_entropy(encoding), "max_length": None}
    error = _refusal(Trace("question", "reasoning", "1"), tokenizer, settings)
    if error is not None and first is not None:
        small = replace(first, reasoning="reasoning", segments=None, untrained=())
        error = _refusal(small, tokenizer, settings)
    if error is not None:
        raise UserError(in_flags(str(error), encoding))


def _refusal(
    trace: Trace, tokenizer: PreTrainedTokenizerBase, settings: dict[str, Any]
) -> Exception | None:
    """What encoding a trace raises."""
    try:
        encode(trace, tokenizer, **settings)
    except Exception as error:  # chat templates raise errors of their own kinds
        return error
    return None


def require_device(machine: MachineOptions) -> str:
    """Return the device to use, a GPU by default.

    Raises:
        UserError: If it is not there, or cannot run the backend.
    """
    import torch

    default = "cuda" if torch.cuda.is_available() else "cpu"
    device = machine.device or default
    try:
        tensor = torch.empty(0, device=default if device == "sharded" else device)
    except Exception as error:  # torch raises several kinds, some of them long
        reason = str(error).splitlines()[0]
        raise UserError(f"--device must be there to use, got {device}: {reason}") from None
    try:
        choose(machine.backend, tensor)
    except RuntimeError as error:
        raise UserError(in_flags(str(error), ["backend"])) from None
    return device


def load_ig(
    source: Source,
    machine: MachineOptions,
    path: PathOptions,
    tokenizer: PreTrainedTokenizerBase,
    **settings: Any,
) -> FastIG:
    """Load the model, inside a `FastIG` with these settings.

    Raises:
        UserError: If it cannot be loaded, or FastIG refuses it.
    """
    from segattr.ig.fast_ig import FastIG

    model = _load_model(source.model, machine)
    memory = machine.max_memory
    try:
        return FastIG(
            model,
            tokenizer,
            **settings,
            **path.settings(),
            engine=machine.engine,
            backend=machine.backend,
            max_memory=None if memory is None else int(memory * 2**30),
        )
    except (ValueError, TypeError, RuntimeError) as error:
        names = ("baseline", "scope", "engine", "backend", "max_memory", "max_length", "rule")
        raise UserError(in_flags(str(error), names)) from None


def encoder(lm: CausalLM, encoding: dict[str, Any]) -> Callable[[Trace], EncodedTrace]:
    """Return what encodes traces; segments at peaks of entropy need the model itself."""
    tokenizer = lm.load_tokenizer()
    if encoding.get("segmenter") != ENTROPY:
        return partial(encode, tokenizer=tokenizer, **encoding)
    others = _without_entropy(encoding)
    peaks = EntropyPeaks(lm, encoding["segment_tokens"], others)
    return lambda trace: encode(peaks(trace), tokenizer, **others)


def _without_entropy(encoding: dict[str, Any]) -> dict[str, Any]:
    """The options that need no model."""
    if encoding.get("segmenter") != ENTROPY:
        return encoding
    names = ("segmenter", "segment_tokens")
    return {name: value for name, value in encoding.items() if name not in names}


def _load_model(name: str, machine: MachineOptions) -> Any:
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    device = require_device(machine)
    folder = _located("--model", name, "model")
    try:
        model: Any = load_causal_lm(
            folder,
            dtype=machine.dtype if machine.dtype == "auto" else getattr(torch, machine.dtype),
            trust_remote_code=machine.trust_remote_code,
            use_safetensors=None if machine.unsafe_weights else True,
            attn_implementation=machine.attn_implementation,
            local_files_only=_is_offline(folder),
            **({"device_map": "auto"} if device == "sharded" else {}),
        )
        return model if device == "sharded" else model.to(device)
    except Exception as error:  # whatever a broken folder raises
        hint = ""
        if "safetensors" in str(error) and not machine.unsafe_weights:
            hint = " Pass --unsafe-weights to load pickled weights, if you trust them."
        raise _not_loaded("--model", name, error, hint) from None


def _located(flag: str, name: str, part: str) -> str | Path:
    """Where a name leads: part of the bundled demo, a folder, or the hub's name as it is."""
    if name == BUNDLED:
        return ASSETS / part
    looks_local = name.startswith((".", "~", os.sep)) or name.count("/") > 1
    if looks_local and not Path(name).expanduser().is_dir():
        raise UserError(
            f"{flag} must be a folder or a name on the hub, got {name}: no such folder."
        )
    return Path(name).expanduser() if looks_local else name


def _is_offline(name: str | Path) -> bool:
    """Whether to look for a hub's name in the cache alone, since the hub does not answer.

    transformers would try again for most of a minute.
    """
    from huggingface_hub import constants

    if Path(name).is_dir() or constants.HF_HUB_OFFLINE:
        return False
    if any(os.environ.get(proxy) for proxy in PROXIES):
        return False
    hub = urlsplit(constants.ENDPOINT)
    port = hub.port or (80 if hub.scheme == "http" else 443)
    try:
        socket.create_connection((hub.hostname or "", port), timeout=SECONDS).close()
    except OSError:
        return True
    return False


def _not_loaded(flag: str, name: str, error: Exception, hint: str = "") -> UserError:
    return UserError(f"{flag} {name} could not be loaded: {type(error).__name__}: {error}{hint}")
