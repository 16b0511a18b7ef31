"""Where the path starts: what a user may give, and the embedding it stands for.

Axes: ``D`` hidden size.
"""

from __future__ import annotations

import hashlib
import sys
import warnings

import torch
from torch import Tensor

from segattr.checks import require_type
from segattr.engine.causal_lm import CausalLM

BASELINES = ("pad", "newline", "zero", "mean")


class Baseline:
    """Where every token's path starts, resolved once for one model.

    Args:
        given: ``"pad"`` (the pad token's embedding, see `CausalLM.pad_token_id`; without a pad
            token the EOS token's, with a warning), ``"newline"`` (a line break's; needs a
            tokenizer), ``"zero"``, ``"mean"`` (of the embedding table),
            a token id, or a tensor ``[D]``.
        lm: Whose embeddings it is among.

    Attributes:
        given: As above.
        token_id: The token it is the embedding of; None for other baselines.

    Raises:
        TypeError, ValueError: If it is not one of these, does not fit the model, or ``"pad"`` finds
            neither token.
    """

    def __init__(self, given: str | int | Tensor, lm: CausalLM) -> None:
        _require_baseline(given, *lm.table_shape)
        self.given = given
        self.token_id: int | None = None
        if isinstance(given, int):
            self.token_id = given
        elif isinstance(given, str) and given == "pad":
            self.token_id = _pad_or_eos(lm)
        elif isinstance(given, str) and given == "newline":
            self.token_id = _newline(lm)

    def __str__(self) -> str:
        """Its token, its name, or a hash of its numbers; fitted rules know it by this."""
        if self.token_id is not None:
            return f"token {self.token_id}"
        if isinstance(self.given, Tensor):
            numbers = self.given.detach().to("cpu", torch.float32).contiguous().numpy().tobytes()
            return f"tensor {hashlib.sha256(numbers).hexdigest()[:16]}"
        return str(self.given)

    @property
    def word(self) -> str | int:
        """What was given, or ``"tensor"`` in place of a tensor."""
        return "tensor" if isinstance(self.given, Tensor) else self.given

    def embedding(self, lm: CausalLM) -> Tensor:
        """Return the starting point of every token, ``[D]``."""
        if self.token_id is not None:
            return lm.embed(torch.tensor([self.token_id]))[0]
        if isinstance(self.given, Tensor):
            return self.given
        rows, width = lm.table_shape
        if self.given == "zero":
            return torch.zeros(width)
        # The mean: through the module, as some models scale inside it; in slices, as it may be
        # large.
        slices = torch.arange(rows).split(8192)
        return torch.stack([lm.embed(part).double().sum(0) for part in slices]).sum(0) / rows


def _require_baseline(given: object, rows: int, width: int) -> None:
    require_type("baseline", given, (str, int, Tensor), "Pass baseline='pad' or a token id.")
    if isinstance(given, str) and given not in BASELINES:
        raise ValueError(
            f"baseline must be one of {', '.join(map(repr, BASELINES))}, a token id or a tensor "
            f"[D], got {given!r}."
        )
    if isinstance(given, int) and not 0 <= given < rows:
        raise ValueError(f"baseline must be one of the model's {rows} token ids, got {given}.")
    if isinstance(given, Tensor) and given.shape != (width,):
        raise ValueError(
            f"baseline must be one embedding of shape [{width}], got {list(given.shape)}."
        )


def _newline(lm: CausalLM) -> int:
    ids = lm.load_tokenizer().encode("\n", add_special_tokens=False)
    if len(ids) != 1:
        raise ValueError(
            f"baseline='newline' needs a tokenizer with one token for a line break, got {ids}. "
            "Pass a token id."
        )
    return int(ids[0])


def _pad_or_eos(lm: CausalLM) -> int:
    """The pad token, or the EOS token with a warning at the line that called the package."""
    if (pad := lm.pad_token_id()) is not None:
        return pad
    if (eos := lm.eos_token_id()) is None:
        raise ValueError(
            "baseline='pad' needs a pad or EOS token, got a model without. Pass tokenizer= or a "
            "token id."
        )
    warnings.warn(
        f"no pad token is known, so the baseline is the EOS token {eos}. "
        "Pass tokenizer=, or baseline= with a token id, to choose another.",
        stacklevel=depth_of_the_caller(),
    )
    return eos


def depth_of_the_caller() -> int:
    """How many frames above the one that asks stands code from outside this package."""
    depth, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals["__name__"].startswith("segattr."):
        depth, frame = depth + 1, frame.f_back
    return depth
