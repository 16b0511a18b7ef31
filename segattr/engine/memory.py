"""How many bytes one path point takes: what both engines have in common.

What a decoder layer keeps for its backward pass differs, so each engine says that itself; around
it stand the gradients inside one layer, the points with their gradients, and the answer's logits.
Axes: ``T`` tokens, ``V`` vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Sizes:
    """The numbers of a model that decide its memory; where layers differ, the largest.

    Args:
        hidden: Width of the residual stream.
        layers: Decoder layers.
        heads: Query heads of a layer.
        queries: Width of all its query heads together.
        keys: Width of all its key heads together.
        width: Width of its MLP, or of all the experts that a token goes through.
        vocabulary: Tokens.
        eager: Whether the attention keeps its probabilities.
    """

    hidden: int
    layers: int
    heads: int
    queries: int
    keys: int
    width: int
    vocabulary: int
    eager: bool = False

    @classmethod
    def of(cls, config: Any) -> Sizes:
        """Read a text model's config.

        An estimate must not stop a run: what cannot be read gets a usual value.
        """
        # A config whose layers differ refuses to answer for all of them at once.
        varied = getattr(config, "is_heterogeneous", False)
        configs = list(config.per_layer_config) if varied else [config]

        def get(name: str, default: int) -> int:
            return _number([_number(getattr(one, name, None), default) for one in configs], default)

        hidden, heads = get("hidden_size", 4096), get("num_attention_heads", 32)
        head_dim = get("head_dim", max(1, hidden // heads))
        width = get("intermediate_size", get("n_inner", 4 * hidden))
        if experts := get("num_experts_per_tok", get("top_k_experts", 0)):
            width = experts * get("moe_intermediate_size", width)
            width += get("shared_expert_intermediate_size", 0)
        return cls(
            hidden,
            get("num_hidden_layers", 32),
            heads,
            heads * head_dim,
            get("num_key_value_heads", heads) * head_dim,
            width,
            get("vocab_size", 32_000),
            getattr(config, "_attn_implementation", None) == "eager",
        )


def _number(value: object, default: int) -> int:
    """The value, the largest of several (one a layer), or the default if it is no number."""
    several = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    numbers = [one for one in several if isinstance(one, int) and one > 0]
    return max(numbers, default=default)


def bytes_per_point(
    sizes: Sizes,
    layer_bytes: float,
    itemsize: int,
    num_tokens: int,
    num_logits: int,
    recompute: bool,
) -> float:
    """Return the estimated peak bytes of one path point's forward and backward pass.

    Args:
        sizes: The model's sizes.
        layer_bytes: What one layer keeps per token.
        itemsize: Bytes of one number of an activation.
        num_tokens: Tokens that go through the model.
        num_logits: Tokens that get logits.
        recompute: Whether layers keep only their inputs.
    """
    kept = sizes.layers * (itemsize * sizes.hidden if recompute else layer_bytes)
    # The gradients inside one layer; the points and their gradients.
    working = 2 * layer_bytes + 2 * itemsize * sizes.hidden + 8 * sizes.hidden
    logits = num_logits * sizes.vocabulary * (itemsize + 12)
    return float(num_tokens * (kept + working) + logits)
