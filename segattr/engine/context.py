"""How many tokens a model takes, by its config."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

# Whose max_position_embeddings already is the extended length, whatever the factor.
EXTENDED = {"llama3", "longrope", "su"}
# Gemma 3 scales global layers linearly by 8 to reach its max_position_embeddings.
EXTENDED_MODELS = {"gemma3_text"}


def context_length(config: Any) -> int | None:
    """Return the most tokens a model takes; ``None`` if its config does not say.

    With rotary positions stretched by a factor (YaRN, dynamic, linear), that is the factor times
    the length before, if it is more than ``max_position_embeddings``: the cards of Qwen2.5 and
    Qwen3 leave that as it was.

    Args:
        config: A text model's.
    """
    named = getattr(config, "max_position_embeddings", None)
    if not isinstance(named, int) or named <= 0:  # XLNet says -1
        return None
    if getattr(config, "model_type", None) in EXTENDED_MODELS:
        return named
    return max(named, *(_stretched(rope, named) for rope in _ropes(config)), 0)


def _ropes(config: Any) -> Iterator[Mapping[str, Any]]:
    """The settings of rotary positions, which transformers 4 and 5 name differently.

    One for all layers, or one a type of layer.
    """
    for name in ("rope_parameters", "rope_scaling"):
        if isinstance(settings := getattr(config, name, None), Mapping):
            yield settings
            yield from (one for one in settings.values() if isinstance(one, Mapping))


def _stretched(rope: Mapping[str, Any], named: int) -> int:
    kind = rope.get("rope_type", rope.get("type", "default"))
    factor, before = rope.get("factor"), rope.get("original_max_position_embeddings")
    if kind in EXTENDED or not isinstance(factor, int | float):
        return 0
    return int(factor * (before or named))
