"""The two-stage schedule for instruct models: full traces first, then the segments that matter.

Appendix C.3 of arXiv 2602.00425 trains Qwen2.5-7B-Instruct for 7 epochs on full traces at a rate of
1.5e-5, then for 4 epochs on the kept segments at 8e-6. One attribution serves both stages: their
rows differ in their labels only.
"""

import torch
from transformers import Trainer, TrainingArguments

from segattr import FastIG, LossMaskCollator, SegmentScorer, Trace, training_row
from segattr.demo import load_demo, load_records

STAGES = {"full": (7, 1.5e-5), "selective": (4, 8e-6)}  # epochs, learning rate
SHORT = 10  # the demonstration runs a tenth of the epochs

model, tokenizer = load_demo()
scorer = SegmentScorer()
ig = FastIG(model, tokenizer)

rows = {"full": [], "selective": []}
for record in load_records()[:8]:
    attribution = ig.attribute(Trace.from_record(record))
    encoded, scores = attribution.encoded, scorer.score(attribution)
    rows["full"].append(training_row(encoded, weights=[1.0] * len(encoded.segments)))
    rows["selective"].append(training_row(encoded, scores))

for stage, (epochs, learning_rate) in STAGES.items():
    arguments = TrainingArguments(
        output_dir=f"out/{stage}",
        num_train_epochs=epochs / SHORT,
        learning_rate=learning_rate,
        lr_scheduler_type="cosine",
        per_device_train_batch_size=2,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
    )
    collator = LossMaskCollator(tokenizer.pad_token_id)
    trainer = Trainer(model, arguments, train_dataset=rows[stage], data_collator=collator)
    supervised = sum(sum(row["assistant_masks"]) for row in rows[stage])
    print(f"{stage}: loss {trainer.train().training_loss:.3f} over {supervised} tokens")
