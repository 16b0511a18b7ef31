"""transformers.Trainer on collated rows against a masked cross-entropy written by hand."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import make_model, make_trace
from transformers import Trainer, TrainingArguments

from segattr import FastIG, LossMaskCollator, SegmentScorer, training_row

ROWS = 4


@pytest.fixture(scope="module")
def rows():
    model = make_model("qwen2")
    ig, scorer = FastIG(model, rule="midpoint", steps=4), SegmentScorer(tau=0.4, beta=1.0)
    traces = [make_trace(seed=seed) for seed in range(ROWS)]
    rows = [training_row(trace, scorer.score(ig.attribute(trace))) for trace in traces]
    for index, row in enumerate(rows):  # different lengths, so there is padding
        for column in row.values():
            del column[20 + index :]
    return rows


def masked_cross_entropy(model, rows) -> torch.Tensor:
    """Mean over all tokens with loss of all rows, one row at a time, no padding."""
    total, count = 0.0, 0
    for row in rows:
        logits = (
            model(torch.tensor([row["input_ids"]]), use_cache=False)
            .logits[0]
            .double()
            .log_softmax(-1)
        )
        for position, label in enumerate(row["labels"]):
            if label != -100:
                total = total - logits[position - 1, label]
                count += 1
    return total / count


@pytest.mark.parametrize(("batch", "accumulation"), [(4, 1), (2, 2), (1, 4)])
def test_loss_and_gradient_equal_masked_cross_entropy(rows, tmp_path, batch, accumulation):
    """With plain SGD at rate 1, one step subtracts exactly the gradient."""
    model = make_model("qwen2")
    expected_loss = masked_cross_entropy(model, rows)
    expected = torch.autograd.grad(expected_loss, list(model.parameters()))
    before = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        max_steps=1,
        max_grad_norm=0.0,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        save_strategy="no",
        dataloader_pin_memory=False,
    )
    trainer = Trainer(
        model,
        arguments,
        train_dataset=rows,
        data_collator=LossMaskCollator(0),
        optimizers=(optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)),
    )
    loss = trainer.train().training_loss
    assert loss == pytest.approx(expected_loss.item(), rel=1e-6)
    scale = max(gradient.abs().max() for gradient in expected)
    for old, new, gradient in zip(before.parameters(), model.parameters(), expected, strict=True):
        assert ((old - new) - gradient).abs().max() <= 1e-6 * scale


def test_batch_loss_equals_masked_cross_entropy(rows):
    model = make_model("qwen2")
    loss = model(**LossMaskCollator(0)(rows), use_cache=False).loss
    expected = masked_cross_entropy(model, rows)
    # The model's loss over a batch is the mean over all tokens with loss.
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)


def test_a_kept_set_of_everything_is_plain_fine_tuning(rows):
    model = make_model("qwen2")
    full = [{**row, "labels": [-100, *row["input_ids"][1:]]} for row in rows]
    plain = [{"input_ids": row["input_ids"], "labels": list(row["input_ids"])} for row in rows]
    masked, stock = (
        model(**LossMaskCollator(0)(batch), use_cache=False).loss for batch in (full, plain)
    )
    assert masked.item() == stock.item()
