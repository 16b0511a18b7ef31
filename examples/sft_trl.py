"""Fine-tune on the segments that matter, with TRL's SFTTrainer: a mask, then soft weights.

Runs as it stands, on the bundled model and traces, with TRL >= 0.24. For a file of traces,
``segattr score`` and ``segattr export --to trl`` make the data set.
"""

import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer, pack_dataset

from segattr import (
    FastIG,
    LossMaskCollator,
    SegmentScorer,
    TokenWeightMixin,
    Trace,
    strength_weights,
    training_row,
)
from segattr.demo import load_demo, load_records

LENGTH = 1024  # of a pack

model, tokenizer = load_demo()
scorer = SegmentScorer()
ig = FastIG(model, tokenizer)

masked, weighted = [], []
for record in load_records()[:8]:
    attribution = ig.attribute(Trace.from_record(record))
    scores = scorer.score(attribution)
    masked.append(training_row(attribution.encoded, scores))
    weighted.append(training_row(attribution.encoded, weights=strength_weights(scores)))

settings = {
    "output_dir": "out",
    "per_device_train_batch_size": 1,
    "learning_rate": 1e-4,
    "max_steps": 2,
    "report_to": [],
    "save_strategy": "no",
    "disable_tqdm": True,
    "use_cpu": not torch.cuda.is_available(),
    "bf16": torch.cuda.is_available(),
}

# A mask: no collator, so that TRL's own packing and padding-free batches work. Labels and masks
# together: TRL before 1.7 drops labels when it packs, and would train on everything.
rows = Dataset.from_list(masked).select_columns(["input_ids", "labels", "assistant_masks"])
trainer = SFTTrainer(
    model,
    SFTConfig(packing=True, max_length=LENGTH, **settings),
    train_dataset=rows,
    processing_class=tokenizer,
)
print(f"loss with a mask: {trainer.train().training_loss:.3f}")


# Soft weights: TRL's preparation would drop them, so the rows are packed here and handed on as
# they are. The mixin makes the loss a weighted mean.
class WeightedSFT(TokenWeightMixin, SFTTrainer):
    pass


assert max(len(row["input_ids"]) for row in weighted) <= LENGTH  # packing would cut longer rows
rows = Dataset.from_list(weighted).select_columns(["input_ids", "labels", "loss_weights"])
trainer = WeightedSFT(
    model,
    SFTConfig(dataset_kwargs={"skip_prepare_dataset": True}, loss_type="nll", **settings),
    train_dataset=pack_dataset(rows, LENGTH, "bfd"),
    processing_class=tokenizer,
    data_collator=LossMaskCollator(tokenizer.pad_token_id, flatten=True, emit_weights=True),
)
print(f"loss with weights: {trainer.train().training_loss:.3f}")
