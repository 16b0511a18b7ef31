"""Every kernel compiled ahead of time for the GPUs it is meant for, at the sizes of real models.

A subprocess without the interpreter calls the launchers themselves on small CPU tensors, with a
driver that only names the GPU: what is compiled is what would be launched, shapes, alignment and
warps included. Nothing may spill from registers to memory.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

pytest.importorskip("triton")

KERNELS = [
    "blend",
    "path_dot",
    "rms_norm",
    "rms_norm_without_delta",
    "rms_norm_backward",
    "rms_norm_backward_without_residual",
    "rms_norm_secant",
    "rms_norm_secant_without_residual",
    "rms_norm_secant_of_heads",
    "swiglu",
    "swiglu_backward",
    "swiglu_secant",
    "rope",
    "rope_with_norm",
    "rope_backward",
    "rope_backward_with_norm",
]
ATTENTION_KERNELS = ["log_sum_exp", "centre", "to_queries", "to_tokens"]  # as launched
CAPABILITIES = {80: 163, 90: 227}  # A100, H100 and H200: KiB of shared memory a program may have
DTYPES = ["bfloat16", "float32"]
WIDTHS = [3584, 8192]  # Qwen2-7B and Llama-70B, with 28 and 64 heads of 128
HEAD_SIZES = [64, 128]
SPLITS = ["mean", "content"]


def _calls(dtype: str, width: int) -> list:
    """One call of a launcher per name in KERNELS."""
    import segattr_kernels as ops
    import torch

    rows = torch.zeros(3, width, dtype=getattr(torch, dtype))
    weight, alphas, rstd = rows[0], torch.zeros(2), torch.zeros(3)
    heads = rows.view(1, 3, -1, 128)
    angles = heads[0, :, 0].contiguous()
    norm = (weight[:128], 1e-6)
    return [
        lambda: ops.blend(rows, rows, alphas),
        lambda: ops.path_dot(rows, rows, rows.expand(2, 3, -1)),
        lambda: ops.rms_norm(rows, weight, 1e-6, rows),
        lambda: ops.rms_norm(rows, weight, 1e-6),
        lambda: ops.rms_norm_backward(rows, rows, weight, rstd, rows),
        lambda: ops.rms_norm_backward(rows, rows, weight, rstd),
        lambda: ops.rms_norm_secant(rows[:2], rows, weight, 1e-6, rows[1:]),
        lambda: ops.rms_norm_secant(rows[:2], rows, weight, 1e-6),
        lambda: ops.rms_norm_secant(heads[0, :2], heads[0], *norm),
        lambda: ops.swiglu(rows, rows),
        lambda: ops.swiglu_backward(rows, rows, rows),
        lambda: ops.swiglu_secant(rows[:2], rows, rows),
        lambda: ops.rope(heads, angles, angles),
        lambda: ops.rope(heads, angles, angles, *norm),
        lambda: ops.rope_backward(heads, angles, angles),
        lambda: ops.rope_backward(heads, angles, angles, heads, *norm),
    ]


def _attend(dtype: str, head_size: int, split: str) -> None:
    import segattr_kernels as ops
    import torch

    queries = torch.zeros(2, 3, 4, head_size, dtype=getattr(torch, dtype))
    keys = queries[:, :, :2].contiguous()
    ops.attention_secant(queries[:1], queries, keys, keys, 0.125, split=split)


def _compile_all(folder: Path) -> None:
    """Runs in the subprocess: write every cubin, and its PTX, into the folder."""
    from triton.backends.compiler import GPUTarget
    from triton.runtime import JITFunction, driver

    class NamedGPU:
        """As a driver, all that compiling asks of one."""

        capability = 0

        def get_current_device(self) -> int:
            return self.capability  # also keeps the in-memory caches of the GPUs apart

        def get_current_stream(self, device: int) -> int:
            return 0

        def get_current_target(self) -> GPUTarget:
            return GPUTarget("cuda", self.capability, 32)

    compiled: list = []  # what launching a kernel leaves here instead of running it
    gpu = NamedGPU()
    driver.set_active(gpu)
    JITFunction.__getitem__ = lambda kernel, grid: (
        lambda *args, **options: compiled.append(kernel.warmup(*args, grid=grid, **options))
    )

    def keep(*names: str) -> None:
        for name, kernel in zip(names, compiled, strict=True):
            assert kernel.metadata.target.arch == gpu.capability
            assert kernel.metadata.shared <= 1024 * CAPABILITIES[gpu.capability]
            place = folder / name
            place.write_bytes(kernel.asm["cubin"])
            place.with_suffix(".ptx").write_text(kernel.asm["ptx"])
        compiled.clear()

    for gpu.capability, dtype, width in product(CAPABILITIES, DTYPES, WIDTHS):
        for name, call in zip(KERNELS, _calls(dtype, width), strict=True):
            call()
            keep(_file(name, gpu.capability, dtype, width))
    for gpu.capability, dtype, size, split in product(CAPABILITIES, DTYPES, HEAD_SIZES, SPLITS):
        _attend(dtype, size, split)
        keep(*(_file(f"{n}-{split}", gpu.capability, dtype, size) for n in ATTENTION_KERNELS))


def _file(kernel: str, capability: int, dtype: str, size: int) -> str:
    return f"{kernel}-{capability}-{dtype}-{size}.cubin"


@pytest.fixture(scope="session")
def cubins(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cubins")
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    run = subprocess.run(
        [sys.executable, __file__, str(folder)],
        env={**environment, "TRITON_CACHE_DIR": str(folder / "cache")},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    return folder


def _resources(cubin: Path) -> dict[str, int]:
    """Registers, stack and local memory of a kernel, by the disassembler Triton brings along."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    text = subprocess.run(
        [tool, "--dump-resource-usage", cubin], capture_output=True, text=True, check=True
    ).stdout
    return {name: int(value) for name, value in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", text)}


SIZES = [
    *product(KERNELS, WIDTHS),
    *product(map("-".join, product(ATTENTION_KERNELS, SPLITS)), HEAD_SIZES),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize(("kernel", "size"), SIZES)
@pytest.mark.slow(reason="compiles every kernel for eight targets")
def test_nothing_spills(cubins, kernel, capability, dtype, size):
    used = _resources(cubins / _file(kernel, capability, dtype, size))
    assert used["REG"] > 0
    # Spilled registers live on the stack or in local memory.
    assert used["STACK"] == used["LOCAL"] == 0, used


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kernel", ["rms_norm", "rope", "rope_with_norm"])
@pytest.mark.slow(reason="compiles every kernel for eight targets")
def test_no_product_goes_into_a_sum_unrounded(cubins, kernel, dtype):
    """The interpreter cannot show this, nor can sm_80, whose bfloat16 products are fmas with 0."""
    ptx = (cubins / _file(kernel, 90, dtype, 3584)).with_suffix(".ptx").read_text()
    assert "mul" in ptx
    assert "fma." not in ptx


if __name__ == "__main__":
    _compile_all(Path(sys.argv[1]))
