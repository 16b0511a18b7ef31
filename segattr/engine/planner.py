"""How many path points go through the model at once, and what happens when memory runs out.

Axes: ``K`` path points or pieces, ``T`` tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import psutil
import torch
from torch import Tensor, nn

from segattr.engine.model import devices

# More tokens at once do not make matrix products faster; they only take memory.
CHUNK_TOKENS = {"cuda": 16384, "cpu": 2048}
# Share of the free memory to plan with: the estimate leaves out what libraries take for themselves.
USABLE = 0.8
GIB = 2**30


class Work(Protocol):
    """What can be done in chunks: an engine's path points, or `Pieces`."""

    num_tokens: int

    def evaluate(self, points: Tensor, recompute: bool) -> tuple[Tensor, Tensor]: ...

    def bytes_per_point(self, recompute: bool) -> float: ...


@dataclass(frozen=True)
class Plan:
    """``points`` path points at once, with or without recomputed layers."""

    points: int
    recompute: bool

    def smaller(self) -> Plan | None:
        """What to try after running out of memory: half the points, then recomputing, then None."""
        if self.points > 1:
            return replace(self, points=self.points // 2)
        return None if self.recompute else replace(self, recompute=True)

    def __str__(self) -> str:
        return f"{self.points} at once" + (" with recomputed layers" if self.recompute else "")


class Planner:
    """Chooses chunks for one model, and learns when an engine's estimate was too low.

    Args:
        model: The causal LM.
        max_memory: Bytes it may use beyond what is in use now; ``None``: 80 % of what is free.

    Raises:
        ValueError: If ``max_memory`` is not positive.
    """

    def __init__(self, model: nn.Module, max_memory: int | None = None) -> None:
        if max_memory is not None and max_memory <= 0:
            raise ValueError(
                f"max_memory must be a positive number of bytes, got {max_memory}. None takes "
                "what is free."
            )
        self.model = model
        self.max_memory = max_memory
        self.correction = 1.0

    def plan(self, work: Work, num_points: int) -> Plan:
        """Return the largest chunk expected to fit; recompute if not even one point is."""
        device = devices(self.model)[0].type
        chunk_tokens = CHUNK_TOKENS.get(device, CHUNK_TOKENS["cuda"])
        most = max(1, min(num_points, chunk_tokens // work.num_tokens))
        budget = self.budget()
        for recompute in (False, True):
            points = int(budget // (self.correction * work.bytes_per_point(recompute)))
            if points >= 1:
                return Plan(min(most, points), recompute)
        return Plan(1, recompute=True)

    def run(self, points: Tensor, work: Work) -> tuple[Tensor, Tensor]:
        """Evaluate all path points, or pieces, in chunks.

        Chunks that are done stay done when a later one runs out of memory.

        Returns:
            F at the path points, ``[K]``, and each token's integrand there, ``[K, T]``, both on
            the CPU; or what pieces give.

        Raises:
            MemoryError: If one point with recomputed layers does not fit.
        """
        plan = self.plan(work, len(points))
        chunks: list[tuple[Tensor, Tensor]] = []
        tried: list[Plan] = []
        done = 0
        while done < len(points):
            chunk = slice(done, done + plan.points)
            outcome = _unless_out_of_memory(work, points[chunk], plan.recompute)
            if outcome is None:
                tried.append(plan)
                plan = self._after_failure(tried, work)
                continue
            logprobs, values = outcome
            chunks.append((logprobs.cpu(), values.cpu()))
            done += len(logprobs)
        if tried:
            self._learn(plan, work)
        return torch.cat([f for f, _ in chunks]), torch.cat([g for _, g in chunks])

    def _after_failure(self, tried: list[Plan], work: Work) -> Plan:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if (smaller := tried[-1].smaller()) is not None:
            return smaller
        needed = work.bytes_per_point(recompute=True) / GIB
        available = self.budget() / GIB
        raise MemoryError(
            f"{work.num_tokens} tokens must fit in memory, got out of memory with every plan "
            f"tried ({'; '.join(map(str, tried))}). {available:.2f} GiB may be used beyond the "
            "weights; that many with recomputed layers need "
            f"{max(needed, available):.2f} GiB or more. "
            "Use a lower dtype, shard with device_map, or skip the trace."
        )

    def _learn(self, plan: Plan, work: Work) -> None:
        """Correct the estimate so that a trace like this one starts with the plan that worked."""
        estimate = work.bytes_per_point(recompute=False)
        points = 0.999 if plan.recompute else plan.points + 0.5
        self.correction = max(self.correction, self.budget() / (points * estimate))

    def budget(self) -> float:
        """Bytes that may be used now."""
        if self.max_memory is not None:
            return float(self.max_memory)
        used = devices(self.model)
        return USABLE * min(map(_free_bytes, used)) * len(used)


def _free_bytes(device: torch.device) -> float:
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return float(psutil.virtual_memory().available)


def _unless_out_of_memory(
    work: Work, points: Tensor, recompute: bool
) -> tuple[Tensor, Tensor] | None:
    """The chunk's result, or None if memory ran out; what the failed attempt held is released."""
    try:
        return work.evaluate(points, recompute)
    except (torch.OutOfMemoryError, MemoryError):
        return None
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):  # what the CPU allocator says
            raise
        return None
