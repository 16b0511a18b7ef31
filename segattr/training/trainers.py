"""Token weights in trainers that know none: mixins for Trainer, SFTTrainer and GRPOTrainer.

    loss = sum_t w_t * -log p(x_t | x_<t) / sum_t w_t      over all batches of one optimizer step

Put a mixin before the trainer: ``class WeightedTrainer(TokenWeightMixin, Trainer): pass``.
Axes: ``B`` rows, ``T`` tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from segattr.training.rows import IGNORED

KEY = "loss_weights"
COLUMNS = (KEY, "loss_mask", "assistant_masks", "seq_lengths")  # what `LossMaskCollator` reads


def weighted_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted sum of the tokens' negative log-likelihoods, in float32 or better.

    Equal to ``(F.cross_entropy(logits[:, :-1], labels[:, 1:]) * weights[:, 1:]).sum()`` over the
    tokens whose label is not -100. Only their logits are turned into probabilities.

    Args:
        logits: ``[B, T, V]``.
        labels: Not shifted, int64 ``[B, T]``.
        weights: Float ``[B, T]``, likewise the weight of a token in its own place.
    """
    targets, weights = labels[:, 1:], weights[:, 1:]
    on = (targets != IGNORED) & (weights != 0)
    chosen = logits[:, :-1][on.to(logits.device)]
    chosen = chosen.float() if chosen.dtype in (torch.float16, torch.bfloat16) else chosen
    losses = F.cross_entropy(chosen, targets[on].to(logits.device), reduction="none")
    return (losses * weights[on].to(losses)).sum()


class TokenWeightMixin:
    """Weight each token's loss by the batch's ``loss_weights``, in a Trainer or an SFTTrainer.

        class WeightedTrainer(TokenWeightMixin, Trainer): pass
        WeightedTrainer(..., data_collator=LossMaskCollator(pad_token_id, emit_weights=True))

    The mean is over the weights of all batches of an optimizer step, of all devices, so gradient
    accumulation changes nothing; an evaluation is the mean of its batches' means, as ever. Batches
    without ``loss_weights`` are trained as ever. In an ``SFTTrainer``, pass
    ``dataset_kwargs={"skip_prepare_dataset": True}``, since its own truncation and packing drop
    weights; pack with ``trl.pack_dataset`` and ``LossMaskCollator(flatten=True)``.

    Raises:
        ValueError: When made with a data set that has ``loss_weights`` and no collator, or at
            the first weighted batch, if the trainer is set to something that would drop the
            weights: label smoothing, a ``compute_loss_func``, a Liger kernel, TRL's ``dft`` or
            ``chunked_nll`` losses, sequence or context parallelism, ``DataParallel``.
    """

    args: Any  # these are the trainer's
    model: Any
    accelerator: Any
    model_accepts_loss_kwargs: bool
    _signature_columns: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        collator = kwargs.get("data_collator") or next(iter(args[2:3]), None)
        names = getattr(kwargs.get("train_dataset"), "column_names", None) or ()
        if KEY in names and collator is None:
            raise ValueError(
                f"a trainer of a data set with {KEY} must get a collator that hands them on, got "
                "none. Pass data_collator=LossMaskCollator(pad_token_id, emit_weights=True)."
            )
        super().__init__(*args, **kwargs)

    def _set_signature_columns_if_needed(self) -> None:
        trainer: Any = super()
        trainer._set_signature_columns_if_needed()
        known = self._signature_columns
        self._signature_columns = [*known, *(name for name in COLUMNS if name not in known)]

    def _get_num_items_in_batch(self, batch_samples: Sequence[Mapping], device: Any) -> Any:
        trainer: Any = super()
        weighted = bool(batch_samples) and KEY in batch_samples[0]
        # Whether the model does or not: the weighted loss is computed here.
        self.model_accepts_loss_kwargs |= weighted
        count = trainer._get_num_items_in_batch(batch_samples, device)
        if not weighted:
            return count
        # The trainer's own count, which it has scaled for its kind of parallelism, times the mean
        # weight of what was counted.
        sums = torch.zeros(2, device=device)
        for batch in batch_samples:
            on = batch["labels"][:, 1:] != IGNORED
            weight = batch[KEY][:, 1:].where(on, 0.0).sum()
            sums += torch.stack([weight, on.sum()]).to(sums)
        if self.args.average_tokens_across_devices and self.args.world_size > 1:
            sums = self.accelerator.gather(sums[None]).sum(0)
        return sums[0] * (count / sums[1].clamp_min(1))

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        trainer: Any = super()
        weights = inputs.pop(KEY, None)
        if weights is not None:
            _refuse_what_drops_weights(self, inputs)
            model = _WeightedModel(model, self.model.config, weights, num_items_in_batch)
            # What the model returns is divided by the weight already.
            num_items_in_batch = None if num_items_in_batch is None else 1
            inputs["use_cache"] = False  # see LossMaskCollator: a cache hides documents' borders
        return trainer.compute_loss(
            model, inputs, return_outputs=return_outputs, num_items_in_batch=num_items_in_batch
        )


class _WeightedModel:
    """A model as a trainer's ``compute_loss`` sees it, whose loss is the weighted one."""

    def __init__(self, model: Any, config: Any, weights: Tensor, total: Any) -> None:
        self._model = model
        self._config = config
        self._weights = weights
        self._total = total

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __call__(
        self, *, labels: Tensor | None = None, num_items_in_batch: Any = None, **inputs: Any
    ) -> Any:
        if labels is None:
            return self._model(**inputs)
        total = self._total
        if total is None:
            total = self._weights[:, 1:].where(labels[:, 1:] != IGNORED, 0.0).sum()
        total = torch.as_tensor(total, device=labels.device).clamp_min(1e-8)
        if inputs.get("fused_lm_head"):  # TRL >= 1.15 sums log_probs itself, without logits
            outputs = self._model(labels=labels, **inputs)
            scale = 1 / total
            if self._total is None:  # then TRL divides by the number of tokens
                scale = outputs.label_mask.sum() / total
            weights = self._weights[:, 1:] * scale
            outputs.log_probs = outputs.log_probs * weights.to(outputs.log_probs)
            return outputs
        outputs = self._model(**inputs)
        if outputs.logits.shape[1] != labels.shape[1]:
            raise ValueError(
                f"token weights need logits for all {labels.shape[1]} tokens, got "
                f"{outputs.logits.shape[1]}. Prompt tuning and trimmed logits do not go with them."
            )
        loss = weighted_cross_entropy(outputs.logits, labels, self._weights) / total.to(
            outputs.logits.device
        )
        if (auxiliary := getattr(outputs, "aux_loss", None)) is not None:
            # As the model's own loss: the load balancing of experts.
            coefficient = getattr(self._config.get_text_config(), "router_aux_loss_coef", None)
            if coefficient is None:
                raise ValueError(
                    "token weights need the coefficient of the model's auxiliary loss, got a "
                    "config without router_aux_loss_coef. Set output_router_logits=False."
                )
            loss = loss + coefficient * auxiliary.to(loss.device)
        outputs["loss"] = loss
        return outputs


def _refuse_what_drops_weights(trainer: Any, inputs: Mapping[str, Any]) -> None:
    arguments = trainer.args
    found = {
        "label_smoothing_factor": trainer.label_smoother is not None,
        "compute_loss_func": trainer.compute_loss_func is not None,
        "use_liger_kernel": arguments.use_liger_kernel,
        "sequence or context parallelism": "shift_labels" in inputs,
        "DataParallel (start it with torchrun, or let it see one GPU)": arguments.n_gpu > 1,
    }
    if (kind := getattr(arguments, "loss_type", "nll")) != "nll":  # TRL's
        found[f"loss_type={kind!r} (pass loss_type='nll')"] = True
    if reasons := [name for name, is_so in found.items() if is_so]:
        raise ValueError(
            f"token weights must reach the loss, got {', '.join(reasons)}, which drops them. "
            "Switch it off."
        )


class _TokenGRPO:
    """What both GRPO mixins share: where a rollout's weights come from, and what they must be."""

    args: Any  # these are the trainer's
    accelerator: Any

    def token_weights(
        self, inputs: Sequence[Mapping[str, Any]], completion_ids: Tensor, completion_mask: Tensor
    ) -> Tensor:
        """Return a weight for every completion token; override this.

        Args:
            inputs: The data set's rows of these completions, ``B`` of them.
            completion_ids: int64 ``[B, T]``, padded on the right.
            completion_mask: 1 for the completion's tokens, 0 for padding, ``[B, T]``.

        Returns:
            At least 0, ``[B, T]``; mean 1 per row keeps the size of the updates.
        """
        raise NotImplementedError("Override token_weights in your trainer.")

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        trainer: Any = super()
        _require_advantages_per_token(self.args)
        batch = trainer._generate_and_score_completions(inputs)
        ids, mask = batch["completion_ids"], batch["completion_mask"]
        weights = torch.as_tensor(self.token_weights(inputs, ids, mask))
        if weights.shape != ids.shape or not (weights.isfinite() & (weights >= 0)).all():
            raise ValueError(
                f"token_weights must return {list(ids.shape)} weights of at least 0, got "
                f"{list(weights.shape)}, the lowest {weights.min().item():g}."
            )
        self._weigh(batch, weights.to(ids.device))
        return batch

    def _weigh(self, batch: dict[str, Any], weights: Tensor) -> None:
        raise NotImplementedError


def _require_advantages_per_token(arguments: Any) -> None:
    """Raise where a GRPOTrainer takes one advantage per completion only."""
    if tuple(map(int, version("trl").split(".")[:2])) < (0, 29):
        raise RuntimeError(
            f"token weights in GRPO need trl >= 0.29, got {version('trl')}: older ones have one "
            "advantage per completion. Upgrade it."
        )
    if getattr(arguments, "use_liger_kernel", False):
        raise ValueError(
            "token weights in GRPO need TRL's own loss, got use_liger_kernel=True, whose loss has "
            "one advantage per completion. Switch it off."
        )


class GRPOTokenWeightMixin(_TokenGRPO):
    """Multiply the advantages of a GRPOTrainer by `token_weights`, token by token.

    Emphasises policy updates on what matters, as the paper suggests. The number of tokens that the
    loss is divided by, KL and entropy stay as they are.

        class WeightedGRPO(GRPOTokenWeightMixin, GRPOTrainer):
            def token_weights(self, inputs, completion_ids, completion_mask): ...
    """

    def _weigh(self, batch: dict[str, Any], weights: Tensor) -> None:
        advantages = batch["advantages"]
        advantages = advantages[:, None] if advantages.dim() == 1 else advantages
        batch["advantages"] = advantages * weights.to(advantages)


class GRPOTokenMaskMixin(_TokenGRPO):
    """Leave tokens whose `token_weights` are 0 out of a GRPOTrainer's loss altogether.

    Out of the policy loss, KL, entropy and the number of tokens that the loss is divided by. The
    other weights must be 1. The model still reads all tokens.
    """

    def _weigh(self, batch: dict[str, Any], weights: Tensor) -> None:
        if not ((weights == 0) | (weights == 1)).all():
            raise ValueError(
                "token_weights must be 0 or 1 in a mask, got others. Use GRPOTokenWeightMixin."
            )
        own = batch.get("tool_mask")
        batch["tool_mask"] = weights.to(own.dtype if own is not None else torch.int64)
        if own is not None:
            batch["tool_mask"] = batch["tool_mask"] * own
        trained = (batch["completion_mask"] * batch["tool_mask"]).sum()
        # TRL divides by it, and before 1.16 does not guard against completions without any.
        batch["num_items_in_batch"] = self.accelerator.gather(trained).sum().clamp(min=1)
