"""The bundled demo: a tiny model trained on synthetic traces whose important segments are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from segattr.engine.causal_lm import load_causal_lm

ASSETS = Path(__file__).parent / "assets"
TRACES = ASSETS / "traces.jsonl"
BUNDLED = "bundled"  # the model's name in scored traces


def load_demo(folder: Path = ASSETS) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the bundled model (0.3 M parameters, float32) and its tokenizer."""
    return load_causal_lm(folder / "model"), AutoTokenizer.from_pretrained(folder / "tokenizer")


def load_records() -> list[dict[str, Any]]:
    """Load the bundled traces: a trace's fields, and ``kinds``, the truth about its segments."""
    return [json.loads(line) for line in TRACES.read_text(encoding="utf-8").splitlines()]
