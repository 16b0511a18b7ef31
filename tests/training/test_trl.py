"""What arrives in TRL's own batches; GRPO's advantages. Runs where TRL is: make test-trainers."""

from __future__ import annotations

from importlib.metadata import version
from types import SimpleNamespace

import datasets
import pytest
import torch
from test_trainers import sft_trainer, tiny_tokenizer
from tiny import make_model

from segattr import (
    GRPOTokenMaskMixin,
    GRPOTokenWeightMixin,
    LossMaskCollator,
    TokenWeightMixin,
)

trl = pytest.importorskip("trl", reason="needs TRL: make test-trainers")

pytestmark = pytest.mark.filterwarnings("ignore")
TRL = tuple(map(int, version("trl").split(".")[:2]))
MODES = {
    "padded": {"max_length": 64},
    "padding-free": {"padding_free": True, "max_length": None},
    "packed": {"packing": True, "max_length": 64},
}


@pytest.mark.parametrize("mode", MODES)
def test_stock_sft_trainer_trains_on_the_mask_and_nothing_else(weighted_rows, tmp_path, mode):
    """Labels and assistant_masks together survive every version; read off its own data loader."""
    expected = [
        token
        for row in weighted_rows
        for token, on in zip(row["input_ids"], row["assistant_masks"], strict=True)
        if on
    ]
    columns = ("input_ids", "labels", "assistant_masks")
    data = datasets.Dataset.from_list(
        [{name: row[name] for name in columns} for row in weighted_rows]
    )
    arguments = trl.SFTConfig(
        output_dir=str(tmp_path),
        per_device_train_batch_size=2,
        report_to=[],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        dataloader_pin_memory=False,
        **MODES[mode],
    )
    trainer = trl.SFTTrainer(
        make_model("qwen2"), arguments, train_dataset=data, processing_class=tiny_tokenizer()
    )
    labels = [batch["labels"] for batch in trainer.get_train_dataloader()]
    supervised = torch.cat([part[part != -100] for part in labels])
    assert sorted(supervised.tolist()) == sorted(expected)


def test_the_collator_in_sft_trainer_gets_every_weight(weighted_rows, tmp_path):
    settings = {
        "output_dir": str(tmp_path),
        "per_device_train_batch_size": 2,
        "report_to": [],
        "use_cpu": True,
        "dataloader_pin_memory": False,
    }
    for flatten in (False, True):
        collator = LossMaskCollator(0, emit_weights=True, flatten=flatten)
        shared = {"train_dataset": weighted_rows, "data_collator": collator}
        trainer = sft_trainer(make_model("qwen2"), settings, shared, weighted=True)
        batches = list(trainer.get_train_dataloader())
        got = sum(float(batch["loss_weights"].sum()) for batch in batches)
        assert got == pytest.approx(sum(sum(row["loss_weights"]) for row in weighted_rows))


@pytest.mark.skipif(TRL < (1, 16), reason="older SFT trainers cut all columns alike")
def test_truncation_by_the_trainer_is_noticed(weighted_rows, tmp_path):
    """SFTTrainer cuts input_ids and labels, but not the weights."""

    class WeightedSFT(TokenWeightMixin, trl.SFTTrainer):
        pass

    arguments = trl.SFTConfig(output_dir=str(tmp_path), max_length=16, report_to=[], use_cpu=True)
    trainer = WeightedSFT(
        make_model("qwen2"),
        arguments,
        processing_class=tiny_tokenizer(),
        train_dataset=datasets.Dataset.from_list(weighted_rows),
        data_collator=LossMaskCollator(0, emit_weights=True),
    )
    with pytest.raises(ValueError, match=r"as long as its 16 input_ids.*truncated by a trainer"):
        next(iter(trainer.get_train_dataloader()))


def grpo(base, mixin, weights, tmp_path, **options):
    """One step of GRPO on a tiny model: its scored completions, and what was subtracted."""

    class Weighted(mixin, base):
        seen = None

        def token_weights(self, inputs, completion_ids, completion_mask):
            assert len(inputs) == len(completion_ids)
            assert all("answer" in row for row in inputs)
            return weights(completion_ids)

        def _generate_and_score_completions(self, inputs):
            self.seen = super()._generate_and_score_completions(inputs)
            return self.seen

    model = make_model("qwen2", dtype=torch.float32)
    model.generation_config.eos_token_id = None
    arguments = trl.GRPOConfig(
        output_dir=str(tmp_path),
        per_device_train_batch_size=4,
        num_generations=4,
        max_completion_length=6,
        max_steps=1,
        max_grad_norm=0.0,
        report_to=[],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        disable_tqdm=True,
        save_strategy="no",
        dataloader_pin_memory=False,
        seed=5,
        **options,
    )
    data = datasets.Dataset.from_list([{"prompt": "<5> <6> <7>", "answer": "4"}] * 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    before = [p.detach().clone() for p in model.parameters()]
    trainer = Weighted(
        model,
        reward_funcs=lambda completions, **_: [
            float(len(set(c))) + i for i, c in enumerate(completions)
        ],
        args=arguments,
        train_dataset=data,
        processing_class=tiny_tokenizer(),
        optimizers=(optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)),
    )
    trainer.train()
    step = [old - new.detach() for old, new in zip(before, model.parameters(), strict=True)]
    return trainer.seen, step


def gradient_by_hand(batch, weights, mask, normalizer):
    """Of -sum A w log p / normalizer at the old policy, whose ratio is 1."""
    model = make_model("qwen2", dtype=torch.float32)
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    length = batch["completion_ids"].shape[1]
    logprobs = model(ids, use_cache=False).logits[:, -length - 1 : -1].log_softmax(-1)
    taken = logprobs.gather(-1, batch["completion_ids"][..., None])[..., 0]
    loss = -(taken * weights * mask).sum() / normalizer
    return torch.autograd.grad(loss, list(model.parameters()))


@pytest.mark.skipif(TRL < (0, 29), reason="older GRPO trainers have no advantage per token")
@pytest.mark.parametrize("loss_type", ["dapo", "dr_grpo", "bnpo"])
def test_grpo_weights_multiply_the_advantages(tmp_path, loss_type):
    weights = lambda ids: 0.5 + (ids % 4).float()  # noqa: E731
    batch, step = grpo(
        trl.GRPOTrainer, GRPOTokenWeightMixin, weights, tmp_path, loss_type=loss_type, beta=0.0
    )
    assert batch["advantages"].shape == batch["completion_ids"].shape
    own = batch["advantages"] / weights(batch["completion_ids"])
    assert torch.allclose(own, own[:, :1].expand_as(own))
    assert own[:, 0].abs().min() > 0
    assert len(own[:, 0].unique()) > 1
    mask = batch["completion_mask"]
    normalizer = 4 * 6 if loss_type == "dr_grpo" else mask.sum()
    expected = gradient_by_hand(batch, batch["advantages"], mask, normalizer)
    scale = max(gradient.abs().max() for gradient in expected)
    for mine, theirs in zip(step, expected, strict=True):
        assert (mine - theirs).abs().max() <= 1e-5 * scale  # float32


@pytest.mark.skipif(TRL < (0, 29), reason="older GRPO trainers have no advantage per token")
@pytest.mark.parametrize("loss_type", ["dapo", "bnpo"])
def test_grpo_masks_take_tokens_out_of_the_loss_and_its_count(tmp_path, loss_type):
    chosen = lambda ids: (ids % 2 == 0).float()  # noqa: E731
    batch, step = grpo(
        trl.GRPOTrainer, GRPOTokenMaskMixin, chosen, tmp_path, loss_type=loss_type, beta=0.0
    )
    mask = batch["completion_mask"] * chosen(batch["completion_ids"])
    assert 0 < mask.sum() < batch["completion_mask"].sum()
    assert batch["num_items_in_batch"] == mask.sum()
    advantages = batch["advantages"][:, None]
    expected = gradient_by_hand(batch, advantages, mask, mask.sum())
    scale = max(gradient.abs().max() for gradient in expected)
    for mine, theirs in zip(step, expected, strict=True):
        assert (mine - theirs).abs().max() <= 1e-5 * scale  # float32


@pytest.mark.skipif(TRL < (0, 29), reason="older GRPO trainers have no advantage per token")
@pytest.mark.parametrize("loss_type", ["dapo", "bnpo", "grpo"])
def test_a_mask_of_nothing_changes_nothing(tmp_path, loss_type):
    _, step = grpo(
        trl.GRPOTrainer,
        GRPOTokenMaskMixin,
        lambda ids: torch.zeros(ids.shape),
        tmp_path,
        loss_type=loss_type,
        beta=0.0,
    )
    assert all((gradient == 0).all() for gradient in step)


@pytest.mark.skipif(TRL < (0, 29), reason="older GRPO trainers have no advantage per token")
@pytest.mark.parametrize("mixin", [GRPOTokenMaskMixin, GRPOTokenWeightMixin])
def test_truncated_completions_and_several_iterations(tmp_path, mixin):
    """Every completion is cut off here, so that none is trained on."""
    options = {"mask_truncated_completions": True, "num_iterations": 2}
    even = lambda ids: torch.ones(ids.shape)  # noqa: E731
    batch, step = grpo(trl.GRPOTrainer, mixin, even, tmp_path, beta=0.0, **options)
    assert batch["completion_mask"].sum() == 0
    assert all((gradient == 0).all() for gradient in step)


def test_a_mask_meets_that_of_tools_and_padding():
    """The tokens of a tool's answer stay out, and padding is not counted."""
    batch = {
        "completion_mask": torch.tensor([[1, 1, 1, 0]]),
        "tool_mask": torch.tensor([[1, 0, 1, 1]]),
    }
    mixin = GRPOTokenMaskMixin()
    mixin.accelerator = SimpleNamespace(gather=lambda count: torch.stack([count, count]))
    mixin._weigh(batch, torch.tensor([[1.0, 1.0, 0.0, 1.0]]))
    assert batch["tool_mask"].tolist() == [[1, 0, 0, 1]]
    assert batch["num_items_in_batch"] == 2  # one token on each of two devices


@pytest.mark.skipif(TRL < (0, 29), reason="older GRPO trainers have no advantage per token")
def test_liger_in_grpo_is_refused(tmp_path):
    trainer = type("Weighted", (GRPOTokenWeightMixin,), {})()
    trainer.args = SimpleNamespace(use_liger_kernel=True)
    with pytest.raises(ValueError, match="got use_liger_kernel=True"):
        trainer._generate_and_score_completions([])


@pytest.mark.skipif(TRL < (0, 29), reason="older GRPO trainers have no advantage per token")
@pytest.mark.parametrize(
    ("mixin", "weights", "message"),
    [
        (GRPOTokenWeightMixin, lambda ids: ids[:, :2].float(), r"must return \[4, 6\] weights"),
        (GRPOTokenWeightMixin, lambda ids: -torch.ones(ids.shape), "the lowest -1"),
        (GRPOTokenMaskMixin, lambda ids: torch.full(ids.shape, 0.5), "0 or 1 in a mask"),
    ],
)
def test_bad_token_weights_are_refused(tmp_path, mixin, weights, message):
    with pytest.raises(ValueError, match=message):
        grpo(trl.GRPOTrainer, mixin, weights, tmp_path)


@pytest.mark.skipif(TRL >= (0, 29), reason="newer GRPO trainers take an advantage per token")
def test_old_grpo_is_refused(tmp_path):
    with pytest.raises(RuntimeError, match=r"need trl >= 0\.29, got 0\.24"):
        grpo(trl.GRPOTrainer, GRPOTokenWeightMixin, lambda ids: ids.float(), tmp_path)
