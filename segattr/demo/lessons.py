"""What the bundled model is taught: traces and recall drills, as token ids with loss weights.

Axes: ``B`` rows, ``T`` tokens.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from segattr.demo.world import KEYWORDS, NAMES, Level, Sample, sample
from segattr.encoding import STUB, encode
from segattr.trace import Trace

DRILL_STEPS = 600
BATCH_TOKENS = 2200
# Loss weights: what cannot be predicted, what can be derived from the lines before, what must be
# recalled.
RANDOM, DERIVABLE, RECALL = 0.15, 1.0, 2.0


@dataclass(frozen=True)
class Stage:
    """Part of the curriculum: where it ends (share of the steps), and its share of drills."""

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
