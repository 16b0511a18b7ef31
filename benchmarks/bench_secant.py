"""One piece of finite propagation against one path point of Integrated Gradients, in turns.

Both on the fused engine and one trace at a time. A piece has F at both of its ends with it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import pytest
from bench_engines import ON_GPU, PeakMemory, synchronise
from shapes import Shape, make_model, make_trace

from segattr import FastIG
from segattr.ig import Secant

LENGTHS = [("1.5B", 8_000), ("7B", 2_000), ("7B", 8_000), ("7B", 32_000)] if ON_GPU else []
LENGTHS = LENGTHS or [("small", tokens) for tokens in (1_000, 2_000, 4_000, 8_000)]
VARIANTS = ("path point", "piece, mean split", "piece, content split")


@lru_cache(maxsize=1)
def the_model(name: str) -> Any:
    return make_model(name)


def the_run(size: Shape, variant: str) -> Callable[[], object]:
    model, trace = the_model(size.model), make_trace(size)
    if variant == "path point":
        ig = FastIG(model, rule="auto", scope="all")
        return lambda: ig.integrand(trace, [0.5])
    ig = FastIG(model, rule=Secant(split=variant.split()[1]), scope="all")
    return lambda: ig.attribute(trace)


@pytest.mark.parametrize("size", [Shape(*length, 1) for length in LENGTHS], ids=str)
@pytest.mark.parametrize("variant", VARIANTS)
def test_piece(
    benchmark: Any, record: dict[str, Any], size: Shape, repeat: int, variant: str
) -> None:
    run = the_run(size, variant)
    run()  # the first time, the model is compared with the engine
    with PeakMemory() as peak:
        benchmark.pedantic(lambda: (run(), synchronise()), rounds=1)
    record.update(
        group="secant cost",
        model=size.model,
        tokens=size.tokens,
        variant=variant,
        repeat=repeat,
        peak_bytes=peak.bytes,
    )


test_piece.variants = VARIANTS
