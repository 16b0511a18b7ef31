"""Soft weights and token-level selections."""

from __future__ import annotations

import pytest
import torch

from segattr import Attribution, EncodedTrace, SegmentScores, strength_weights, top_tokens


def scores(*strength: float) -> SegmentScores:
    values = torch.tensor(strength, dtype=torch.float64)
    return SegmentScores(values, values, values, values > 0, values > 0)


def attribution(*token_scores: float) -> Attribution:
    """Prompt 1, segments 2 + 5 + 3, stub 1, target 1."""
    encoded = EncodedTrace(range(13), (0, 1), [(1, 3), (3, 8), (8, 11)], (12, 13))
    return Attribution(torch.tensor([9.0, *token_scores, 9.0, 0.0]), encoded, -1.0, -2.0, 1)


def test_weights_equal_their_formula():
    strength = [0.1, 0.2, 0.3, 0.4]
    mean, spread = 0.25, (0.05 / 4) ** 0.5
    exponents = ((torch.tensor(strength, dtype=torch.float64) - mean) / spread).exp()
    expected = (4 * exponents / exponents.sum()).clamp(0.25, 4)
    got = strength_weights(scores(*strength))
    assert torch.allclose(got, expected, rtol=1e-12)
    assert got[0] == 0.25  # 4 * softmax would be 0.15
    flat = strength_weights(scores(*strength), temperature=1e9)
    assert torch.allclose(flat, torch.ones(4).double())
    sharp = strength_weights(scores(*strength), temperature=0.01, bounds=(0.5, 2.0))
    assert sharp.tolist() == [0.5, 0.5, 0.5, 2.0]


def test_equal_strengths_weigh_1():
    assert strength_weights(scores(*[0.1 + 0.2, 0.3, 0.3])).tolist() == [1, 1, 1]
    assert strength_weights(scores(1.0)).tolist() == [1]


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
        strength_weights(scores(0.5, 0.5), **options)


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
