"""The bundled model and traces: what they promise, and that the generator makes what it says."""

from __future__ import annotations

import random
import re

import pytest
import torch

from segattr import FastIG, SegmentScorer, Trace, encode, split_segments
from segattr.cli.main import main
from segattr.demo import ASSETS
from segattr.demo.accuracy import accuracy, answers_correctly
from segattr.demo.showcase import auroc
from segattr.demo.world import KEYWORDS, LEVELS, NECESSARY, REDUNDANT, sample


def fresh(level: str, count: int, seed: int = 11):
    rng = random.Random(seed)
    return [sample(rng, LEVELS[level]) for _ in range(count)]


def test_the_weights_are_small():
    assert (ASSETS / "model" / "model.safetensors").stat().st_size <= 4_000_000


def test_easy_questions_are_answered_from_the_trace_only(demo):
    samples = fresh("easy", 100)
    assert accuracy(*demo, samples) >= 0.95
    assert accuracy(*demo, samples, without=NECESSARY) <= 0.25
    assert accuracy(*demo, samples, without=REDUNDANT) >= 0.9


def test_greedy_decoding_agrees_with_the_check_in_one_pass(demo):
    model, tokenizer = demo
    for s in fresh("hard", 4) + fresh("easy", 2, seed=3):
        for reasoning in (s.reasoning, s.without(NECESSARY)):
            encoded = encode(Trace(s.question, reasoning, s.answer), tokenizer)
            start, stop = encoded.target
            ids = encoded.input_ids[None, :start]
            generated = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=stop - start,
                min_new_tokens=stop - start,
                do_sample=False,
            )[0, start:]
            assert answers_correctly(model, encoded) == torch.equal(
                generated, encoded.input_ids[start:stop]
            )


def test_bundled_traces_are_answered_correctly(demo, records):
    model, tokenizer = demo
    assert len(records) == 36
    for record in records:
        assert answers_correctly(model, encode(Trace.from_record(record), tokenizer))


def test_bundled_traces_are_cut_where_their_segments_start(demo, records):
    for record in records:
        assert len(split_segments(record["reasoning"])) == len(record["kinds"])
        assert len(encode(Trace.from_record(record), demo[1]).segments) == len(record["kinds"])


def test_keyword_cuts_fall_inside_tokens_as_with_qwen(demo, records):
    """``".\\n\\n"`` is one token."""
    assert demo[1].tokenize("b = 7.\n\nWait, b") == ["bĠ=", "Ġ7", ".ĊĊ", "Wait", ",", "Ġb"]


def test_the_tokenizer_reads_any_text(demo):
    text = "naïve 😀 \\frac{1}{2} = 0.5\n\n\tThe  end…"
    assert demo[1].decode(demo[1](text)["input_ids"]) == text


@pytest.mark.parametrize("level", LEVELS)
def test_samples_are_what_they_say(level):
    for s in fresh(level, 30):
        assert s.reasoning == "".join(segment.text for segment in s.segments)
        assert [text.startswith("\n\n") for text in (segment.text for segment in s.segments)][
            1:
        ] == [True] * (len(s.segments) - 1)
        assert all(segment.text[2:].startswith(KEYWORDS) for segment in s.segments[1:])
        solved = [segment for segment in s.segments if segment.kind in NECESSARY]
        assert [segment.chain for segment in solved] == list(range(LEVELS[level].asked))
        answers = s.answer.split(", ")
        assert all(
            segment.text.rstrip(".").endswith(answer)
            for segment, answer in zip(solved, answers, strict=True)
        )


def test_samples_are_reproducible():
    assert fresh("hard", 3) == fresh("hard", 3)


@pytest.mark.slow(reason="25 path points of all 36 bundled traces")
def test_strength_finds_the_necessary_segments(demo, records):
    """Only the reasoning moves; all 36 bundled traces."""
    ig, scorer = FastIG(*demo, rule="midpoint", steps=25, scope="reasoning"), SegmentScorer()
    areas = []
    for record in records:
        scores = scorer.score(ig.attribute(Trace.from_record(record)))
        strengths = list(zip(record["kinds"], scores.strength.tolist(), strict=True))
        area = auroc(*([x for k, x in strengths if k in kinds] for kinds in (NECESSARY, REDUNDANT)))
        areas += [] if area is None else [area]
    assert sum(areas) / len(areas) >= 0.8


def test_demo_command(capsys, tmp_path):
    assert main(["demo", "--id", "easy-03", "--out", str(tmp_path / "demo.jsonl")]) == 0
    printed = capsys.readouterr().out
    assert "trace easy-03" in printed
    assert "Integrated Gradients keep segments 1, " in printed
    for method in ("Integrated Gradients (rule='auto')", "finite propagation (rule='secant')"):
        assert re.search(re.escape(method) + r": .*%.*\(AUROC\)", printed.replace("\n", " "))
    assert main(["demo", "--id", "nonsense"]) == 2
    assert main(["demo", "--out", str(tmp_path / "demo.jsonl")]) == 2
    assert main(["demo", "--out", str(tmp_path / "no" / "folder.jsonl")]) == 2
    assert main(["show", str(tmp_path / "demo.jsonl")]) == 0
