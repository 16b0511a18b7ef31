"""Soft weights, token-level selections, and segments drawn at random."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from tiny import make_attribution, make_scores

from segattr import Attribution, EncodedTrace, SegmentScores, strength_weights, top_tokens
from segattr.training import random_segments, training_row


def attribution(*token_scores: float) -> Attribution:
    """Segments of 2 + 5 + 3 tokens, and a high score outside of them."""
    return make_attribution(token_scores[:2], token_scores[2:7], token_scores[7:], outside=9.0)


def test_weights_equal_their_formula():
    strength = [0.1, 0.2, 0.3, 0.4]
    mean, spread = 0.25, (0.05 / 4) ** 0.5
    exponents = ((torch.tensor(strength, dtype=torch.float64) - mean) / spread).exp()
    expected = (4 * exponents / exponents.sum()).clamp(0.25, 4)
    got = strength_weights(make_scores(*strength))
    assert torch.allclose(got, expected, rtol=1e-12)
    assert got[0] == 0.25  # 4 * softmax would be 0.15
    flat = strength_weights(make_scores(*strength), temperature=1e9)
    assert torch.allclose(flat, torch.ones(4).double())
    sharp = strength_weights(make_scores(*strength), temperature=0.01, bounds=(0.5, 2.0))
    assert sharp.tolist() == [0.5, 0.5, 0.5, 2.0]


def test_equal_strengths_weigh_1():
    assert strength_weights(make_scores(*[0.1 + 0.2, 0.3, 0.3])).tolist() == [1, 1, 1]
    assert strength_weights(make_scores(1.0)).tolist() == [1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0}, "above 0, got 0"),
        ({"temperature": float("nan")}, "above 0, got nan"),
        ({"bounds": (0.0, 2.0)}, r"0 < lowest <= 1 <= highest, got \(0.0, 2.0\)"),
        ({"bounds": (1.5, 2.0)}, "lowest <= 1"),
    ],
)
def test_bad_weights(options, message):
    with pytest.raises(ValueError, match=message):
        strength_weights(make_scores(0.5, 0.5), **options)


def test_top_tokens_by_size_and_by_sign():
    found = attribution(0.1, 0.2, -5.0, 4.0, 0.0, 3.0, 0.0, 1.0, -2.0, 0.5)
    # 5 of 10 tokens; of the prompt and the stub none is chosen, large as they are.
    assert top_tokens(found, 0.5, keep_ends=False).tolist() == [0, 0, 1, 1, 0, 1, 0, 1, 1, 0]
    signed = top_tokens(found, 0.5, signed=True, keep_ends=False)
    assert signed.tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 0, 1]
    with_ends = top_tokens(found, 0.1)
    assert with_ends.tolist() == [1, 1, 1, 0, 0, 0, 0, 1, 1, 1]


def test_the_share_is_rounded_up_and_the_earlier_of_equals_is_chosen():
    equal = attribution(*[1.0] * 10)
    assert top_tokens(equal, 0.31, keep_ends=False).tolist() == [1] * 4 + [0] * 6
    assert (
        top_tokens(equal, 0.3, keep_ends=False).tolist() == [1] * 3 + [0] * 7
    )  # 3.0000000000000004
    with pytest.raises(ValueError, match=r"share must be in \(0, 1\], got 0"):
        top_tokens(equal, 0)


def many(important: int = 20) -> tuple[EncodedTrace, SegmentScores]:
    """40 segments of one token each, the first ones important."""
    encoded = EncodedTrace(range(43), (0, 1), [(at, at + 1) for at in range(1, 41)], (42, 43))
    return encoded, make_scores(*[1.0] * important, *[0.0] * (40 - important))


def test_random_segments_are_as_many_as_important_ones():
    encoded, found = many(13)
    assert random_segments(encoded, found, keep_ends=False).sum() == 13
    assert not random_segments(*many(0), keep_ends=False).any()
    assert random_segments(*many(40), keep_ends=False).all()


def test_random_segments_depend_on_the_seed():
    encoded, found = many()
    drawn = random_segments(encoded, found)
    assert drawn.dtype == torch.bool
    assert torch.equal(drawn, random_segments(encoded, found, seed=0))
    assert not torch.equal(drawn, random_segments(encoded, found, seed=1))


def test_random_segments_are_those_of_every_run():
    """A selection drawn anew, years later or elsewhere, is the same selection."""
    drawn = random_segments(*many(5), keep_ends=False, seed=3)
    assert drawn.nonzero().flatten().tolist() == [14, 26, 27, 28, 35]


def test_random_segments_depend_on_nothing_else():
    encoded, found = many()
    drawn = random_segments(encoded, found)
    # Other scores of as many important segments; another id, stub, answer and response.
    others = dataclasses.replace(found, strength=found.strength.flip(0), kept=~found.kept)
    flipped = dataclasses.replace(others, important=found.important.flip(0))
    ids = torch.cat([encoded.input_ids[:41], torch.tensor([7, 7])])
    other = dataclasses.replace(encoded, input_ids=ids, response_ids=torch.tensor([9]), id="x")
    assert torch.equal(drawn, random_segments(other, flipped))


@pytest.mark.parametrize("at", [0, 3], ids=["prompt", "reasoning"])
def test_random_segments_depend_on_prompt_and_reasoning(at):
    encoded, found = many()
    ids = encoded.input_ids.clone()
    ids[at] = 7
    other = dataclasses.replace(encoded, input_ids=ids)
    assert not torch.equal(random_segments(encoded, found), random_segments(other, found))


def test_random_segments_are_drawn_evenly():
    encoded, found = many()
    draws = [random_segments(encoded, found, seed=s, keep_ends=False) for s in range(400)]
    counts = torch.stack(draws).sum(0)
    # 400 draws of probability 1/2 have a standard deviation of 10.
    assert ((counts - 200).abs() < 45).all()


def test_random_segments_keep_the_ends():
    for seed in range(10):
        drawn = random_segments(*many(3), seed=seed)
        alone = random_segments(*many(3), seed=seed, keep_ends=False)
        assert drawn[0]
        assert drawn[-1]
        assert torch.equal(drawn[1:-1], alone[1:-1])


@pytest.mark.parametrize("keep_ends", [True, False])
def test_the_segment_before_the_last_can_be_kept_too(keep_ends):
    options = {"keep_ends": keep_ends, "keep_second_to_last": True}
    drawn = random_segments(*many(0), **options)
    assert drawn.nonzero().flatten().tolist() == ([0, 38, 39] if keep_ends else [38])
    found = make_attribution([5.0], [1.0, 1.0], [1.0, 1.0, 1.0], [1.0])
    chosen = top_tokens(found, 0.1, **options)
    assert chosen.tolist() == [1, 0, 0, 1, 1, 1, int(keep_ends)]


def test_random_segments_are_weights_of_a_row():
    encoded, found = many()
    drawn = random_segments(encoded, found)
    assert training_row(encoded, weights=drawn)["assistant_masks"][1:] == drawn.int().tolist()


def test_random_segments_of_another_trace_are_refused():
    encoded, found = many()
    with pytest.raises(ValueError, match="this trace's 40 segments, got 2"):
        random_segments(encoded, make_scores(0.5, 0.5))
    with pytest.raises(TypeError, match="scores must be a SegmentScores, got a NoneType"):
        random_segments(encoded, None)
    with pytest.raises(TypeError, match="encoded must be an EncodedTrace, got a dict"):
        random_segments({}, found)
