"""A causal LM from a folder or the hub, whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAMED = 4  # keys that an error names


def load_causal_lm(name: str | Path, **options: Any) -> PreTrainedModel:
    """Load a model whose checkpoint has exactly the weights that the model has.

    transformers fills weights that a checkpoint lacks with random numbers and only warns.

    Args:
        name: Folder or hub name.
        options: Of ``AutoModelForCausalLM.from_pretrained``.

    Raises:
        ValueError: If weights are missing, left over or of another shape; names them.
        OSError: If there is no such model.
    """
    from transformers import AutoModelForCausalLM

    # Mismatched sizes are ignored in order to be named below, like all other keys.
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        name, output_loading_info=True, ignore_mismatched_sizes=True, **options
    )
    model, found = loaded
    kinds = {"missing_keys": "lacks", "unexpected_keys": "has extra", "mismatched_keys": "misfits"}
    wrong = [
        f"{what} {len(found[kind])} ({_some(found[kind])})"
        for kind, what in kinds.items()
        if found.get(kind)
    ]
    if wrong:
        raise ValueError(
            f"the checkpoint {name} must have the weights of a {type(model).__name__}, got one "
            f"that {', '.join(wrong)}. Was it saved from a wrapped or compiled model, or cut "
            "short? Save it again with model.save_pretrained."
        )
    return model


def _some(keys: Any) -> str:
    """The first of some keys, which are names or tuples that start with one."""
    names = sorted(key if isinstance(key, str) else str(key[0]) for key in keys)
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
