"""Score traces, then fine-tune with transformers' Trainer on the segments that matter.

Runs as it stands with the bundled model and traces (needs accelerate); replace the four lines
under "yours" to use your own.
"""

import tempfile

from transformers import Trainer, TrainingArguments

from segattr import FastIG, LossMaskCollator, SegmentScorer, Trace, training_row
from segattr.demo import load_demo, load_records

# yours: a causal LM, its tokenizer, and traces
model, tokenizer = load_demo()
traces = [Trace.from_record(record) for record in load_records()[:8]]
ig = FastIG(model, tokenizer, scope="reasoning")
scorer = SegmentScorer(beta=1.0)

rows = [
    training_row(attribution.encoded, scorer.score(attribution))
    for attribution in ig.attribute_many(traces)
]
trained = sum(label != -100 for row in rows for label in row["labels"])
print(f"{trained} of {sum(len(row['labels']) for row in rows)} tokens carry loss")

with tempfile.TemporaryDirectory() as folder:
    arguments = TrainingArguments(
        folder, per_device_train_batch_size=4, max_steps=4, learning_rate=1e-4, report_to=[]
    )
    trainer = Trainer(
        model,
        arguments,
        train_dataset=rows,
        data_collator=LossMaskCollator(tokenizer.pad_token_id),
    )
    print(f"mean loss {trainer.train().training_loss:.3f}")
