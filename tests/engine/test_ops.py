"""Which implementation of the ops a tensor gets, and that both have the same face."""

from __future__ import annotations

import importlib.util
import inspect

import pytest
import torch

from segattr.engine import ops, reference

CPU = torch.zeros(1)


@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_a_cpu_tensor_gets_torch(backend):
    assert ops.choose(backend, CPU) is reference


def test_triton_runs_on_the_cpu_in_its_interpreter_only(monkeypatch):
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert ops.choose("triton", CPU).__name__ == "segattr_kernels"
    monkeypatch.delenv("TRITON_INTERPRET")
    with pytest.raises(RuntimeError, match="needs a CUDA tensor and Triton, got a tensor on cpu"):
        ops.choose("triton", CPU)


def test_without_triton(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert ops.choose("auto", CPU) is reference
    with pytest.raises(RuntimeError, match=r"on cpu and no Triton\. Pass backend='auto'"):
        ops.choose("triton", CPU)


def test_unknown_backend():
    with pytest.raises(
        ValueError, match="backend must be one of 'auto', 'torch', 'triton', got 'c'"
    ):
        ops.choose("c", CPU)


def test_kernels_have_the_signatures_of_their_definitions():
    pytest.importorskip("triton")
    import segattr_kernels as kernels

    for name in kernels.__all__:
        ours, definition = (getattr(module, name) for module in (kernels, reference))
        assert inspect.signature(ours) == inspect.signature(definition), name
