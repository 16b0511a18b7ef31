"""OpenRLHF's own data code and loss on what we export for it."""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from segattr.export import Variant, export

openrlhf = pytest.importorskip("openrlhf", reason="needs OpenRLHF: make test-trainers")


def weighted_rows(folder, tokenizer, max_length=4096):
    from openrlhf.datasets.utils import blending_datasets

    path = folder / "segattr_openrlhf.py"
    spec = importlib.util.spec_from_file_location("segattr_openrlhf", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    strategy = SimpleNamespace(print=lambda *_: None, is_rank_0=lambda: True)
    data = blending_datasets(str(folder / "data.parquet"), None, strategy, 42, max_count=10**8)
    return module.WeightedRows(data, tokenizer, max_length, strategy, input_template=None)


def their_loss():
    """`openrlhf.models.loss` without the package around it, which imports flash-attn."""
    sys.modules.setdefault("deepspeed", types.ModuleType("deepspeed"))
    package = types.ModuleType("openrlhf.models")
    package.__path__ = [str(Path(openrlhf.__file__).parent / "models")]
    sys.modules["openrlhf.models"] = package
    from openrlhf.models.loss import SFTLoss

    return SFTLoss()


@pytest.mark.parametrize("option", [{}, {"weighting": "strength"}, {"normalize": "trace"}], ids=str)
def test_openrlhf_trains_with_our_weights(scored_traces, tokenizer, tmp_path, option):
    variant = Variant(**option)
    export(scored_traces, "openrlhf", tmp_path / "export", variant)
    rows = [variant.row(record) for record in scored_traces]
    data = weighted_rows(tmp_path / "export", tokenizer)
    ids, attention, mask = data.collate_fn([data[index] for index in range(len(data))])
    assert len(ids) == len(rows)
    for number, row in enumerate(rows):
        length = int(attention[number].sum())
        assert ids[number, :length].tolist() == row["input_ids"]
        # Shifted: entry t weighs the prediction of token t + 1.
        expected = [*row["loss_weights"][1:], 0.0]
        assert mask[number, :length].tolist() == pytest.approx(expected, rel=1e-6)
    logprobs = -torch.rand(ids.shape[0], ids.shape[1] - 1)
    total = sum(sum(row["loss_weights"]) for row in rows)
    loss = their_loss()(logprobs, mask[:, :-1], batch_num_tokens=total)
    by_hand = -sum(
        float(logprobs[number, t - 1]) * weight
        for number, row in enumerate(rows)
        for t, weight in enumerate(row["loss_weights"])
        if t
    )
    assert float(loss) == pytest.approx(by_hand / total, rel=1e-5)


def test_long_rows_are_refused(scored_traces, tokenizer, tmp_path):
    export(scored_traces, "openrlhf", tmp_path / "export")
    with pytest.raises(ValueError, match=r"must be at least \d+, the longest row, got 9"):
        weighted_rows(tmp_path / "export", tokenizer, max_length=9)
