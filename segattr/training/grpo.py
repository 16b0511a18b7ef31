"""Token weights in GRPO: one mixin weighs the advantages, one takes tokens out of the loss.

Put a mixin before the trainer: ``class WeightedGRPO(GRPOTokenWeightMixin, GRPOTrainer)``.
Axes: ``B`` completions, ``T`` completion tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from segattr.checks import require_nonnegative


class _TokenGRPO:
    """Asks for the weights of completions and checks them; a mixin says what they do."""

    args: Any  # these are the trainer's
    accelerator: Any

    def token_weights(
        self, inputs: Sequence[Mapping[str, Any]], completion_ids: Tensor, completion_mask: Tensor
    ) -> Tensor:
        """Return a weight for every completion token; override this.

        Args:
            inputs: The ``B`` rows of the data set that these completions answer.
            completion_ids: int64 ``[B, T]``, padded on the right.
            completion_mask: 1 for the completion's tokens, 0 for padding, ``[B, T]``.

        Returns:
            Weights of at least 0, ``[B, T]``. A mean of 1 in each row keeps the size of the
            updates.
        """
        raise NotImplementedError("Override token_weights in your trainer.")

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        trainer: Any = super()
        _require_advantages_per_token(self.args)
        batch = trainer._generate_and_score_completions(inputs)
        ids, mask = batch["completion_ids"], batch["completion_mask"]
        weights = torch.as_tensor(self.token_weights(inputs, ids, mask))
        if weights.shape != ids.shape:
            raise ValueError(
                f"token_weights must return {list(ids.shape)} weights, one for each token of each "
                f"completion, got {list(weights.shape)}."
            )
        remedy = "Clamp what token_weights returns."
        require_nonnegative("token_weights", weights, remedy)
        self._weigh(batch, weights.to(ids.device))
        return batch

    def _weigh(self, batch: dict[str, Any], weights: Tensor) -> None:
        raise NotImplementedError


def _require_advantages_per_token(arguments: Any) -> None:
    """Raise if this GRPOTrainer takes only one advantage per completion."""
    if tuple(map(int, version("trl").split(".")[:2])) < (0, 29):
        raise RuntimeError(
            f"token weights in GRPO need trl >= 0.29, got {version('trl')}: older ones have one "
            "advantage per completion. Upgrade TRL."
        )
    if getattr(arguments, "use_liger_kernel", False):
        raise ValueError(
            "token weights in GRPO need TRL's own loss, got use_liger_kernel=True, whose loss has "
            "one advantage per completion. Switch it off."
        )


class GRPOTokenWeightMixin(_TokenGRPO):
    """Multiply the advantages of a GRPOTrainer by `token_weights`, token by token.

    Policy updates then stress the tokens that matter, as the paper suggests. KL, entropy and the
    number of tokens that the loss is divided by stay as they are.

        class WeightedGRPO(GRPOTokenWeightMixin, GRPOTrainer):
            def token_weights(self, inputs, completion_ids, completion_mask): ...
    """

    def _weigh(self, batch: dict[str, Any], weights: Tensor) -> None:
        advantages = batch["advantages"]
        advantages = advantages[:, None] if advantages.dim() == 1 else advantages
        batch["advantages"] = advantages * weights.to(advantages)


class GRPOTokenMaskMixin(_TokenGRPO):
    """Take the tokens whose `token_weights` are 0 out of a GRPOTrainer's loss.

    They count neither in the policy loss, KL and entropy nor in the number of tokens that the loss
    is divided by. All other weights must be 1. The model still reads all tokens.
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
