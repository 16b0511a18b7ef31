"""Masks and token weights in real trainers, against a weighted cross-entropy written by hand.

SFTTrainer runs where TRL is installed: ``make test-trainers``, with three versions of it.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny import make_model
from torch import Tensor
from training_runs import HAS_TRL, WeightedTrainer, one_step, settings, sft_trainer
from transformers import Trainer, TrainingArguments

from segattr import LossMaskCollator, TokenWeightMixin
from segattr.training.trainers import (
    _refuse_what_drops_weights,
    _WeightedModel,
    weighted_cross_entropy,
)

LIBRARIES = ["transformers"] + ["trl"] * HAS_TRL

pytestmark = pytest.mark.filterwarnings("ignore")  # what trainers warn of is not ours


def masked(rows):
    """The same rows as masks: every weight above 0 is 1."""
    return [{**row, "loss_weights": [float(w > 0) for w in row["loss_weights"]]} for row in rows]


def mean_by_hand(model, rows) -> Tensor:
    """Weighted mean over the tokens of all rows, one row at a time, no padding."""
    total, weight = 0.0, 0.0
    for row in rows:
        ids = torch.tensor([row["input_ids"]])
        logprobs = model(ids, use_cache=False).logits[0].double().log_softmax(-1)
        for position, w in enumerate(row["loss_weights"]):
            total = total - w * logprobs[position - 1, row["input_ids"][position]]
            weight += w
    return total / weight


def mean_of_traces_by_hand(model, rows) -> Tensor:
    """Eq. 9: the mean over traces of each one's own weighted mean."""
    return sum(mean_by_hand(model, [row]) for row in rows) / len(rows)


def one_row(*rows) -> dict:
    """Rows packed into one, by hand."""
    names = ("input_ids", "labels", "loss_weights")
    columns = {name: [value for row in rows for value in row[name]] for name in names}
    return {**columns, "seq_lengths": [len(row["input_ids"]) for row in rows]}


def adapted(model):
    """With LoRA, whose B matrices are not 0, so that all of it has a gradient."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(3)
    config = LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    return get_peft_model(model, config).double()


def packed(rows, length: int = 64):
    import datasets
    import trl

    keep = ("input_ids", "labels", "loss_weights")
    data = datasets.Dataset.from_list([{name: row[name] for name in keep} for row in rows])
    return trl.pack_dataset(data, length, "bfd")


def assert_gradients_equal(got, expected):
    scale = max(gradient.abs().max() for gradient in expected)
    for mine, theirs in zip(got, expected, strict=True):
        assert (mine - theirs).abs().max() <= 1e-6 * scale


LAYOUTS = ["padded", "padding-free"] + ["packed"] * HAS_TRL
OPTIONS = {
    "plain": {},
    "lora": {},
    "checkpointing": {
        "gradient_checkpointing": True,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
    },
}


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("weighted", [True, False], ids=["weights", "mask"])
@pytest.mark.parametrize(
    "accumulation", [1, 2, pytest.param(4, marks=pytest.mark.slow(reason="36 trainings in all"))]
)
def test_loss_and_gradient_equal_those_by_hand(
    weighted_rows, tmp_path, library, layout, option, weighted, accumulation
):
    rows = weighted_rows if weighted else masked(weighted_rows)
    model = make_model("qwen2")
    model = adapted(model) if option == "lora" else model
    by_hand = mean_by_hand(model, rows)
    trained = [p for p in model.parameters() if p.requires_grad]
    expected = torch.autograd.grad(by_hand, trained)
    data = packed(rows) if layout == "packed" else rows
    accumulation = min(accumulation, len(data))
    collator = LossMaskCollator(0, flatten=layout != "padded", emit_weights=weighted)
    loss, got = one_step(
        model,
        data,
        collator,
        tmp_path,
        batch=len(data) // accumulation,
        accumulation=accumulation,
        library=library,
        weighted=weighted,
        **OPTIONS[option],
    )
    assert loss == pytest.approx(by_hand.item(), rel=1e-6)
    assert_gradients_equal(got, expected)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("layout", [*LAYOUTS, "uneven packs"])
@pytest.mark.parametrize("weighted", [True, False], ids=["weights", "mask"])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_every_trace_counts_the_same_if_asked(
    weighted_rows, tmp_path, library, layout, weighted, accumulation
):
    """Eq. 9, whatever the layout and however many traces a batch of a step has."""
    rows = weighted_rows if weighted else masked(weighted_rows)
    model = make_model("qwen2")
    by_hand = mean_of_traces_by_hand(model, rows)
    assert abs(by_hand - mean_by_hand(model, rows)) > 1e-3 * by_hand
    expected = torch.autograd.grad(by_hand, list(model.parameters()))
    data = packed(rows) if layout == "packed" else rows
    if layout == "uneven packs":  # three traces and one without loss, then one
        silent = {**rows[1], "loss_weights": [0.0] * len(rows[1]["loss_weights"])}
        data = [one_row(rows[0], silent, *rows[1:3]), rows[3]]
    accumulation = min(accumulation, len(data))
    collator = LossMaskCollator(
        0, flatten=layout != "padded", emit_weights=True, normalize="trace", pad_to_multiple_of=8
    )
    loss, got = one_step(
        model,
        data,
        collator,
        tmp_path,
        batch=len(data) // accumulation,
        accumulation=accumulation,
        library=library,
    )
    assert loss == pytest.approx(by_hand.item(), rel=1e-6)
    assert_gradients_equal(got, expected)


TWO_PROCESSES = """
import json, os, sys
sys.path += {folders!r}
import torch
from tiny import make_model
from segattr import LossMaskCollator
from training_runs import one_step
with open("rows.json") as file:
    rows = json.load(file)
collator = LossMaskCollator(0, emit_weights=True, **{options!r})
loss, got = one_step(make_model("qwen2"), rows, collator, "out", batch=1,
                     accumulation={accumulation}, ddp_backend="gloo")
torch.save((loss, got), f"got-{{os.environ['RANK']}}.pt")
torch.distributed.barrier()
torch.distributed.destroy_process_group()
"""


def in_two_processes(rows, folder, accumulation: int = 1, **options):
    """One step in batches of 1; return the loss as Trainer logs it, and the gradients."""
    (folder / "rows.json").write_text(json.dumps(rows))
    script = folder / "train.py"
    folders = [str(parent) for parent in Path(__file__).parents[:2]]
    filled = TWO_PROCESSES.format(folders=folders, accumulation=accumulation, options=options)
    script.write_text(filled)
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    result = subprocess.run(
        [sys.executable, "-m", *launcher, str(script)],
        capture_output=True,
        text=True,
        cwd=folder,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stderr
    (one, got), (other, _) = (torch.load(folder / f"got-{rank}.pt") for rank in range(2))
    return (one + other) / 2, got


@pytest.mark.parametrize(
    "accumulation", [pytest.param(1, marks=pytest.mark.slow(reason="two processes")), 2]
)
def test_devices_divide_by_the_weights_of_all_of_them(weighted_rows, tmp_path, accumulation):
    """Two processes of a batch of 1: uneven rows, so a mean of their means would be another."""
    rows = weighted_rows[: 2 * accumulation]
    loss, got = in_two_processes(rows, tmp_path, accumulation)
    model = make_model("qwen2")
    by_hand = mean_by_hand(model, rows)
    expected = torch.autograd.grad(by_hand, list(model.parameters()))
    means = [mean_by_hand(model, [row]).item() for row in rows]
    assert abs(sum(means) / len(means) - by_hand.item()) > 1e-3 * by_hand.item()
    assert loss == pytest.approx(by_hand.item(), rel=1e-6)
    assert_gradients_equal(got, expected)


@pytest.mark.slow(reason="two processes")
def test_every_trace_of_all_devices_counts_the_same_if_asked(weighted_rows, tmp_path):
    """Three traces on one device and one on the other: no mean of the devices' means."""
    rows = [one_row(*weighted_rows[:3]), weighted_rows[3]]
    loss, got = in_two_processes(rows, tmp_path, flatten=True, normalize="trace")
    model = make_model("qwen2")
    by_hand = mean_of_traces_by_hand(model, weighted_rows)
    expected = torch.autograd.grad(by_hand, list(model.parameters()))
    assert loss == pytest.approx(by_hand.item(), rel=1e-6)
    assert_gradients_equal(got, expected)


def test_without_a_count_a_batch_is_its_own_mean(weighted_rows, tmp_path):
    """As in evaluation, where older trainers pass no num_items_in_batch."""
    model = make_model("qwen2")
    arguments = TrainingArguments(**settings(tmp_path))
    trainer = WeightedTrainer(model, arguments)
    loss = trainer.compute_loss(model, LossMaskCollator(0, emit_weights=True)(weighted_rows))
    assert loss.item() == pytest.approx(mean_by_hand(model, weighted_rows).item(), rel=1e-6)


def test_the_weight_is_scaled_as_the_trainer_scales_its_count(weighted_rows):
    """By tensor parallelism, for example: here a trainer whose count is half of the tokens."""

    class Halving:
        model_accepts_loss_kwargs = True
        args = SimpleNamespace(average_tokens_across_devices=False, world_size=1)

        def _get_num_items_in_batch(self, batches, device):
            return sum((batch["labels"][:, 1:] != -100).sum() for batch in batches) / 2

    class Weighted(TokenWeightMixin, Halving):
        pass

    batch = LossMaskCollator(0, emit_weights=True)(weighted_rows)
    total = Weighted()._get_num_items_in_batch([batch, batch], "cpu")
    expected = sum(sum(row["loss_weights"]) for row in weighted_rows)
    assert total.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("library", LIBRARIES)
def test_evaluation_is_weighted_too(weighted_rows, tmp_path, library):
    model = make_model("qwen2")
    chosen = settings(tmp_path, per_device_eval_batch_size=len(weighted_rows))
    collator = LossMaskCollator(0, emit_weights=True)
    if library == "trl":
        trainer = sft_trainer(model, weighted_rows, collator, chosen)
    else:
        arguments = TrainingArguments(**chosen)
        trainer = WeightedTrainer(model, arguments, collator, train_dataset=weighted_rows)
    loss = trainer.evaluate(trainer.train_dataset)["eval_loss"]
    assert loss == pytest.approx(mean_by_hand(model, weighted_rows).item(), rel=1e-6)


def test_experts_keep_their_load_balancing_loss(weighted_rows, tmp_path):
    model = make_model("mixtral", output_router_logits=True, router_aux_loss_coef=0.5)
    even = masked(weighted_rows)
    stock = copy.deepcopy(model)
    expected, gradients = one_step(stock, even, LossMaskCollator(0), tmp_path, weighted=False)
    loss, got = one_step(model, even, LossMaskCollator(0, emit_weights=True), tmp_path)
    assert loss == pytest.approx(expected, rel=1e-6)
    assert_gradients_equal(got, gradients)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label_smoothing_factor": 0.1}, "got label_smoothing_factor, which drops them"),
        ({"compute_loss_func": lambda *_, **__: None}, "got compute_loss_func, which"),
    ],
)
def test_settings_that_drop_weights_are_refused(weighted_rows, tmp_path, change, message):
    model = make_model("qwen2")
    compute_loss_func = change.pop("compute_loss_func", None)
    arguments = TrainingArguments(**settings(tmp_path, **change))
    trainer = WeightedTrainer(model, arguments, compute_loss_func=compute_loss_func)
    with pytest.raises(ValueError, match=message):
        trainer.compute_loss(model, LossMaskCollator(0, emit_weights=True)(weighted_rows))


@pytest.mark.parametrize("library", LIBRARIES)
def test_models_that_take_no_loss_arguments_accumulate_right_too(weighted_rows, tmp_path, library):
    """Those whose forward is not told how many tokens there are, such as Qwen3-VL's."""
    model = make_model("qwen2")
    model.accepts_loss_kwargs = False
    by_hand = mean_by_hand(model, weighted_rows)
    expected = torch.autograd.grad(by_hand, list(model.parameters()))
    collator = LossMaskCollator(0, emit_weights=True)
    halves = {"batch": 2, "accumulation": 2}
    loss, got = one_step(model, weighted_rows, collator, tmp_path, library=library, **halves)
    assert loss == pytest.approx(by_hand.item(), rel=1e-6)
    assert_gradients_equal(got, expected)


@pytest.mark.parametrize("mode", ["bernoulli", "mask"])
def test_weights_dropped_by_a_stock_trainer_are_noticed(weighted_rows, tmp_path, mode):
    arguments = TrainingArguments(**settings(tmp_path))
    rows = [{**row, "loss_weights": [w / 3 for w in row["loss_weights"]]} for row in weighted_rows]
    collator = LossMaskCollator(0, mode=mode)
    trainer = Trainer(make_model("qwen2"), arguments, train_dataset=rows, data_collator=collator)
    with pytest.raises(ValueError, match="remove_unused_columns=False"):
        next(iter(trainer.get_train_dataloader()))
    arguments.remove_unused_columns = False
    (batch,) = list(trainer.get_train_dataloader())
    assert (
        0 < (batch["labels"] != -100).sum() <= sum(w > 0 for r in rows for w in r["loss_weights"])
    )


def test_a_mixin_without_its_collator_is_refused(weighted_rows, tmp_path):
    import datasets

    arguments = TrainingArguments(**settings(tmp_path))
    data = datasets.Dataset.from_list(weighted_rows)
    with pytest.raises(ValueError, match=r"must get a collator .*, got none"):
        WeightedTrainer(make_model("qwen2"), arguments, train_dataset=data)
    WeightedTrainer(make_model("qwen2"), arguments, LossMaskCollator(0), train_dataset=data)


def test_weights_where_there_is_no_label_count_for_nothing(weighted_rows, tmp_path):
    """As from another collator, which leaves weights outside the labels."""
    model = make_model("qwen2")
    by_hand = mean_by_hand(model, weighted_rows)
    expected = torch.autograd.grad(by_hand, list(model.parameters()))
    ours = LossMaskCollator(0, emit_weights=True)

    def collate(rows):
        batch = ours(rows)
        batch["loss_weights"][batch["labels"] == -100] = 7.0
        return batch

    loss, got = one_step(model, weighted_rows, collate, tmp_path, batch=2, accumulation=2)
    assert loss == pytest.approx(by_hand.item(), rel=1e-6)
    assert_gradients_equal(got, expected)


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_the_size_of_all_weights_changes_nothing(weighted_rows, tmp_path, scale):
    scaled = [{**r, "loss_weights": [scale * w for w in r["loss_weights"]]} for r in weighted_rows]
    for library in LIBRARIES:
        model = make_model("qwen2")
        by_hand = mean_by_hand(model, weighted_rows)
        expected = torch.autograd.grad(by_hand, list(model.parameters()))
        collator = LossMaskCollator(0, emit_weights=True)
        loss, got = one_step(model, scaled, collator, tmp_path, library=library)
        assert loss == pytest.approx(by_hand.item(), rel=1e-6)
        assert_gradients_equal(got, expected)


def test_a_batch_without_any_weight_has_no_loss(weighted_rows, tmp_path):
    model = make_model("qwen2")
    arguments = TrainingArguments(**settings(tmp_path))
    trainer = WeightedTrainer(model, arguments)
    batch = LossMaskCollator(0, emit_weights=True)(weighted_rows)
    batch["loss_weights"].zero_()
    loss = trainer.compute_loss(model, batch)
    assert loss.item() == 0
    loss.backward()
    assert all((p.grad is None) or not p.grad.any() for p in model.parameters())


def test_the_model_is_run_without_a_cache(weighted_rows, tmp_path):
    """With one, transformers 4 lets flattened documents attend to each other."""
    seen = {}
    model = make_model("qwen2")
    model.register_forward_pre_hook(lambda _, __, kw: seen.update(kw), with_kwargs=True)
    arguments = TrainingArguments(**settings(tmp_path))
    batch = LossMaskCollator(0, emit_weights=True)(weighted_rows)
    WeightedTrainer(model, arguments).compute_loss(model, batch)
    assert seen["use_cache"] is False
    assert "loss_weights" not in seen


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_of_16_bit_logits_are_float32(dtype):
    torch.manual_seed(0)
    logits = (4 * torch.randn(2, 9, 50)).to(dtype)
    labels, weights = torch.randint(0, 50, (2, 9)), torch.rand(2, 9)
    loss = weighted_cross_entropy(logits, labels, weights)
    exact = weighted_cross_entropy(logits.double(), labels, weights.double())
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=1e-6)


@pytest.mark.parametrize(
    ("changes", "inputs", "message"),
    [
        ({"use_liger_kernel": True}, {}, "got use_liger_kernel, which"),
        ({"n_gpu": 2}, {}, "got DataParallel"),
        ({"loss_type": "dft"}, {}, r"got loss_type='dft' \(pass loss_type='nll'\)"),
        ({"loss_type": "chunked_nll"}, {}, "got loss_type='chunked_nll'"),
        ({}, {"shift_labels": None}, "got sequence or context parallelism"),
    ],
)
def test_what_drops_weights_is_named(changes, inputs, message):
    arguments = SimpleNamespace(**{"use_liger_kernel": False, "n_gpu": 1, **changes})
    trainer = SimpleNamespace(args=arguments, label_smoother=None, compute_loss_func=None)
    with pytest.raises(ValueError, match=message):
        _refuse_what_drops_weights(trainer, inputs)


def test_experts_without_a_known_coefficient_are_refused(weighted_rows):
    model = make_model("mixtral", output_router_logits=True)
    batch = LossMaskCollator(0, emit_weights=True)(weighted_rows)
    config = SimpleNamespace(get_text_config=lambda: SimpleNamespace(aux_loss_coef=0.1))
    weighted = _WeightedModel(model, config, batch.pop("loss_weights"), None)
    with pytest.raises(ValueError, match="config without router_aux_loss_coef"):
        weighted(**batch)


def test_a_batch_without_weights_is_trained_as_in_the_stock_trainer(weighted_rows, tmp_path):
    model = make_model("qwen2")
    by_hand = mean_by_hand(model, masked(weighted_rows))
    expected = torch.autograd.grad(by_hand, list(model.parameters()))
    _, got = one_step(model, masked(weighted_rows), LossMaskCollator(0), tmp_path)
    assert_gradients_equal(got, expected)


def test_everything_kept_is_plain_fine_tuning(weighted_rows):
    model = make_model("qwen2")
    plain = [
        {"input_ids": row["input_ids"], "labels": list(row["input_ids"])} for row in weighted_rows
    ]
    full = [{**row, "labels": [-100, *row["labels"][1:]]} for row in plain]
    masked_loss, stock = (
        model(**LossMaskCollator(0)(batch), use_cache=False).loss for batch in (full, plain)
    )
    assert masked_loss.item() == stock.item()
