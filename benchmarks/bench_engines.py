"""A whole trace, end to end: every peer on the same inputs, in turns."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
import torch
from peers import PEERS, SAME_SCORES, Peer, available_peers, peer
from shapes import Shape, make_model, make_trace, path_flops

from segattr import EncodedTrace, SegmentScorer
from segattr.scores import jaccard

ON_GPU = torch.cuda.is_available()
DEVICE = "cuda" if ON_GPU else "cpu"


@lru_cache(maxsize=1)
def the_model(name: str) -> Any:
    return make_model(name)


class Case:
    """A shape's model and trace, the peers on it, and what the published loop kept."""

    def __init__(self, shape: Shape) -> None:
        self.model, self.trace = the_model(shape.model), make_trace(shape)
        self.peers: dict[str, Peer] = {
            name: peer(name, self.model, self.trace, shape.points) for name in available_peers()
        }
        self.flops = shape.points * path_flops(self.model, shape.tokens)
        self.published: torch.Tensor | None = None
        self.out_of_memory: set[str] = set()


@lru_cache(maxsize=1)
def the_case(shape: Shape) -> Case:
    return Case(shape)


@lru_cache(maxsize=1)
def matmul_ceiling() -> float:
    """Operations per second of one large product, the best of ten."""
    size, dtype = (8192, torch.bfloat16) if ON_GPU else (2048, torch.float32)
    left, right = (torch.randn(size, size, dtype=dtype, device=DEVICE) for _ in range(2))
    return 2 * size**3 / min(seconds(lambda: left @ right) for _ in range(10))


def seconds(run: Callable[[], object]) -> float:
    synchronise()
    start = perf_counter()
    run()
    synchronise()
    return perf_counter() - start


def synchronise() -> None:
    if ON_GPU:
        torch.cuda.synchronize()


class PeakMemory:
    """Bytes beyond what was in use before the run."""

    def __enter__(self) -> PeakMemory:
        gc.collect()
        if ON_GPU:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        else:
            ctypes.CDLL("libc.so.6").malloc_trim(0)  # freed memory would hide what the run takes
            Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        self.before = self._read("VmRSS", torch.cuda.memory_allocated)
        return self

    def __exit__(self, *_: object) -> None:
        self.bytes = self._read("VmHWM", torch.cuda.max_memory_allocated) - self.before

    @staticmethod
    def _read(line: str, of_gpu: Callable[[], int]) -> int:
        if ON_GPU:
            return of_gpu()
        status = Path("/proc/self/status").read_text()
        return 1024 * int(status.split(f"{line}:")[1].split()[0])


def kept_segments(trace: EncodedTrace, scores: torch.Tensor) -> torch.Tensor:
    return SegmentScorer().score_tokens(scores, trace.segments).kept


@pytest.mark.parametrize("variant", available_peers())
def test_trace(
    benchmark: Any, record: dict[str, Any], shape: Shape, repeat: int, variant: str
) -> None:
    case = the_case(shape)
    run = case.peers[variant]
    results: list[torch.Tensor] = []
    record.update(
        group="engines",
        shape=str(shape),
        model=shape.model,
        tokens=shape.tokens,
        points=shape.points,
        variant=variant,
        repeat=repeat,
    )
    if variant in case.out_of_memory:
        record["out_of_memory"] = True
        return
    try:
        if repeat == 0:
            run()
        with PeakMemory() as peak:
            benchmark.pedantic(lambda: (results.append(run()), synchronise()), rounds=1)
    except (torch.OutOfMemoryError, MemoryError):
        case.out_of_memory.add(variant)
        record["out_of_memory"] = True
        return
    record["peak_bytes"] = peak.bytes
    if variant not in SAME_SCORES:
        return
    kept = kept_segments(case.trace, results[-1])
    if variant == "published":
        case.published = kept
    record["ceiling_share"] = case.flops / benchmark.stats.stats.median / matmul_ceiling()
    if case.published is not None:
        record["kept_agreement"] = jaccard(kept, case.published)


test_trace.variants = PEERS
