"""How many path points go through the model at once, and what happens when memory runs out.

Bytes per token that a frozen decoder layer keeps for its backward pass, at ``b`` bytes a number.
Through autograd: two norms in float32 (8 D), queries, keys, values and attention output
(2 b (Q + KV)), gate, its activation and up (3 b F), and 12 bytes per head of statistics. Fused: two
residuals (2 b D), the same of the attention (and b (Q + KV) before Qwen3's head norms), gate and up
(2 b F), 8 bytes for two norms and 4 per head. tests/engine/test_planner.py measures the former,
tests/engine/test_fused.py the latter.
Axes: ``K`` path points, ``T`` tokens, ``A`` answer tokens, ``D`` hidden size, ``Q`` and ``KV``
query and key width, ``F`` MLP width, ``V`` vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import psutil
import torch
from torch import Tensor, nn

# More tokens at once do not make matrix products faster; they only take memory.
CHUNK_TOKENS = {"cuda": 16384, "cpu": 2048}
# Share of the free memory to plan with: the estimate leaves out what libraries take for themselves.
USABLE = 0.8
GIB = 2**30

Evaluate = Callable[[Tensor, bool], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Load:
    """What one path point of a trace is: tokens, answer tokens, and the engine it goes through."""

    num_tokens: int
    num_targets: int
    fused: bool = False


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
    """Chooses chunks for one model, and learns when its estimate was too low.

    Args:
        model: The causal LM.
        max_memory: Bytes it may use beyond what is in use now; ``None``: 80 % of what is free.
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

    def plan(self, load: Load, num_points: int) -> Plan:
        """Return the largest chunk expected to fit; recompute if not even one point is."""
        device = next(self.model.parameters()).device.type
        most = max(
            1, min(num_points, CHUNK_TOKENS.get(device, CHUNK_TOKENS["cuda"]) // load.num_tokens)
        )
        budget = self.budget()
        for recompute in (False, True):
            estimate = self.bytes_per_point(load, recompute)
            points = int(budget // (self.correction * estimate))
            if points >= 1:
                return Plan(min(most, points), recompute)
        return Plan(1, recompute=True)

    def run(self, alphas: Tensor, evaluate: Evaluate, load: Load) -> tuple[Tensor, Tensor]:
        """Evaluate all path points in chunks.

        Chunks that are done stay done when a later one runs out of memory.

        Returns:
            F at the path points, ``[K]``, and each token's integrand there, ``[K, T]``, both on
            the CPU.

        Raises:
            MemoryError: If one point with recomputed layers does not fit.
        """
        plan = self.plan(load, len(alphas))
        chunks: list[tuple[Tensor, Tensor]] = []
        tried: list[Plan] = []
        done = 0
        while done < len(alphas):
            chunk = slice(done, done + plan.points)
            outcome = _unless_out_of_memory(evaluate, alphas[chunk], plan.recompute)
            if outcome is None:
                tried.append(plan)
                plan = self._after_failure(tried, load)
                continue
            logprobs, values = outcome
            chunks.append((logprobs.cpu(), values.cpu()))
            done += len(logprobs)
        if tried:
            self._learn(plan, load)
        return torch.cat([f for f, _ in chunks]), torch.cat([g for _, g in chunks])

    def _after_failure(self, tried: list[Plan], load: Load) -> Plan:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if (smaller := tried[-1].smaller()) is not None:
            return smaller
        needed = self.bytes_per_point(load, recompute=True) / GIB
        available = self.budget() / GIB
        raise MemoryError(
            f"{load.num_tokens} tokens must fit in memory, got out of memory with every plan tried "
            f"({'; '.join(map(str, tried))}). {available:.2f} GiB may be used beyond the weights; "
            f"one point with recomputed layers needs {max(needed, available):.2f} GiB or more. "
            "Use a lower dtype, shard with device_map, or skip the trace."
        )

    def _learn(self, plan: Plan, load: Load) -> None:
        """Correct the estimate so that a trace like this one starts with the plan that worked."""
        estimate = self.bytes_per_point(load, recompute=False)
        points = 0.999 if plan.recompute else plan.points + 0.5
        self.correction = max(self.correction, self.budget() / (points * estimate))

    def budget(self) -> float:
        """Bytes that may be used now."""
        if self.max_memory is not None:
            return float(self.max_memory)
        devices = {parameter.device for parameter in self.model.parameters()}
        return USABLE * min(_free_bytes(device) for device in devices) * len(devices)

    def bytes_per_point(self, load: Load, recompute: bool) -> float:
        """Estimated peak bytes of one path point's forward and backward pass."""
        config = self.model.config.get_text_config()  # type: ignore[union-attr, operator]
        size = next(self.model.parameters()).element_size()
        hidden, layers = config.hidden_size, config.num_hidden_layers
        layer = _layer_bytes(config, size, load)
        kept = layers * (size * hidden if recompute else layer)
        # The gradients inside one layer; the points and their gradients.
        working = 2 * layer + 2 * size * hidden + 8 * hidden
        logits = load.num_targets * config.vocab_size * (size + 12)
        return float(load.num_tokens * (kept + working) + logits)


def _layer_bytes(config: object, size: int, load: Load) -> float:
    """Bytes one frozen layer keeps per token."""

    def get(name: str, default: int) -> int:
        value = getattr(config, name, None)
        return default if value is None else int(value)

    hidden, heads = get("hidden_size", 0), get("num_attention_heads", 1)
    head_dim = get("head_dim", hidden // heads)
    queries, keys = heads * head_dim, get("num_key_value_heads", heads) * head_dim
    experts = get("num_experts_per_tok", 0)
    width = get("intermediate_size", get("n_inner", 4 * hidden))
    if load.fused:
        norms = 2 * size * hidden + 2 * max(size, 4)
        unrotated = size * (queries + keys) if getattr(config, "model_type", "") == "qwen3" else 0
        statistics = max(size, 4) * heads
        return norms + 2 * size * (queries + keys) + unrotated + statistics + 2 * size * width
    if experts:
        width = experts * get("moe_intermediate_size", width)
        width += get("shared_expert_intermediate_size", 0)
    attention = 2 * size * (queries + keys) + 12 * heads
    if getattr(config, "_attn_implementation", None) == "eager":
        attention += heads * load.num_tokens * (size + 4)  # the softmax, in float32 and cast
    return 8 * hidden + attention + 3 * size * width


def _free_bytes(device: torch.device) -> float:
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return float(psutil.virtual_memory().available)


def _unless_out_of_memory(
    evaluate: Evaluate, alphas: Tensor, recompute: bool
) -> tuple[Tensor, Tensor] | None:
    """The chunk's result, or None if memory ran out; what the failed attempt held is released."""
    try:
        return evaluate(alphas, recompute)
    except (torch.OutOfMemoryError, MemoryError):
        return None
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):  # what the CPU allocator says
            raise
        return None
