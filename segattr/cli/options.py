"""What the command line's options stand for: a FastIG, how to encode, and a run's settings."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segattr import __version__
from segattr.segments import PRESETS

if TYPE_CHECKING:
    from segattr.export.selection import Variant
    from segattr.ig.fast_ig import FastIG
    from segattr.scores import SegmentScorer


class UserError(Exception):
    """Something the user can mend; printed without a traceback."""


def load_ig(arguments: argparse.Namespace, **method: Any) -> FastIG:
    """The model and tokenizer, inside a FastIG; ``method`` from `method_of`, or its defaults."""
    import torch
    import transformers
    from transformers import AutoTokenizer

    from segattr.engine.causal_lm import load_causal_lm
    from segattr.ig.fast_ig import FastIG

    transformers.utils.logging.disable_progress_bar()
    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    placement = {"device_map": "auto"} if device == "sharded" else {}
    dtype = arguments.dtype if arguments.dtype == "auto" else getattr(torch, arguments.dtype)
    trust = arguments.trust_remote_code
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            arguments.tokenizer or arguments.model, trust_remote_code=trust
        )
        model: Any = load_causal_lm(
            arguments.model,
            dtype=dtype,
            trust_remote_code=trust,
            use_safetensors=None if arguments.unsafe_weights else True,
            attn_implementation=arguments.attn_implementation,
            **placement,
        )
        model = model if placement else model.to(device)
    except Exception as error:  # whatever a broken folder or a missing device raises
        what = f"{type(error).__name__}: {error}"
        raise UserError(f"--model {arguments.model} could not be loaded: {what}") from None
    baseline = int(arguments.baseline) if arguments.baseline.isdigit() else arguments.baseline
    memory = arguments.max_memory
    try:
        return FastIG(
            model,
            tokenizer,
            **method,
            baseline=baseline,
            scope=arguments.scope,
            engine=arguments.engine,
            backend=arguments.backend,
            max_memory=None if memory is None else int(memory * 2**30),
        )
    except (ValueError, TypeError, OverflowError, RuntimeError) as error:
        raise UserError(str(error)) from None


def load_tokenizer(arguments: argparse.Namespace, settings: Mapping[str, Any]) -> Any:
    """The tokenizer of an export: the one given, or the one the traces were scored with."""
    from transformers import AutoTokenizer

    from segattr.demo import ASSETS, BUNDLED

    name = arguments.tokenizer or settings.get("tokenizer") or settings.get("model")
    if name is None:
        raise UserError(f"--tokenizer must be given, since {arguments.scored} does not name one.")
    name = ASSETS / "tokenizer" if name == BUNDLED else name
    try:
        return AutoTokenizer.from_pretrained(name, trust_remote_code=arguments.trust_remote_code)
    except Exception as error:  # whatever a broken folder raises
        what = f"{type(error).__name__}: {error}"
        raise UserError(f"--tokenizer {name} could not be loaded: {what}") from None


def variant_of(arguments: argparse.Namespace) -> Variant:
    """What carries loss in an export."""
    from segattr.export.selection import Variant

    names = [field.name for field in dataclasses.fields(Variant)]
    given = {name: getattr(arguments, name) for name in names}
    if given["max_length"] is not None and given["max_length"] < 1:
        raise UserError(f"--max-length must be at least 1, got {given['max_length']}.")
    if given["too_long"] == "skip":
        given["too_long"] = "error"  # of that row, which the command then calls a skip
    return Variant(**given)


def method_of(arguments: argparse.Namespace, scorer: SegmentScorer) -> dict[str, Any]:
    """Keyword arguments of `FastIG` that make the scorer's segments certain."""
    from segattr.ig.rules import Rule

    rule: Any = arguments.rule
    try:
        rule = Rule.load(rule) if rule.endswith(".json") else rule
    except (OSError, ValueError) as error:
        raise UserError(str(error)) from None
    return {
        "rule": rule,
        "steps": arguments.steps,
        "scorer": scorer,
        "tolerance": arguments.tolerance,
        "max_evaluations": arguments.max_evaluations,
    }


def encoding_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """Keyword arguments of `encode`."""
    keywords = arguments.keywords
    if keywords not in PRESETS:
        try:
            lines = Path(keywords).read_text(encoding="utf-8").splitlines()
            keywords = [_unescape(line) for line in lines if line]
        except (OSError, UnicodeDecodeError):
            raise UserError(
                f"--keywords must be {' or '.join(PRESETS)} or a file with one keyword a line, "
                f"got {keywords!r}."
            ) from None
    if not keywords:
        raise UserError(f"--keywords must hold keywords, got {arguments.keywords}, which is empty.")
    if arguments.max_length is not None and arguments.max_length < 1:
        raise UserError(f"--max-length must be at least 1, got {arguments.max_length}.")
    if arguments.prompt_template is not None and "{question}" not in arguments.prompt_template:
        raise UserError("--prompt-template must hold {question}, got one that does not.")
    return {
        "keywords": keywords,
        "opening": _unescape(arguments.opening),
        "instruction": _unescape(arguments.instruction),
        "prompt_template": arguments.prompt_template and _unescape(arguments.prompt_template),
        "strip_final_answer": arguments.strip_final_answer,
        "max_length": arguments.max_length,
    }


def settings_of(arguments: argparse.Namespace, encoding: Mapping[str, Any]) -> dict[str, Any]:
    """What decides the numbers; a file is only continued with the same."""
    names = (
        "model",
        "tokenizer",
        "field",
        "rule",
        "steps",
        "tolerance",
        "max_evaluations",
        "baseline",
        "scope",
        "dtype",
        "tau",
        "beta",
    )
    encoding = {name: value for name, value in encoding.items() if name != "max_length"}
    settings = {name: getattr(arguments, name) for name in names}
    if (file := Path(arguments.rule)).suffix == ".json":
        settings["rule"] = f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()[:12]}"
    return {"segattr": __version__, **settings, **encoding}


def _unescape(text: str) -> str:
    return text.replace("\\n", "\n")
