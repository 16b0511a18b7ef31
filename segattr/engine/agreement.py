"""Whether an engine computes the model's own function, asked before anything is attributed with it.

Axes: ``T`` tokens, ``A`` answer tokens, ``D`` hidden size.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from segattr.engine.choice import Engine
from segattr.engine.ends import PathEnds
from segattr.engine.lookup import logits_of
from segattr.engine.model import bare
from segattr.engine.reference import compute_dtype

LONGEST = 512  # tokens that are compared: a long trace costs no more than a short one
# How many roundings of the logits and of F may lie between two ways of computing F. Up to 0.5 in
# float32 and 0.15 in bfloat16 did on a CPU, for random Llama, Qwen2, Qwen3 and Mistral models of
# 4 to 24 layers; another function is off by whole nats.
SLACK = 8
# Products of float32 may be rounded to less, if the user says so.
PRODUCTS = {"highest": torch.float32, "high": torch.float16, "medium": torch.bfloat16}


def require_agreement(
    model: Any,
    kind: type[Engine],
    ids: Tensor,
    inputs: Tensor,
    target: tuple[int, int],
    backend: str = "auto",
) -> None:
    """Raise ValueError if F at the tokens' embeddings is not what the model says of the tokens.

    The model runs as a user would call it, with its cache and with the answer's last token, which
    the engines leave out; neither may matter.

    Args:
        model: The causal LM, frozen.
        kind: The engine.
        ids: The tokens, int64 ``[T]``.
        inputs: Their embeddings, ``[T, D]``.
        target: The answer ``(start, stop)``; the `LONGEST` tokens up to its end are compared.
        backend: Of the engine.
    """
    piece = slice(max(0, target[1] - LONGEST), target[1])
    ids, inputs = ids[piece], inputs[piece]
    answer = min(target[1] - target[0], len(ids) - 1)
    ends = PathEnds.of(ids, inputs, inputs, (len(ids) - answer, len(ids)))
    engine = kind(model, ends, backend)
    got = engine.logprob(torch.ones(1)).item()
    logits = logits_of(model, ids.clone().to(inputs.device)[None], answer + 1)[0, :-1]  # [A, V]
    wide = logits.to(compute_dtype(logits.dtype))
    own = wide.log_softmax(-1).gather(-1, ends.target_ids.to(wide.device)[:, None]).sum().item()
    scale = math.sqrt(answer) * float(wide.abs().max()) + abs(own)
    # What is not finite is refused with the path point where it is met.
    if abs(got - own) > SLACK * _rounding(inputs.dtype) * scale:
        raise ValueError(
            f"model must give the answer the same log-probability from token ids as on the path, "
            f"got {own:.6g} and {got:.6g} from {type(bare(model)).__name__} with "
            f"engine={engine.name!r}. Its logits depend on more than the tokens before them, as on "
            "its cache, or the engine is at fault. Try engine='autograd' or another transformers."
        )


def _rounding(dtype: torch.dtype) -> float:
    """The relative rounding of the model's arithmetic; norms and softmax are float32 at best."""
    products = PRODUCTS[torch.get_float32_matmul_precision()]
    kinds = (dtype, products if dtype == torch.float32 else torch.float32)
    return max(torch.finfo(kind).eps for kind in kinds)
