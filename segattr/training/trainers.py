"""Token weights in trainers that have no loss weights: a mixin for Trainer and SFTTrainer.

    loss = sum_t w_t * -log p(x_t | x_<t) / sum_t w_t      over all batches of one optimizer step

With weights that sum to 1 over each trace, this is Eq. 9 of arXiv 2602.00425: the mean over traces
of each trace's own mean. Without, long selections count more than short ones, as in the released
code. `LossMaskCollator(normalize="trace")` makes such weights.

Put the mixin before the trainer: ``class WeightedTrainer(TokenWeightMixin, Trainer): pass``.
Axes: ``B`` rows, ``T`` tokens, ``V`` vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from segattr.training.documents import EXTRA_COLUMNS
from segattr.training.rows import IGNORED, LABELS, LOSS_WEIGHTS


def weighted_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted sum of the tokens' negative log-likelihoods, in float32 or better.

    Equal to ``(F.cross_entropy(logits[:, :-1], labels[:, 1:]) * weights[:, 1:]).sum()`` over the
    tokens whose label is not -100. Only their logits are turned into probabilities.

    Args:
        logits: ``[B, T, V]``.
        labels: int64 ``[B, T]``, each token's label at that token: not shifted.
        weights: Float ``[B, T]``, not shifted either.
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

    The loss is divided by the sum of the weights of all batches of an optimizer step, on all
    devices, so gradient accumulation changes nothing. Every trace counts the same, whatever its
    length, if the collator also gets ``normalize="trace"``. Evaluation averages the batch means,
    and batches without ``loss_weights`` are trained, as in the stock trainer.

    In an ``SFTTrainer``, pass ``dataset_kwargs={"skip_prepare_dataset": True}``, since its own
    truncation and packing drop weights; pack with ``trl.pack_dataset`` and
    ``LossMaskCollator(flatten=True)``.

    Raises:
        ValueError: If the data set has ``loss_weights`` and there is no collator. Also at the first
            weighted batch, if a setting of the trainer would drop the weights: label smoothing, a
            ``compute_loss_func``, a Liger kernel, TRL's ``dft`` or ``chunked_nll`` losses, sequence
            or context parallelism, ``DataParallel``.
    """

    args: Any  # these are the trainer's
    model: Any
    accelerator: Any
    model_accepts_loss_kwargs: bool
    _signature_columns: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        collator = kwargs.get("data_collator") or next(iter(args[2:3]), None)
        names = getattr(kwargs.get("train_dataset"), "column_names", None) or ()
        if LOSS_WEIGHTS in names and collator is None:
            raise ValueError(
                "a trainer of a data set with loss_weights must get a collator that hands them on, "
                "got none. Pass data_collator=LossMaskCollator(pad_token_id, emit_weights=True)."
            )
        super().__init__(*args, **kwargs)

    def _set_signature_columns_if_needed(self) -> None:
        trainer: Any = super()
        trainer._set_signature_columns_if_needed()
        known = self._signature_columns
        self._signature_columns = [*known, *(name for name in EXTRA_COLUMNS if name not in known)]

    def _get_num_items_in_batch(self, batch_samples: Sequence[Mapping], device: Any) -> Any:
        trainer: Any = super()
        weighted = bool(batch_samples) and LOSS_WEIGHTS in batch_samples[0]
        # The model itself need not take the count: the weighted loss is computed here.
        self.model_accepts_loss_kwargs |= weighted
        count = trainer._get_num_items_in_batch(batch_samples, device)
        if not weighted:
            return count
        # The trainer's own count, which it has scaled for its kind of parallelism, times the mean
        # weight of what was counted.
        sums = torch.zeros(2, device=device)
        for batch in batch_samples:
            on = batch[LABELS][:, 1:] != IGNORED
            weight = batch[LOSS_WEIGHTS][:, 1:].where(on, 0.0).sum()
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
        weights = inputs.pop(LOSS_WEIGHTS, None)
        if weights is not None:
            _refuse_what_drops_weights(self, inputs)
            model = _WeightedModel(model, self.model.config, weights, num_items_in_batch)
            # The loss that this model returns is divided by the weights already.
            num_items_in_batch = None if num_items_in_batch is None else 1
            inputs["use_cache"] = False  # see LossMaskCollator: a cache hides documents' borders
        return trainer.compute_loss(
            model, inputs, return_outputs=return_outputs, num_items_in_batch=num_items_in_batch
        )


class _WeightedModel:
    """What ``compute_loss`` gets instead of the model: the same, with the weighted loss."""

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
            # The load balancing of experts, added as the model's own loss adds it.
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
