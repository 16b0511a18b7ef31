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


def table_shape(model: nn.Module) -> tuple[int, int]:
    """Rows and width of the embedding table, also under a peft wrapper of its own."""
    embed: Any = model.get_input_embeddings()  # type: ignore[operator]
    tables = [parameter for parameter in embed.parameters() if parameter.ndim == 2]
    rows, width = max(tables, key=Tensor.numel).shape
    return rows, width


def require_baseline(baseline: Baseline, model: nn.Module) -> None:
    """Raise ValueError if this is no baseline for the model."""
    rows, width = table_shape(model)
    if isinstance(baseline, str) and baseline not in BASELINES:
        raise ValueError(
            f"baseline must be one of {', '.join(map(repr, BASELINES))}, a token id or a tensor "
            f"[D], got {baseline!r}."
        )
    if isinstance(baseline, int) and not 0 <= baseline < rows:
        raise ValueError(f"baseline must be one of the model's {rows} token ids, got {baseline}.")
    if isinstance(baseline, Tensor) and baseline.shape != (width,):
        raise ValueError(
            f"baseline must be one embedding of shape [{width}], got {list(baseline.shape)}."
        )


def baseline_token(
    baseline: Baseline, model: nn.Module, tokenizer: PreTrainedTokenizerBase | None
) -> int | None:
    """Return the token at whose embedding the path starts; None if it starts at none.

    ``"pad"`` is the tokenizer's pad token, or the config's; without one that has an embedding it is
    the EOS token, with a warning.

    Raises:
        ValueError: If neither is known.
    """
    if isinstance(baseline, int):
        return baseline
    if not isinstance(baseline, str) or baseline != "pad":
        return None
    config: Any = model.config
    sources = [source for source in (tokenizer, config.get_text_config()) if source is not None]
    rows, _ = table_shape(model)
    if (pad := _first_known([source.pad_token_id for source in sources], rows)) is not None:
        return pad
    if (eos := _first_known([source.eos_token_id for source in sources], rows)) is not None:
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


def baseline_embedding(baseline: Baseline, token_id: int | None, model: nn.Module) -> Tensor:
    """Return the starting point of every token, ``[D]``; ``token_id`` from `baseline_token`."""
    embed: Any = model.get_input_embeddings()  # type: ignore[operator]
    device = next(embed.parameters()).device
    rows, width = table_shape(model)
    if token_id is not None:
        return embed(torch.tensor([token_id], device=device))[0]
    if isinstance(baseline, Tensor):
        return baseline
    if baseline == "zero":
        return torch.zeros(width)
    # The mean: through the module, as some models scale inside it; in slices, as it may be large.
    slices = torch.arange(rows, device=device).split(8192)
    return torch.stack([embed(part).double().sum(0) for part in slices]).sum(0) / rows


def _first_known(candidates: list[Any], rows: int) -> int | None:
    """The first token id the embedding table has; configs may hold none, a list, or -1."""
    ids = [c[0] if isinstance(c, list) and c else c for c in candidates]
    return next((i for i in ids if isinstance(i, int) and 0 <= i < rows), None)
