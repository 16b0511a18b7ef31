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
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from segattr.demo import ASSETS, load_demo
from segattr.demo.accuracy import accuracy, accuracy_report, answers_correctly
from segattr.demo.tokenizer import build_tokenizer
from segattr.demo.world import KEYWORDS, LEVELS, NAMES, Level, Sample, sample
from segattr.encoding import STUB, encode
from segattr.trace import Trace

STEPS = 8000
DRILL_STEPS = 600
BATCH_TOKENS = 2200
TRACES_PER_LEVEL = 12
CONTEXT = 65536
THETA = 10000.0
# Loss weights: what cannot be predicted, what can be derived from the lines before, what must be
# recalled.
RANDOM, DERIVABLE, RECALL = 0.15, 1.0, 2.0


@dataclass(frozen=True)
class Stage:
    """Part of the curriculum: it ends at a share of the steps; ``drills`` is the share of drills in
    a batch."""

    end: float
    drills: float
    level: Level


CURRICULUM = (
    Stage(0.15, 0.40, Level(2, 1, (0, 1), (0, 1), wrong=0.0)),
    Stage(0.40, 0.25, Level(3, 2, (0, 3), (0, 2), wrong=0.1)),
    Stage(1.00, 0.08, Level(3, 2, (0, 10), (1, 2), wrong=0.25)),
)


class Teacher:
    """Turns samples and drills into token ids with a loss weight for each token."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer
        spellings = [f"{space}{name} =" for name in NAMES for space in ("", " ")]
        self.assignments = set(self.pieces(*spellings))
        self.openers = set(self.pieces(" is", " plus", " minus", ";"))
        self.closers = set(self.pieces(" plus", " minus", ".", ";"))
        self.stub = tokenizer(STUB, add_special_tokens=False)["input_ids"]

    def pieces(self, *texts: str) -> list[int]:
        """Ids of texts that are one token each."""
        ids = [self.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        assert all(len(one) == 1 for one in ids), texts
        return [one[0] for one in ids]

    def lesson(self, example: Sample) -> tuple[list[int], list[float]]:
        """A trace with its answer. The question carries no loss."""
        encoded = encode(Trace(example.question, example.reasoning, example.answer), self.tokenizer)
        ids = encoded.input_ids.tolist()
        start, stop = encoded.target
        weights = [0.0] * encoded.prompt[1] + [RANDOM] * (len(ids) - encoded.prompt[1])
        for t in range(*encoded.reasoning):
            if ids[t - 1] in self.assignments:
                weights[t] = RECALL
            elif ids[t - 1] in self.openers or (
                ids[t] in self.closers and ids[t - 2] in self.openers
            ):
                weights[t] = DERIVABLE
        weights[start:stop] = [RECALL] * (stop - start)
        return [*ids, self.tokenizer.eos_token_id], [*weights, RANDOM]

    def drill(self, rng: random.Random) -> tuple[list[int], list[float]]:
        """A stream of assignments; only values seen before carry loss."""
        names = rng.sample(NAMES, rng.randint(3, 10))
        values: dict[str, int] = {}
        ids, weights = self.pieces("<user>", "<assistant>", "<think>"), [0.0] * 3

        def say(*texts: str, weight: float = 0.0) -> None:
            ids.extend(self.pieces(*texts))
            weights.extend([0.0] * (len(texts) - 1) + [weight])

        for _ in range(rng.randint(12, 40)):
            name = rng.choice(names)
            if name in values and rng.random() < 0.15:
                say(" that", " is", " wrong", ".")
                del values[name]
            weight = RECALL if name in values else 0.0
            value = values.setdefault(name, rng.randrange(10))
            say(f" {name} =", f" {value}", weight=weight)
            if rng.random() < 0.3:
                first, *rest = rng.choice(KEYWORDS).split()
                say(
                    ".\n\n",
                    first,
                    *(f" {word}" for word in rest),
                    ",",
                    rng.choice((" let", " so", " check", " hmm")),
                )
            else:
                say(rng.choice((".", ";", ",")))
        name = rng.choice(sorted(values))
        ids.extend(self.stub)
        weights.extend([0.0] * len(self.stub))
        say(f"{name} =", f" {values[name]}", weight=RECALL)
        return ids, weights

    def batches(self, rng: random.Random, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Right-padded ids and loss weights, ``[B, T]`` each, one pair a step."""
        for step in range(steps):
            stage = next(stage for stage in CURRICULUM if step / steps < stage.end)
            drills = 1.0 if step < DRILL_STEPS else stage.drills
            rows: list[tuple[list[int], list[float]]] = []
            while sum(len(ids) for ids, _ in rows) < BATCH_TOKENS:
                rows.append(
                    self.drill(rng)
                    if rng.random() < drills
                    else self.lesson(_draw(rng, stage.level))
                )
            width = max(len(ids) for ids, _ in rows)
            yield (
                torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in rows]),
                torch.tensor([weights + [0.0] * (width - len(weights)) for _, weights in rows]),
            )


def _draw(rng: random.Random, level: Level) -> Sample:
    drawn = Level(
        rng.randint(1, level.asked),
        rng.randint(0, level.distractors),
        level.noise,
        level.hops,
        level.wrong,
    )
    return sample(rng, drawn, concise=rng.random() < 0.2)


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
