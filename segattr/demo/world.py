"""Synthetic reasoning traces whose important and redundant segments are known.

A question defines chains of single-letter variables (arithmetic modulo 10), shuffles the
definitions and asks for the last variable of some chains. The trace solves those chains, takes
wrong turns, repeats itself, solves chains nobody asked for and checks what it already knows. Every
segment after the first opens with a keyword of the paper's list.

    Given: c is 9. a is 3. b is a plus 4. Find b?        ->  b = 7
"""

from __future__ import annotations

import random
from dataclasses import dataclass

NAMES = "abcdefghijklmnopqrst"
KEYWORDS = ("Wait", "Alternatively", "But wait", "However", "Going back", "Another")
NECESSARY = frozenset({"solve", "correct"})
REDUNDANT = frozenset({"distract", "trunc", "repeat", "filler", "verify"})
FILLERS = (
    "let me check again step by step.",
    "hmm not sure.",
    "so let me find the answer.",
    "I thought that step by step.",
    "let me check that again.",
    "not sure so let me find that step by step.",
)


@dataclass(frozen=True)
class Level:
    """How hard a question is: asked chains, distractor chains, and the range of noise segments."""

    asked: int
    distractors: int
    noise: tuple[int, int]
    hops: tuple[int, int] = (1, 2)
    wrong: float = 0.25
    verify: bool = False


LEVELS = {
    "easy": Level(asked=1, distractors=1, noise=(3, 6)),
    "medium": Level(asked=2, distractors=2, noise=(4, 8)),
    "hard": Level(asked=3, distractors=2, noise=(8, 12)),
}


@dataclass(frozen=True)
class Step:
    """One definition and the value it leads to; ``source`` is ``None`` for ``name is 3``."""

    name: str
    value: int
    source: Step | None = None
    op: str = "plus"
    operand: int = 0

    @property
    def definition(self) -> str:
        if self.source is None:
            return f"{self.name} is {self.value}"
        return f"{self.name} is {self.source.name} {self.op} {self.operand}"

    @property
    def assignment(self) -> str:
        return f"{self.name} = {self.value}"

    @property
    def derivation(self) -> str:
        known = f" {self.source.assignment};" if self.source else ""
        return f"{self.definition};{known} {self.assignment}."


Chain = list[Step]


@dataclass(frozen=True)
class Segment:
    """One segment with its kind; ``chain`` is the asked chain it derives, or -1."""

    text: str
    kind: str
    chain: int = -1


@dataclass(frozen=True)
class Sample:
    """A question, its trace as typed segments, and the answer."""

    question: str
    segments: list[Segment]
    answer: str

    @property
    def reasoning(self) -> str:
        return "".join(segment.text for segment in self.segments)

    @property
    def kinds(self) -> list[str]:
        return [segment.kind for segment in self.segments]

    def without(self, kinds: frozenset[str]) -> str:
        """Return the reasoning with all segments of these kinds taken out."""
        return "".join(segment.text for segment in self.segments if segment.kind not in kinds)


def sample(rng: random.Random, level: Level, concise: bool = False) -> Sample:
    """Draw one question and its trace; a concise trace has neither noise nor wrong turns."""
    chains = _draw_chains(rng, level.asked + level.distractors, level.hops)
    asked = chains[: level.asked]
    body = _solve(rng, asked, wrong=0.0 if concise else level.wrong)
    for _ in range(0 if concise else rng.randint(*level.noise)):
        _insert_noise(rng, body, chains, level)

    targets = " and ".join(chain[-1].name for chain in asked)
    definitions = [step.definition for chain in chains for step in chain]
    rng.shuffle(definitions)
    setup = Segment(f"I need {targets}. Let me find {asked[0][-1].name}.", "setup")
    opened = [Segment(f"\n\n{_keyword(rng, s)}, {s.text}", s.kind, s.chain) for s in body]
    return Sample(
        question=f"Given: {'. '.join(definitions)}. Find {targets}?",
        segments=[setup, *opened],
        answer=", ".join(chain[-1].assignment for chain in asked),
    )


def _draw_chains(rng: random.Random, count: int, hops: tuple[int, int]) -> list[Chain]:
    names = iter(rng.sample(NAMES, len(NAMES)))
    chains = []
    for _ in range(count):
        chain = [Step(next(names), rng.randrange(10))]
        for _ in range(rng.randint(*hops)):
            op, operand, last = rng.choice(("plus", "minus")), rng.randrange(1, 10), chain[-1]
            value = (last.value + (operand if op == "plus" else -operand)) % 10
            chain.append(Step(next(names), value, last, op, operand))
        chains.append(chain)
    return chains


def _derive(chain: Chain) -> str:
    return " ".join(step.derivation for step in chain)


def _solve(rng: random.Random, asked: list[Chain], wrong: float) -> list[Segment]:
    """Derive every asked chain, some of them wrongly first and then corrected."""
    body = []
    for index, chain in enumerate(asked):
        if rng.random() >= wrong:
            body.append(Segment(_derive(chain), "solve", index))
            continue
        last = chain[-1]
        slip = rng.choice([digit for digit in range(10) if digit != last.value])
        mistaken = Step(last.name, slip, last.source, last.op, last.operand)
        again = _derive(chain) if rng.random() < 0.5 else last.derivation
        body.append(Segment(_derive([*chain[:-1], mistaken]), "wrong", index))
        body.append(Segment(f"that is wrong. {again}", "correct", index))
    return body


def _insert_noise(
    rng: random.Random, body: list[Segment], chains: list[Chain], level: Level
) -> None:
    segment = _draw_noise(rng, chains, level)
    first = 0
    if segment.kind == "verify":  # only what was derived before can be checked
        solved = [i for i, s in enumerate(body) if s.chain == segment.chain and s.kind in NECESSARY]
        first = 1 + max(solved)
    at = rng.randint(first, len(body))
    while (
        0 < at < len(body) and body[at].kind == "correct"
    ):  # never between a slip and its correction
        at += 1
    body.insert(at, segment)


def _draw_noise(rng: random.Random, chains: list[Chain], level: Level) -> Segment:
    kind = rng.choices(("distract", "trunc", "repeat", "filler"), (0.35, 0.25, 0.2, 0.2))[0]
    distractors = chains[level.asked :]
    if level.verify and rng.random() < 0.25:
        index = rng.randrange(level.asked)
        return Segment(f"check again. {_derive(chains[index])}", "verify", index)
    if kind == "distract" and distractors:
        return Segment(_derive(rng.choice(distractors)), "distract")
    if kind == "trunc":
        chain = rng.choice(chains)
        start = f"let me find {chain[-1].name}. {_derive(chain[:-1])}".rstrip()
        return Segment(f"{start} so {chain[-1].name} is hmm.", "trunc")
    if kind == "repeat":
        parts = [_derive(chain[:-1]) for chain in rng.sample(chains, min(2, len(chains)))]
        return Segment(
            f"I thought that {' '.join(part for part in parts if part) or 'hmm.'}", "repeat"
        )
    return Segment(" ".join(rng.choice(FILLERS) for _ in range(rng.randint(3, 6))), "filler")


def _keyword(rng: random.Random, segment: Segment) -> str:
    return "Wait" if segment.kind == "correct" else rng.choice(KEYWORDS)
