"""What the tests of trainers share: settings, a tokenizer of numbers, and one step of training."""

from __future__ import annotations

import importlib.util
from importlib.metadata import version

import torch
from transformers import Trainer, TrainingArguments

from segattr import TokenWeightMixin

ROWS = 4  # of weighted_rows
HAS_TRL = importlib.util.find_spec("trl") is not None
TRL = tuple(map(int, version("trl").split(".")[:2])) if HAS_TRL else (0, 0)


class WeightedTrainer(TokenWeightMixin, Trainer):
    pass


def settings(folder, **changes) -> dict:
    """Arguments of any trainer: on the CPU, in the model's dtype, saying and saving nothing."""
    quiet = {"report_to": [], "disable_tqdm": True, "save_strategy": "no"}
    # TRL switches these two on by itself.
    exact = {"bf16": False, "gradient_checkpointing": False}
    machine = {"use_cpu": True, "dataloader_pin_memory": False}
    return {"output_dir": str(folder), **quiet, **exact, **machine, **changes}


def one_step(
    model,
    rows,
    collator,
    folder,
    *,
    batch: int = ROWS,
    accumulation: int = 1,
    library: str = "transformers",
    weighted: bool = True,
    **options,
):
    """With plain SGD at rate 1, one step subtracts exactly the gradient; return loss, gradients."""
    chosen = {
        "per_device_train_batch_size": batch,
        "gradient_accumulation_steps": accumulation,
        "max_steps": 1,
        "max_grad_norm": 0.0,
        "remove_unused_columns": weighted,  # the mixin keeps the columns that are needed
        **options,
    }
    parameters = [p for p in model.parameters() if p.requires_grad]
    before = [p.detach().clone() for p in parameters]
    optimizers = plain_sgd(parameters)
    if library == "trl":
        trainer = sft_trainer(
            model, rows, collator, settings(folder, **chosen), weighted, optimizers=optimizers
        )
    else:
        kind = WeightedTrainer if weighted else Trainer
        arguments = TrainingArguments(**settings(folder, **chosen))
        trainer = kind(model, arguments, collator, train_dataset=rows, optimizers=optimizers)
    loss = trainer.train().training_loss
    return loss, [old - new.detach() for old, new in zip(before, parameters, strict=True)]


def plain_sgd(parameters):
    optimizer = torch.optim.SGD(parameters, lr=1.0)
    return optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)


def sft_trainer(model, rows, collator, chosen, weighted: bool = True, **others):
    """An SFTTrainer that hands rows on as they are."""
    import datasets
    import trl

    class WeightedSFT(TokenWeightMixin, trl.SFTTrainer):
        pass

    arguments = trl.SFTConfig(
        **chosen,
        dataset_kwargs={"skip_prepare_dataset": True},
        loss_type="nll",  # TRL 1.7 to 1.14 have another default, which takes no weights
    )
    return (WeightedSFT if weighted else trl.SFTTrainer)(
        model,
        arguments,
        data_collator=collator,
        train_dataset=rows if hasattr(rows, "column_names") else datasets.Dataset.from_list(rows),
        processing_class=tiny_tokenizer(),
        **others,
    )


def tiny_tokenizer():
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {f"<{number}>": number for number in range(96)}
    inner = Tokenizer(models.WordLevel(words, unk_token="<1>"))
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<0>", eos_token="<1>")
