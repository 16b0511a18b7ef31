"""Fine-tune on the segments that matter, with transformers' Trainer.

Runs as it stands, on the bundled model and traces. For a file of traces, ``segattr score`` does the
first half: its output is a data set with these columns.
"""

import torch
from transformers import Trainer, TrainingArguments

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

model, tokenizer = load_demo()
scorer = SegmentScorer()
ig = FastIG(model, tokenizer)

masked, weighted = [], []
for record in load_records()[:8]:
    attribution = ig.attribute(Trace.from_record(record))
    scores = scorer.score(attribution)
    masked.append(training_row(attribution.encoded, scores))
    weighted.append(training_row(attribution.encoded, weights=strength_weights(scores)))

arguments = TrainingArguments(
    output_dir="out",
    per_device_train_batch_size=4,
    gradient_accumulation_steps=2,
    learning_rate=1e-4,
    max_steps=2,
    report_to=[],
    save_strategy="no",
    disable_tqdm=True,
    use_cpu=not torch.cuda.is_available(),
)

# A mask: any Trainer, here without padding.
tokens = sum(len(row["input_ids"]) for row in masked)
print(f"{sum(sum(row['assistant_masks']) for row in masked)} of {tokens} tokens carry loss")
collator = LossMaskCollator(tokenizer.pad_token_id, flatten=True)
trainer = Trainer(model, arguments, train_dataset=masked, data_collator=collator)
print(f"loss with a mask: {trainer.train().training_loss:.3f}")


# Soft weights: a Trainer with the mixin, and a collator that hands the weights on.
class WeightedTrainer(TokenWeightMixin, Trainer):
    pass


collator = LossMaskCollator(tokenizer.pad_token_id, flatten=True, emit_weights=True)
trainer = WeightedTrainer(model, arguments, train_dataset=weighted, data_collator=collator)
print(f"loss with weights: {trainer.train().training_loss:.3f}")
