"""What FastIG is measured against, on the same inputs: each returns one score per token, ``[T]``.

``published``: the released code of arXiv 2602.00425, as its text describes it: one point at a time,
all logits, sums in the model's dtype. ``by hand``: the same loop as a careful user writes it, with
frozen weights and logits of the answer rows only. ``captum``: LayerIntegratedGradients, driven by
hand with that forward, a summed target and ``internal_batch_size=1``. ``autograd`` and ``fused``:
FastIG's engines; ``autograd, compiled``: its decoder layers under torch.compile. ``secant``: finite
propagation in one piece, another attribution, whose cost does not depend on the points.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import PreTrainedModel

from segattr import EncodedTrace, FastIG
from segattr.engine.model import frozen

Peer = Callable[[], Tensor]
PEERS = (
    "published",
    "by hand",
    "captum",
    "autograd",
    "autograd, compiled",
    "fused, torch",
    "fused",
    "secant",
)
SAME_SCORES = PEERS[:-1]


def available_peers() -> list[str]:
    """The peers that this machine can run."""
    missing = set()
    if importlib.util.find_spec("captum") is None:
        missing.add("captum")
    if not torch.cuda.is_available():
        missing.add("fused, torch")  # the same as "fused" there
    return [peer for peer in PEERS if peer not in missing]


def peer(name: str, model: PreTrainedModel, trace: EncodedTrace, points: int) -> Peer:
    """The peer as a function without arguments; what it prepares once per model is done here."""
    if name == "published":
        return lambda: _published(model, trace, points)
    if name == "by hand":
        return lambda: _by_hand(model, trace, points)
    if name == "captum":
        return lambda: _captum(model, trace, points)
    if name == "secant":
        secant = FastIG(model, rule="secant", scope="all", baseline=0)
        secant.integrand(trace, [1.0])
        return lambda: secant.attribute(trace).token_scores
    engine, _, variant = name.partition(", ")
    backend = "torch" if variant == "torch" else "auto"
    on = {"engine": engine, "backend": backend}
    ig = FastIG(model, rule="linspace", steps=points, scope="all", baseline=0, **on)
    ig.integrand(trace, [1.0])  # the first time, the engine is compared with the model
    if variant != "compiled":
        return lambda: ig.attribute(trace).token_scores
    return _compiled(model, lambda: ig.attribute(trace).token_scores)


def _path_ends(model: PreTrainedModel, ids: Tensor) -> tuple[Tensor, Tensor]:
    embed = model.get_input_embeddings()
    with torch.no_grad():
        return embed(ids[None]), embed(torch.zeros_like(ids)[None])


def _target_logprob(logits: Tensor, ids: Tensor, trace: EncodedTrace) -> Tensor:
    """Sum of the answer's log-probabilities from the rows that predict it, ``[B, A, V]``."""
    targets = ids[slice(*trace.target)].expand(len(logits), -1)[..., None]
    return logits.log_softmax(-1).gather(-1, targets).sum((1, 2))


def _published(model: PreTrainedModel, trace: EncodedTrace, points: int) -> Tensor:
    ids = trace.input_ids.to(model.device)
    inputs, baseline = _path_ends(model, ids)
    start, stop = trace.target
    total = torch.zeros_like(inputs)
    for alpha in torch.linspace(0, 1, points, device=model.device, dtype=model.dtype):
        point = (baseline + alpha * (inputs - baseline)).requires_grad_()
        logits = model(inputs_embeds=point, use_cache=False).logits
        logprob = _target_logprob(logits[:, start - 1 : stop - 1], ids, trace)
        total += torch.autograd.grad(logprob.sum(), point)[0]
    return ((inputs - baseline) * (total / points)).sum(-1)[0].float().cpu()


def _by_hand(model: PreTrainedModel, trace: EncodedTrace, points: int) -> Tensor:
    ids = trace.input_ids.to(model.device)
    rows = trace.target[1] - trace.target[0]
    inputs, baseline = (ends[:, : trace.target[1] - 1] for ends in _path_ends(model, ids))
    total = torch.zeros_like(inputs)
    with frozen(model):
        for alpha in torch.linspace(0, 1, points, device=model.device, dtype=model.dtype):
            point = (baseline + alpha * (inputs - baseline)).requires_grad_()
            logits = model(inputs_embeds=point, use_cache=False, logits_to_keep=rows).logits
            total += torch.autograd.grad(_target_logprob(logits, ids, trace).sum(), point)[0]
    scores = ((inputs - baseline) * (total / points)).sum(-1)[0].float().cpu()
    return torch.nn.functional.pad(scores, (0, len(ids) - len(scores)))


def _captum(model: PreTrainedModel, trace: EncodedTrace, points: int) -> Tensor:
    from captum.attr import LayerIntegratedGradients

    ids = trace.input_ids.to(model.device)
    rows, last = trace.target[1] - trace.target[0], trace.target[1] - 1

    def summed_target(some_ids: Tensor) -> Tensor:
        logits = model(input_ids=some_ids, use_cache=False, logits_to_keep=rows).logits
        return _target_logprob(logits, ids, trace)

    with frozen(model):
        shares = LayerIntegratedGradients(summed_target, model.get_input_embeddings()).attribute(
            ids[None, :last],
            baselines=torch.zeros_like(ids)[None, :last],
            n_steps=points,
            method="riemann_right",
            internal_batch_size=1,
        )
    scores = shares[0].sum(-1).float().detach().cpu()
    return torch.nn.functional.pad(scores, (0, len(ids) - len(scores)))


def _compiled(model: PreTrainedModel, run: Peer) -> Peer:
    """``run`` with compiled decoder layers, which then are as before."""
    # A code object has room for eight shapes, and runs uncompiled after that.
    torch._dynamo.reset()
    forwards = [torch.compile(layer.forward, dynamic=False) for layer in model.model.layers]

    @contextmanager
    def swapped() -> Iterator[None]:
        for layer, forward in zip(model.model.layers, forwards, strict=True):
            layer.forward = forward
        try:
            yield
        finally:
            for layer in model.model.layers:
                del layer.forward

    def run_compiled() -> Tensor:
        with swapped():
            return run()

    return run_compiled
