"""What the machine can do: matrix products and attention at the models' sizes, and new lengths.

Each path point is bounded by these rates; a library that builds a plan for every new length makes
the rounding of lengths worth it.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from time import perf_counter
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from shapes import MODELS
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="measures a GPU")

ROWS = (2048, 8192, 16384)
BATCHES = {2048: 8, 8192: 2, 16384: 1}
BACKENDS = {
    "default": nullcontext,
    "cudnn": partial(sdpa_kernel, SDPBackend.CUDNN_ATTENTION),
    "flash": partial(sdpa_kernel, SDPBackend.FLASH_ATTENTION),
}


def products(model: str) -> dict[str, tuple[int, int]]:
    """Inputs and outputs of a layer's projections."""
    sizes = MODELS[model]
    hidden, width = sizes["hidden_size"], sizes["intermediate_size"]
    head = hidden // sizes["num_attention_heads"]
    return {
        "q, o": (hidden, hidden),
        "k, v": (hidden, head * sizes["num_key_value_heads"]),
        "gate, up": (hidden, width),
        "down": (width, hidden),
    }


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16)


def timed(benchmark: Any, run: Any, operations: float) -> dict[str, float]:
    benchmark.pedantic(
        lambda: (run(), torch.cuda.synchronize()), rounds=10, warmup_rounds=3, iterations=1
    )
    return {"teraflops": operations / benchmark.stats.stats.median / 1e12}


@pytest.mark.parametrize("model", ["1.5B", "7B"])
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("product", ["q, o", "k, v", "gate, up", "down"])
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_matmul(
    benchmark: Any, record: dict[str, Any], model: str, rows: int, product: str, direction: str
) -> None:
    inputs, outputs = products(model)[product]
    weight = normal(outputs, inputs)
    if direction == "forward":
        rows_in = normal(rows, inputs)
        run = lambda: F.linear(rows_in, weight)  # noqa: E731
    else:
        rows_in = normal(rows, outputs)
        run = lambda: rows_in @ weight  # noqa: E731
    record.update(group="matmul", model=model, rows=rows, product=product, direction=direction)
    record |= timed(benchmark, run, 2.0 * rows * inputs * outputs)


def make_heads(model: str, batch: int, tokens: int) -> list[Tensor]:
    sizes = MODELS[model]
    head = sizes["hidden_size"] // sizes["num_attention_heads"]
    counts = [sizes["num_attention_heads"], *[sizes["num_key_value_heads"]] * 2]
    return [normal(batch, tokens, count, head).transpose(1, 2).requires_grad_() for count in counts]


def attend(heads: list[Tensor]) -> Tensor:
    return F.scaled_dot_product_attention(*heads, is_causal=True, enable_gqa=True)


@pytest.mark.parametrize("model", ["1.5B", "7B"])
@pytest.mark.parametrize("tokens", ROWS)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_attention(
    benchmark: Any, record: dict[str, Any], model: str, tokens: int, backend: str, direction: str
) -> None:
    heads = make_heads(model, BATCHES[tokens], tokens)
    queries = heads[0]
    # Two products of half a square each forward, five backward.
    operations = 2.0 * queries.numel() * tokens * (1 if direction == "forward" else 2.5)
    record.update(model=model, tokens=tokens, backend=backend, direction=direction)
    with BACKENDS[backend]():
        chosen = torch._fused_sdp_choice(*heads, is_causal=True, enable_gqa=True)
        record.update(group="attention", chosen=SDPBackend(chosen).name)
        if direction == "forward":
            record |= timed(benchmark, lambda: attend(heads), operations)
            return
        output = attend(heads)
        grad = torch.randn_like(output)
        backward = partial(torch.autograd.grad, output, heads, grad, retain_graph=True)
        record |= timed(benchmark, backward, operations)


@pytest.mark.parametrize("backend", ["cudnn", "flash"])
@pytest.mark.parametrize("tokens", [1919, 2047, 4091, 8111])
def test_new_length(benchmark: Any, record: dict[str, Any], backend: str, tokens: int) -> None:
    """The first forward and backward at a length, and the second."""

    def both(tokens: int = tokens) -> float:
        heads = make_heads("7B", 1, tokens)
        torch.cuda.synchronize()
        start = perf_counter()
        torch.autograd.grad(attend(heads).sum(), heads)
        torch.cuda.synchronize()
        return perf_counter() - start

    with BACKENDS[backend]():
        both(128)  # loads the library
        first = benchmark.pedantic(both, rounds=1)
        second = both()
    record.update(group="new length", backend=backend, tokens=tokens)
    record.update(first_ms=1e3 * first, second_ms=1e3 * second)
