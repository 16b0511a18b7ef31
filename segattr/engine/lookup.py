"""A model on points of a path: it looks its token ids up itself, and finds the points there.

Models may do more with ids than look them up: scale what they find, add embeddings of each layer,
skip padding. Given embeddings instead of ids, such a model is another function, or none at all.
Axes: ``K`` path points, ``T`` tokens, ``A`` answer tokens, ``V`` vocabulary, ``D`` hidden size.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from segattr.engine.model import bare


def logits_at(model: Any, ids: Tensor, points: Tensor, rows: int) -> Tensor:
    """Return the logits of a sequence whose tokens have other embeddings.

    Args:
        model: The causal LM.
        ids: The token ids, int64 ``[T]``.
        points: What the model finds when it looks them up, ``[K, T, D]``.
        rows: How many of the last tokens get logits.

    Returns:
        ``[K, rows, V]``.

    Raises:
        ValueError: If the model does not look its ids up in its input embeddings.
    """
    batch = ids.to(points.device).expand(len(points), -1)
    try:
        with _found_instead(model, points):
            return logits_of(model, batch, rows, use_cache=False)
    except RuntimeError as error:
        if "leaf Variable" not in str(error):
            raise
    # CTRL scales what it finds in place, before any layer: autograd allows that on a copy only.
    with _found_instead(model, points.clone()):
        return logits_of(model, batch, rows, use_cache=False)


def logits_of(model: Any, ids: Tensor, rows: int, **options: Any) -> Tensor:
    """Return the logits of the last tokens as the model itself computes them.

    Args:
        model: The causal LM.
        ids: Sequences, int64 ``[K, T]``.
        rows: How many tokens get logits.
        options: Passed to the models that know them.

    Returns:
        ``[K, rows, V]``.
    """
    accepted = _forward_arguments(model)
    options["logits_to_keep"] = rows
    output = model(input_ids=ids, **{key: options[key] for key in options if key in accepted})
    logits: Tensor = output[0] if isinstance(output, tuple) else output.logits
    return logits[:, -rows:]


def keeps_chosen_logits(model: Any) -> bool:
    """Whether the model computes logits of chosen rows only; else it computes all of them."""
    return "logits_to_keep" in _forward_arguments(model)


def _forward_arguments(model: Any) -> set[str]:
    return set(inspect.signature(bare(model).forward).parameters)


@contextmanager
def _found_instead(model: Any, points: Tensor) -> Iterator[None]:
    """Replace the output of the input embeddings, whatever hooks and wrappers made of it."""
    embed: nn.Module = model.get_input_embeddings()
    found = []

    def replace(_module: nn.Module, _ids: object, looked_up: Tensor) -> Tensor | None:
        if looked_up.shape != points.shape:  # of something else, such as a placeholder's token
            return None
        found.append(True)
        return points

    with _not_compiled(model, embed):
        handle = embed.register_forward_hook(replace)
        try:
            yield
        finally:
            handle.remove()
    if not found:
        raise ValueError(
            "model must look its token ids up by calling its input embeddings, got "
            f"{type(bare(model)).__name__}, which does not. Give a model that is not compiled; one "
            "that makes embeddings in another way cannot be attributed."
        )


@contextmanager
def _not_compiled(model: nn.Module, embed: nn.Module) -> Iterator[None]:
    """Run what ``model.compile()`` has compiled as it was: a compiled call misses new hooks."""
    compiled = [
        (module, call)
        for module in model.modules()
        if (call := module._compiled_call_impl) is not None
        and any(inside is embed for inside in module.modules())
    ]
    for module, _ in compiled:
        module._compiled_call_impl = None
    try:
        yield
    finally:
        for module, call in compiled:
            module._compiled_call_impl = call
