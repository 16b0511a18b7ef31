"""Where the path starts: the words a user may give, and the embedding they stand for.

Axes: ``D`` hidden size.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BASELINES = ("pad", "zero", "mean")
Baseline = str | int | Tensor


def require_baseline(baseline: Baseline, model: nn.Module) -> None:
    """Raise ValueError if this is no baseline for the model."""
    table: Any = model.get_input_embeddings()  # type: ignore[operator]
    if isinstance(baseline, str) and baseline not in BASELINES:
        raise ValueError(
            f"baseline must be one of {', '.join(map(repr, BASELINES))}, a token id or a tensor "
            f"[D], got {baseline!r}."
        )
    if isinstance(baseline, int) and not 0 <= baseline < table.num_embeddings:
        raise ValueError(
            f"baseline must be one of the model's {table.num_embeddings} token ids, got {baseline}."
        )
    if isinstance(baseline, Tensor) and baseline.shape != (table.embedding_dim,):
        raise ValueError(
            f"baseline must be one embedding of shape [{table.embedding_dim}], got "
            f"{list(baseline.shape)}."
        )


def baseline_token(
    baseline: Baseline, model: nn.Module, tokenizer: PreTrainedTokenizerBase | None
) -> int | None:
    """Return the token at whose embedding the path starts; None if it starts at none.

    ``"pad"`` is the tokenizer's pad token, or the config's; without one the EOS token, with a
    warning.

    Raises:
        ValueError: If neither is known.
    """
    if isinstance(baseline, int):
        return baseline
    if not isinstance(baseline, str) or baseline != "pad":
        return None
    config: Any = model.config
    sources = [source for source in (tokenizer, config.get_text_config()) if source is not None]
    for source in sources:
        if (pad := _first(source.pad_token_id)) is not None:
            return pad
    for source in sources:
        if (eos := _first(source.eos_token_id)) is not None:
            warnings.warn(
                f"no pad token is known, so the baseline is the EOS token {eos}. "
                "Pass tokenizer=, or baseline= with a token id, to choose another.",
                stacklevel=3,
            )
            return eos
    raise ValueError(
        "baseline='pad' needs a pad or EOS token, got a model without. Pass tokenizer= or a "
        "token id."
    )


def baseline_embedding(baseline: Baseline, token_id: int | None, embed: nn.Module) -> Tensor:
    """Return the starting point of every token, ``[D]``; ``token_id`` from `baseline_token`."""
    table: Any = embed
    device = next(embed.parameters()).device
    if token_id is not None:
        return table(torch.tensor(token_id, device=device))
    if isinstance(baseline, Tensor):
        return baseline
    if baseline == "zero":
        return torch.zeros(table.embedding_dim)
    # The mean: through the module, as some models scale inside it; in slices, as it may be large.
    ids = torch.arange(table.num_embeddings, device=device)
    return torch.stack([table(part).double().sum(0) for part in ids.split(8192)]).sum(0) / len(ids)


def _first(token_id: int | list[int] | None) -> int | None:
    return token_id[0] if isinstance(token_id, list) else token_id
