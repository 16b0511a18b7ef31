"""Make the bundled demo from scratch: ``python -m segattr.demo.train``, seeded, on 2 cores.

Writes the tokenizer, a 0.3 M-parameter Qwen2 and the traces it answers correctly. What makes so
small a model learn to look values up: two previous-token heads set by hand, drills in recalling
values before any trace, loss weights that favour what can be derived, and chains, distractors and
noise that grow.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from segattr.demo import ASSETS, load_demo
from segattr.demo.accuracy import accuracy, accuracy_report, answers_correctly
from segattr.demo.lessons import Teacher
from segattr.demo.tokenizer import build_tokenizer
from segattr.demo.world import LEVELS, sample
from segattr.encoding import encode
from segattr.trace import Trace

STEPS = 8000
TRACES_PER_LEVEL = 12
CONTEXT = 65536
THETA = 10000.0


def new_model(vocab_size: int) -> Qwen2ForCausalLM:
    """Untrained model whose first two heads already look one and two tokens back."""
    config = Qwen2Config(
        vocab_size=vocab_size,
        hidden_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=192,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
        initializer_range=0.08,
    )
    model = Qwen2ForCausalLM(config)
    _set_previous_token_heads(model, sharpness=120.0)
    return model


@torch.no_grad()
def _set_previous_token_heads(model: Qwen2ForCausalLM, sharpness: float) -> None:
    """Head i attends i + 1 tokens back: a constant key, and a query rotated by that offset.

    Qwen2 has biases on queries and keys, so weights of 0 leave a score that depends on the distance
    alone.
    """
    attention = model.model.layers[0].self_attn
    width = attention.head_dim
    frequencies = THETA ** -(torch.arange(0, width, 2) / width)
    attention.k_proj.weight[:width] = 0
    attention.k_proj.bias[:width] = sharpness**0.5 * torch.cat(
        [torch.ones(width // 2), torch.zeros(width // 2)]
    )
    for head in range(2):
        angle = (head + 1) * frequencies
        rows = slice(head * width, (head + 1) * width)
        attention.q_proj.weight[rows] = 0
        attention.q_proj.bias[rows] = sharpness**0.5 * torch.cat([angle.cos(), -angle.sin()])


def train(model: Qwen2ForCausalLM, teacher: Teacher, steps: int) -> None:
    """AdamW, 100 warm-up steps, linear decay over the last 60 %."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.98), weight_decay=0.05)
    began = time.perf_counter()
    for step, (ids, weights) in enumerate(teacher.batches(random.Random(1), steps), start=1):
        rate = 1e-3 * (min(1.0, step / 100) * min(1.0, (1 - step / steps) / 0.6) + 0.005)
        for group in optimizer.param_groups:
            group["lr"] = rate
        counted = weights[:, 1:] > 0
        hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
        losses = F.cross_entropy(
            model.lm_head(hidden[counted]), ids[:, 1:][counted], reduction="none"
        )
        loss = (losses * weights[:, 1:][counted]).sum() / weights[:, 1:].sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 500 == 0:
            quiz = [
                sample(rng, LEVELS["medium"]) for rng in [random.Random(step)] for _ in range(50)
            ]
            right = accuracy(model, teacher.tokenizer, quiz)
            seconds = time.perf_counter() - began
            print(
                f"step {step}/{steps}  {right:.0%} of medium questions  {seconds:.0f} s", flush=True
            )


def draw_traces(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> Iterator[dict[str, object]]:
    """Fresh traces of every level that the model answers correctly, as JSON records."""
    rng = random.Random(2)
    for name, level in LEVELS.items():
        kept = 0
        while kept < TRACES_PER_LEVEL:
            drawn = sample(rng, level)
            if not answers_correctly(
                model, encode(Trace(drawn.question, drawn.reasoning, drawn.answer), tokenizer)
            ):
                continue
            kept += 1
            yield {
                "id": f"{name}-{kept:02d}",
                "question": drawn.question,
                "reasoning": drawn.reasoning,
                "response": f"\n\nSo the final answer is \\boxed{{{drawn.answer}}}.",
                "answer": drawn.answer,
                "kinds": drawn.kinds,
            }


def save(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write model and tokenizer so that transformers 4.57 and 5.x both read them."""
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "tokenizer")
    (folder / "model" / "generation_config.json").unlink(missing_ok=True)
    for name, facts in (
        ("model/config.json", {"rope_theta": THETA, "torch_dtype": "float32"}),
        ("tokenizer/tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"}),
    ):
        path = folder / name
        both = {**json.loads(path.read_text()), **facts}
        path.write_text(json.dumps(both, indent=1, sort_keys=True) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument(
        "--out", type=Path, default=ASSETS, help="folder to write (default: the bundled one)"
    )
    arguments = parser.parse_args()

    torch.manual_seed(0)
    torch.set_num_threads(2)
    rng = random.Random(0)
    samples = [sample(rng, LEVELS["hard"]) for _ in range(1000)]
    tokenizer = build_tokenizer(
        part for s in samples for part in (s.question, s.reasoning, s.answer, f" {s.answer}")
    )
    model = new_model(len(tokenizer))
    train(model, Teacher(tokenizer), arguments.steps)
    save(model, tokenizer, arguments.out)
    finish(arguments.out)


def finish(folder: Path) -> None:
    """Write traces and accuracy of what is in the folder: what is on disk is what counts."""
    model, tokenizer = load_demo(folder)
    with (folder / "traces.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(record) + "\n" for record in draw_traces(model, tokenizer))
    report = accuracy_report(model, tokenizer, count=500, seed=3)
    (folder / "accuracy.json").write_text(json.dumps(report, indent=1) + "\n")
    print(*(f"{value:6.1%}  {name}" for name, value in report.items()), sep="\n")


if __name__ == "__main__":
    main()
