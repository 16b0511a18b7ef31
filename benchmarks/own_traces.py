"""Have SmolLM2-135M-Instruct write traces: `python benchmarks/own_traces.py`, 20 minutes.

Short ones that it reads, as it wrote them: for every question the shortest of its samples that
takes some steps and ends with the right answer. What it writes depends on torch's random numbers,
so the traces that everything is measured on are kept, in own_traces.jsonl.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from real_model import load_real

from segattr.segments import split_sentences

FILE = Path(__file__).with_name("own_traces.jsonl")
SAMPLES, NEW_TOKENS, FEWEST_STEPS, SEED = 16, 160, 4, 2026
ASK = " Think step by step, then write 'The answer is' and the answer."
ENDING = re.compile(r"\s*(So,? |Therefore,? |Thus,? )?the answer is:? *(.+?)\.?\s*", re.IGNORECASE)
QUESTIONS = {
    "Tom has 3 boxes with 4 pens each. How many pens does he have?": "12",
    "A train travels 60 miles in one hour. How many miles does it travel in 3 hours?": "180",
    "Sara is 12 years old. Her brother is 3 years younger. How old is her brother?": "9",
    "A book costs 8 dollars and a pen costs 2 dollars. What do both cost together?": "10",
    "A pack has 6 eggs. How many eggs are in 5 packs?": "30",
    "Ben had 20 coins and gave 7 away. How many coins does he have left?": "13",
    "Which is larger, 5 times 5 or 4 times 6?": "5 times 5",
    "What is 10 percent of 50?": "5",
    "What is 12 plus 15?": "27",
    "What is 7 times 8?": "56",
    "What is half of 84?": "42",
    "What is 100 minus 36?": "64",
    "A square has sides of 5 cm. What is its area in square cm?": "25",
    "A rectangle is 4 cm wide and 6 cm long. What is its area in square cm?": "24",
    "A triangle has angles of 60 and 70 degrees. What is the third angle in degrees?": "50",
    "How many minutes are in 2 hours?": "120",
    "How many days are in 3 weeks?": "21",
    "How many legs do 4 dogs have in total?": "16",
    "How many seconds are in one minute?": "60",
    "How many months are in 2 years?": "24",
    "What is the capital of France?": "Paris",
    "Which planet is the largest in the solar system?": "Jupiter",
    "Which planet is known as the red planet?": "Mars",
    "What gas do plants take in for photosynthesis?": "carbon dioxide",
    "What is the chemical formula of water?": "H2O",
    "At what temperature in degrees Celsius does water boil?": "100",
    "Which ocean is the largest?": "Pacific Ocean",
    "How many continents are there?": "7",
    "Which animal is larger, an elephant or a mouse?": "elephant",
    "What is the opposite of hot?": "cold",
    "What color do you get when you mix blue and yellow?": "green",
    "If today is Monday, which day is tomorrow?": "Tuesday",
}


def written(model: Any, tokenizer: Any, question: str) -> Iterator[str]:
    """The model's samples, of which some are cut off."""
    messages = [{"role": "user", "content": question + ASK}]
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    prompt = tokenizer(text, return_tensors="pt", add_special_tokens=False)
    torch.manual_seed(SEED)
    samples = model.generate(
        **prompt,
        do_sample=True,
        temperature=0.7,
        top_p=0.95,
        num_return_sequences=SAMPLES,
        max_new_tokens=NEW_TOKENS,
        pad_token_id=tokenizer.pad_token_id,
    )
    start = prompt["input_ids"].shape[1]
    yield from tokenizer.batch_decode(samples[:, start:], skip_special_tokens=True)


def reasoning_of(text: str, answer: str) -> str | None:
    """What leads to the right answer at the end of a text, if it is some steps."""
    text = text.strip()
    steps = [text[start:stop] for start, stop in split_sentences(text)]
    said = ENDING.fullmatch(steps[-1]) if steps else None
    if said is None or said[2].strip("'\"*").lower() != answer.lower():
        return None
    return "".join(steps[:-1]).rstrip() if len(steps) > FEWEST_STEPS else None


def main() -> None:
    model, tokenizer = load_real()
    traces: list[dict[str, str]] = []
    for question, answer in QUESTIONS.items():
        found = (reasoning_of(text, answer) for text in written(model, tokenizer, question))
        right = sorted((text for text in found if text), key=len)
        print(f"{len(right)} of {SAMPLES}: {question}", file=sys.stderr, flush=True)
        if right:
            name = f"own-{len(traces) + 1:02d}"
            record = {"question": question, "reasoning": right[0], "answer": answer}
            traces.append({"id": name, **record})
    FILE.write_text("".join(json.dumps(trace) + "\n" for trace in traces))


if __name__ == "__main__":
    main()
