"""Every op alone, as torch, under torch.compile and as a Triton kernel, in turns.

Sizes are those of one chunk of the engine. ``elements`` counts what a fused op must read and write
at least once, so that bandwidth means the same for all variants.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import pytest
import torch
from torch import Tensor

from segattr.engine import ops, reference

ON_GPU = torch.cuda.is_available()
VARIANTS = ("torch", "torch.compile", "triton")


@dataclass(frozen=True)
class Size:
    """Path points, tokens, hidden size, MLP width, heads, key heads and head size of a chunk."""

    name: str
    K: int
    T: int
    D: int
    F: int
    H: int
    N: int
    E: int

    def __str__(self) -> str:
        return self.name


SIZES = (
    [Size("7B", 8, 2048, 3584, 18944, 28, 4, 128), Size("1.5B", 8, 2048, 1536, 8960, 12, 2, 128)]
    if ON_GPU
    else [Size("small", 2, 1024, 256, 688, 4, 2, 64)]
)


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, device=DEVICE, dtype=torch.bfloat16 if ON_GPU else torch.float32)


DEVICE = "cuda" if ON_GPU else "cpu"


def blend(s: Size) -> tuple[list[Any], float]:
    # reads T D 2, writes K T D
    return [random(s.T, s.D), random(s.T, s.D), torch.rand(s.K)], (2 + s.K) * s.T * s.D


def path_dot(s: Size) -> tuple[list[Any], float]:
    # reads T D (2 + K), writes K T
    arguments = [random(s.T, s.D), random(s.T, s.D), random(s.K, s.T, s.D)]
    return arguments, (2 + s.K) * s.T * s.D


def rms_norm(s: Size) -> tuple[list[Any], float]:
    # with the residual: reads K T D 2, writes K T D 2
    hidden, delta = (random(s.K, s.T, s.D) for _ in range(2))
    return [hidden, random(s.D), 1e-6, delta], 4 * hidden.numel()


def rms_norm_backward(s: Size) -> tuple[list[Any], float]:
    # with the residual: reads K T D 3, writes K T D
    grad, hidden, residual = (random(s.K, s.T, s.D) for _ in range(3))
    rstd = torch.rand(s.K, s.T, device=DEVICE)
    return [grad, hidden, random(s.D), rstd, residual], 4 * hidden.numel()


def swiglu(s: Size) -> tuple[list[Any], float]:
    # reads K T F 2, writes K T F
    gate, up = (random(s.K, s.T, s.F) for _ in range(2))
    return [gate, up], 3 * gate.numel()


def swiglu_backward(s: Size) -> tuple[list[Any], float]:
    # reads K T F 3, writes K T F 2
    grad, gate, up = (random(s.K, s.T, s.F) for _ in range(3))
    return [grad, gate, up], 5 * grad.numel()


def rope(s: Size) -> tuple[list[Any], float]:
    # reads and writes K T H E
    heads = random(s.K, s.T, s.H, s.E)
    return [heads, random(s.T, s.E), random(s.T, s.E)], 2 * heads.numel()


def rope_backward(s: Size) -> tuple[list[Any], float]:
    # reads and writes K T H E
    return rope(s)


def rope_with_norm(s: Size) -> tuple[list[Any], float]:
    # reads and writes K T H E
    arguments, elements = rope(s)
    return [*arguments, random(s.E), 1e-6], elements


def rope_with_norm_backward(s: Size) -> tuple[list[Any], float]:
    # reads K T H E 2, writes K T H E
    (grad, cos, sin), elements = rope(s)
    heads = random(s.K, s.T, s.H, s.E)
    return [grad, cos, sin, heads, random(s.E), 1e-6], 1.5 * elements


def rms_norm_secant(s: Size) -> tuple[list[Any], float]:
    # with the residual, between K points: reads T D (3 K - 2), writes T D (K - 1)
    grad, residual = (random(s.K - 1, s.T, s.D) for _ in range(2))
    arguments = [grad, random(s.K, s.T, s.D), random(s.D), 1e-6, residual]
    return arguments, (4 * s.K - 3) * s.T * s.D


def rms_norm_secant_of_heads(s: Size) -> tuple[list[Any], float]:
    # between K points: reads T H E (2 K - 1), writes T H E (K - 1)
    grad, heads = random(s.K - 1, s.T, s.H, s.E), random(s.K, s.T, s.H, s.E)
    return [grad, heads, random(s.E), 1e-6], (3 * s.K - 2) * s.T * s.H * s.E


def swiglu_secant(s: Size) -> tuple[list[Any], float]:
    # between K points: reads T F (3 K - 1), writes T F (2 K - 2)
    gate, up = (random(s.K, s.T, s.F) for _ in range(2))
    return [random(s.K - 1, s.T, s.F), gate, up], (5 * s.K - 3) * s.T * s.F


def attention_secant(s: Size) -> tuple[list[Any], float]:
    # one piece: reads T E (3 H + 4 N), writes T E (H + 2 N); arithmetic takes longer than either
    grad, queries = (random(points, s.T, s.H, s.E) for points in (1, 2))
    keys, values = (random(2, s.T, s.N, s.E) for _ in range(2))
    return [grad, queries, keys, values, s.E**-0.5], (4 * s.H + 6 * s.N) * s.T * s.E


OPS = {
    make.__name__: make
    for make in (
        blend,
        path_dot,
        rms_norm,
        rms_norm_backward,
        swiglu,
        swiglu_backward,
        rope,
        rope_backward,
        rope_with_norm,
        rope_with_norm_backward,
        rms_norm_secant,
        rms_norm_secant_of_heads,
        swiglu_secant,
        attention_secant,
    )
}


@lru_cache(maxsize=1)
def inputs(op: str, size: Size) -> tuple[list[Any], float]:
    torch.manual_seed(0)
    return OPS[op](size)


@cache
def implementation(op: str, variant: str) -> Callable[..., object]:
    name = op.replace("_with_norm", "").replace("_of_heads", "")
    module = (
        ops.choose("triton", torch.empty(0, device=DEVICE)) if variant == "triton" else reference
    )
    function = getattr(module, name)
    return torch.compile(function, dynamic=False) if variant == "torch.compile" else function


def fresh(arguments: list[Any]) -> list[Any]:
    """Ops write into their arguments."""
    return [value.clone() if isinstance(value, Tensor) else value for value in arguments]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_op(
    benchmark: Any, record: dict[str, Any], op: str, size: Size, repeat: int, variant: str
) -> None:
    if variant == "triton" and not (ON_GPU and importlib.util.find_spec("triton")):
        pytest.skip("needs CUDA and Triton")
    if (op, variant) == ("attention_secant", "torch.compile"):
        pytest.skip("would be unrolled: loops over heads and blocks")
    arguments, elements = inputs(op, size)
    function = implementation(op, variant)

    def run(*some: Any) -> None:
        function(*some)
        if ON_GPU:
            torch.cuda.synchronize()

    def setup() -> tuple[tuple[Any, ...], dict]:
        some = tuple(fresh(arguments))
        if ON_GPU:
            torch.cuda.synchronize()
        return some, {}

    benchmark.pedantic(run, setup=setup, rounds=10, warmup_rounds=3)
    value = next(value for value in arguments if isinstance(value, Tensor))
    gigabytes = elements * value.element_size() / 1e9
    record.update(
        group="ops",
        op=op,
        size=str(size),
        variant=variant,
        repeat=repeat,
        gigabytes_per_second=gigabytes / benchmark.stats.stats.median,
    )


test_op.variants = VARIANTS
