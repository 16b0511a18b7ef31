"""GRPO whose updates are stronger where the completion matters for the answer.

Every completion is attributed by the policy itself; the strength of its segments becomes a weight
of mean 1 on the advantages of their tokens. Runs as it stands, on the bundled model and questions,
with TRL >= 0.29.
"""

import itertools

import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from segattr import EncodedTrace, FastIG, GRPOTokenWeightMixin, SegmentScorer, strength_weights
from segattr.demo import load_demo, load_records
from segattr.encoding import STUB

model, tokenizer = load_demo()
scorer = SegmentScorer()


def token_ids(text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def encode(prompt: list[int], completion: list[int], answer: str) -> EncodedTrace:
    """Tokens as they were sampled, a segment a line, then the right answer."""
    cuts = [at + 1 for at, token in enumerate(completion) if "\n" in tokenizer.decode([token])]
    edges = sorted({0, *cuts, len(completion)})
    start, stub, target = len(prompt), token_ids(STUB), token_ids(answer)
    stop = start + len(completion) + len(stub)
    return EncodedTrace(
        input_ids=prompt + completion + stub + target,
        prompt=(0, start),
        segments=[(start + a, start + b) for a, b in itertools.pairwise(edges)],
        target=(stop, stop + len(target)),
    )


class AttributedGRPO(GRPOTokenWeightMixin, GRPOTrainer):
    def token_weights(self, inputs, completion_ids, completion_mask):
        policy = self.accelerator.unwrap_model(self.model)
        ig = FastIG(policy, tokenizer, rule="midpoint", steps=8, scope="reasoning")
        weights = torch.ones_like(completion_mask, dtype=torch.float32)
        for row, ids, mask, weight in zip(
            inputs, completion_ids, completion_mask, weights, strict=True
        ):
            prompt = tokenizer.apply_chat_template(
                row["prompt"], add_generation_prompt=True, tokenize=False
            )
            if not (length := int(mask.sum())):
                continue  # a completion that TRL leaves out
            encoded = encode(token_ids(prompt), ids[:length].tolist(), row["answer"])
            strengths = strength_weights(scorer.score(ig.attribute(encoded)))
            for (start, stop), value in zip(encoded.segments, strengths, strict=True):
                weight[start - encoded.prompt[1] : stop - encoded.prompt[1]] = value
            weight[:length] /= weight[:length].mean()
        print(f"weights between {weights.min():.2f} and {weights.max():.2f}")
        return weights


def finds_the_answer(completions, answer, **_):
    return [float(a in c[0]["content"]) for c, a in zip(completions, answer, strict=True)]


def is_brief(completions, **_):
    return [-len(c[0]["content"]) / 1000 for c in completions]


rows = [
    {"prompt": [{"role": "user", "content": record["question"]}], "answer": record["answer"]}
    for record in load_records()[:4]
]
trainer = AttributedGRPO(
    model,
    reward_funcs=[finds_the_answer, is_brief],
    args=GRPOConfig(
        output_dir="out",
        per_device_train_batch_size=4,
        num_generations=4,
        max_completion_length=64,
        max_steps=2,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
        bf16=torch.cuda.is_available(),
    ),
    train_dataset=Dataset.from_list(rows),
    processing_class=tokenizer,
)
print(f"policy loss: {trainer.train().training_loss:.4f}")
