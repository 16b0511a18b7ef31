"""Token weights in GRPO against a gradient by hand. Most run where TRL is: make test-trainers."""

from __future__ import annotations

from types import SimpleNamespace

import datasets
import pytest
import torch
from tiny import make_model
from training_runs import HAS_TRL, TRL, plain_sgd, settings, tiny_tokenizer

from segattr import GRPOTokenMaskMixin, GRPOTokenWeightMixin

pytestmark = pytest.mark.filterwarnings("ignore")
needs_grpo = pytest.mark.skipif(
    TRL < (0, 29), reason="older GRPO trainers have no advantage per token: make test-trainers"
)


def grpo(mixin, weights, tmp_path, **options):
    """One step of GRPO on a tiny model: its scored completions, and what was subtracted."""
    import trl

    class Weighted(mixin, trl.GRPOTrainer):
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
        **settings(tmp_path, per_device_train_batch_size=4, max_steps=1, max_grad_norm=0.0, seed=5),
        num_generations=4,
        max_completion_length=6,
        **options,
    )
    data = datasets.Dataset.from_list([{"prompt": "<5> <6> <7>", "answer": "4"}] * 4)
    before = [p.detach().clone() for p in model.parameters()]
    trainer = Weighted(
        model,
        reward_funcs=lambda completions, **_: [
            float(len(set(c))) + i for i, c in enumerate(completions)
        ],
        args=arguments,
        train_dataset=data,
        processing_class=tiny_tokenizer(),
        optimizers=plain_sgd(model.parameters()),
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


@needs_grpo
@pytest.mark.parametrize("loss_type", ["dapo", "dr_grpo", "bnpo"])
def test_grpo_weights_multiply_the_advantages(tmp_path, loss_type):
    weights = lambda ids: 0.5 + (ids % 4).float()  # noqa: E731
    batch, step = grpo(GRPOTokenWeightMixin, weights, tmp_path, loss_type=loss_type, beta=0.0)
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


@needs_grpo
@pytest.mark.parametrize("loss_type", ["dapo", "bnpo"])
def test_grpo_masks_take_tokens_out_of_the_loss_and_its_count(tmp_path, loss_type):
    chosen = lambda ids: (ids % 2 == 0).float()  # noqa: E731
    batch, step = grpo(GRPOTokenMaskMixin, chosen, tmp_path, loss_type=loss_type, beta=0.0)
    mask = batch["completion_mask"] * chosen(batch["completion_ids"])
    assert 0 < mask.sum() < batch["completion_mask"].sum()
    assert batch["num_items_in_batch"] == mask.sum()
    advantages = batch["advantages"][:, None]
    expected = gradient_by_hand(batch, advantages, mask, mask.sum())
    scale = max(gradient.abs().max() for gradient in expected)
    for mine, theirs in zip(step, expected, strict=True):
        assert (mine - theirs).abs().max() <= 1e-5 * scale  # float32


@needs_grpo
@pytest.mark.parametrize("loss_type", ["dapo", "bnpo", "grpo"])
def test_a_mask_of_nothing_changes_nothing(tmp_path, loss_type):
    _, step = grpo(
        GRPOTokenMaskMixin,
        lambda ids: torch.zeros(ids.shape),
        tmp_path,
        loss_type=loss_type,
        beta=0.0,
    )
    assert all((gradient == 0).all() for gradient in step)


@needs_grpo
@pytest.mark.parametrize("mixin", [GRPOTokenMaskMixin, GRPOTokenWeightMixin])
def test_truncated_completions_and_several_iterations(tmp_path, mixin):
    """Every completion is cut off here, so that none is trained on."""
    options = {"mask_truncated_completions": True, "num_iterations": 2}
    even = lambda ids: torch.ones(ids.shape)  # noqa: E731
    batch, step = grpo(mixin, even, tmp_path, beta=0.0, **options)
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


@needs_grpo
def test_liger_in_grpo_is_refused(tmp_path):
    trainer = type("Weighted", (GRPOTokenWeightMixin,), {})()
    trainer.args = SimpleNamespace(use_liger_kernel=True)
    with pytest.raises(ValueError, match="got use_liger_kernel=True"):
        trainer._generate_and_score_completions([])


@needs_grpo
@pytest.mark.parametrize(
    ("mixin", "weights", "message"),
    [
        (GRPOTokenWeightMixin, lambda ids: ids[:, :2].float(), r"must return \[4, 6\] weights"),
        (
            GRPOTokenWeightMixin,
            lambda ids: -torch.ones(ids.shape),
            r"got -1\.0 at index \(0, 0\)",
        ),
        (GRPOTokenMaskMixin, lambda ids: torch.full(ids.shape, 0.5), "0 or 1 in a mask"),
    ],
)
def test_bad_token_weights_are_refused(tmp_path, mixin, weights, message):
    with pytest.raises(ValueError, match=message):
        grpo(mixin, weights, tmp_path)


@pytest.mark.skipif(
    not HAS_TRL or TRL >= (0, 29), reason="newer GRPO trainers take an advantage per token"
)
def test_old_grpo_is_refused(tmp_path):
    with pytest.raises(RuntimeError, match=r"need trl >= 0\.29, got 0\.24"):
        grpo(GRPOTokenWeightMixin, lambda ids: ids.float(), tmp_path)
