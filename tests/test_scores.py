"""The paper's Eqs. 3-7, their ties and edges, and what must not change a selection."""

from __future__ import annotations

import dataclasses
import math
import warnings

import pytest
import torch
from tiny import make_attribution as attribution

from segattr import Attribution, SegmentScorer, UndecidedWarning
from segattr.scores import jaccard, segment_samples, segment_sums


def important(result) -> list[int]:
    return result.important.nonzero().flatten().tolist()


def test_strength_is_the_absolute_sum_over_the_root_of_the_length():
    """Eqs. 3-4."""
    scores = SegmentScorer().score(attribution([1.0, -2.0], [3.0], [0.5, 0.5, 0.5, 0.5]))
    raw = torch.tensor([3 / math.sqrt(2), 3.0, 2 / math.sqrt(4)]).double()
    torch.testing.assert_close(scores.strength, raw / raw.sum())


def test_consistency_is_the_share_that_does_not_cancel():
    """Eq. 5."""
    scores = SegmentScorer().score(attribution([1.0, -2.0], [3.0, 1.0], [-1.0, -1.0], [1.0, -1.0]))
    torch.testing.assert_close(scores.consistency, torch.tensor([1 / 3, 1.0, 1.0, 0.0]).double())


def test_important_segments_reach_tau_inclusively():
    """Eq. 6: strengths .5, .2, .2, .1; the first two are exactly tau = .7."""
    segments = attribution([5.0], [2.0], [2.0], [1.0])
    assert important(SegmentScorer(tau=0.7, beta=1).score(segments)) == [0, 1]
    assert important(SegmentScorer(tau=0.71, beta=1).score(segments)) == [0, 1, 2]
    assert important(SegmentScorer(tau=0.5, beta=1).score(segments)) == [0]
    assert important(SegmentScorer(tau=1.0, beta=1).score(segments)) == [0, 1, 2, 3]


def test_consistent_segments_are_dropped_and_not_replaced():
    """Eq. 7: at most beta, inclusively; nothing moves up in their place."""
    segments = attribution([4.0, 1.0], [3.0, -1.0], [1.0, -1.0], [0.5, -0.1])
    assert important(SegmentScorer(tau=0.7, beta=0.8).score(segments)) == [1]
    assert important(SegmentScorer(tau=0.7, beta=0.5).score(segments)) == [1]
    assert important(SegmentScorer(tau=0.7, beta=0.49).score(segments)) == []


def test_the_ends_are_kept_but_not_important():
    scores = SegmentScorer(tau=0.5, beta=1).score(attribution([1.0], [9.0], [1.0], [1.0]))
    assert important(scores) == [1]
    assert scores.kept.tolist() == [True, True, False, True]
    assert SegmentScorer(tau=0.5, beta=1, keep_ends=False).score(
        attribution([1.0], [9.0])
    ).kept.tolist() == [False, True]


@pytest.mark.parametrize(
    ("count", "ends_too", "alone"),
    [
        (1, [True], [False]),
        (2, [True, True], [True, False]),
        (3, [True, True, True], [False, True, False]),
        (5, [True, False, False, True, True], [False, False, False, True, False]),
    ],
)
def test_the_segment_before_the_last_can_be_kept_too(count, ends_too, alone):
    """As the released code does. Nothing is important: every segment is of one token."""
    segments = attribution(*[[1.0]] * count)
    for keep_ends, expected in ((True, ends_too), (False, alone)):
        scorer = SegmentScorer(keep_ends=keep_ends, keep_second_to_last=True)
        scores = scorer.score(segments)
        assert scores.kept.tolist() == expected
        assert not scores.important.any()


def test_ties_keep_the_earlier_segment():
    assert important(SegmentScorer(tau=0.5, beta=1).score(attribution(*[[1.0]] * 6))) == [0, 1, 2]


def test_rounding_does_not_add_segments_at_tau_1():
    segments = attribution(*[[0.1]] * 10, [0.0])
    assert important(SegmentScorer(tau=1.0, beta=1).score(segments)) == list(range(10))


def test_effective_tokens():
    scores = SegmentScorer().score(attribution([1.0, -1.0, 1.0, -1.0], [5.0, 0.0, 0.0]))
    torch.testing.assert_close(scores.effective_tokens, torch.tensor([4.0, 1.0]).double())


def test_segments_without_attribution_have_no_strength():
    scores = SegmentScorer().score(attribution([1.0, -1.0], [], [0.0, 0.0], [2.0, -1.0]))
    assert scores.strength[[1, 2]].tolist() == [0, 0]
    assert scores.consistency[[1, 2]].tolist() == [0, 0]
    assert torch.isfinite(
        torch.stack([scores.strength, scores.consistency, scores.effective_tokens])
    ).all()


@pytest.mark.parametrize("change", [lambda a: -a, lambda a: 1e-6 * a, lambda a: 1e6 * a])
def test_sign_and_scale_change_nothing(change):
    whole = attribution([1.0, -2.0], [3.0, 2.0], [0.5, -0.4, 0.1])
    changed = Attribution(change(whole.token_scores), whole.encoded, -1.0, -2.0, 1, "by hand")
    before, after = SegmentScorer().score(whole), SegmentScorer().score(changed)
    torch.testing.assert_close(after.strength, before.strength)
    torch.testing.assert_close(after.consistency, before.consistency)
    assert torch.equal(after.kept, before.kept)


def test_order_inside_a_segment_changes_nothing():
    before = SegmentScorer().score(attribution([1.0, -2.0, 0.5], [3.0, 2.0]))
    after = SegmentScorer().score(attribution([0.5, 1.0, -2.0], [2.0, 3.0]))
    torch.testing.assert_close(after.strength, before.strength)
    torch.testing.assert_close(after.consistency, before.consistency)


@pytest.mark.parametrize(("normalization", "power"), [("none", 0), ("length", 1)])
def test_other_normalizations(normalization, power):
    scores = SegmentScorer(normalization=normalization).score(attribution([1.0, 1.0], [3.0]))
    raw = torch.tensor([2 / 2**power, 3.0]).double()
    torch.testing.assert_close(scores.strength, raw / raw.sum())


def test_no_attribution_at_all_is_an_error():
    with pytest.raises(
        ValueError, match="segments must have some attribution, got 0 for every token"
    ):
        SegmentScorer().score(attribution([0.0], [0.0, 0.0]))


def test_nan_is_an_error():
    with pytest.raises(ValueError, match="finite, got nan at token 2"):
        SegmentScorer().score(attribution([1.0], [float("nan")]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tau": 0}, r"tau must be in \(0, 1\], got 0"),
        ({"tau": 1.1}, "tau must be"),
        ({"beta": -0.1}, r"beta must be in \[0, 1\], got -0.1"),
        ({"normalization": "cube"}, "normalization must be one of 'sqrt-length'"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        SegmentScorer(**settings)


def with_samples(base: Attribution, *others: list[float]) -> Attribution:
    """The attribution, which may as well be one of the others."""
    tokens = torch.stack([base.token_scores, *(torch.tensor([0.0, *o, 0.0, 0.0]) for o in others)])
    samples = segment_samples(tokens.double(), base.encoded.segments)
    return dataclasses.replace(base, segment_samples=samples, converged=False)


def test_segment_samples_are_sums():
    tokens = torch.tensor([[9.0, 1, -2, 3, 4, 9], [9.0, 0, 0, -1, -1, 9]]).double()
    samples = segment_samples(tokens, [(1, 3), (3, 3), (3, 5)])
    assert samples.tolist() == [[[-1, 3], [0, 0], [7, 7]], [[0, 0], [0, 0], [-2, 2]]]


def test_an_exact_attribution_leaves_nothing_undecided():
    scores = SegmentScorer().score(attribution([1.0, -2.0], [3.0, -1.0]))
    assert scores.undecided is scores.agreement is None
    assert scores.strength_error is scores.consistency_error is None
    same = with_samples(attribution([1.0, -2.0], [3.0, -1.0]), [1.0, -2.0, 3.0, -1.0])
    scores = SegmentScorer().score(same)
    assert not scores.undecided.any()
    assert scores.agreement == 1
    assert scores.strength_error.tolist() == scores.consistency_error.tolist() == [0, 0]


def test_segments_that_another_sample_would_keep_are_undecided():
    """Of four segments the ends are always kept; which of the others is stronger is open."""
    segments = [0.1, -0.1], [2.0, -2.0], [1.9, -1.9], [0.1, -0.1]
    base = with_samples(attribution(*segments), [0.1, -0.1, 1.9, -1.9, 2.0, -2.0, 0.1, -0.1])
    scorer = SegmentScorer(tau=0.4)
    with pytest.warns(
        UndecidedWarning, match=r"segments 1, 2 are undecided after 1 evaluations.*max_evaluations"
    ):
        scores = scorer.score(base)
    assert scores.undecided.tolist() == [False, True, True, False]
    assert scores.strength_error.tolist() == pytest.approx([0, 0.1 / 4.1, 0.1 / 4.1, 0])
    assert scores.agreement == pytest.approx(2 / 4)
    assert not SegmentScorer(tau=0.9).score(base).undecided.any()
    with pytest.warns(UndecidedWarning, match="segments 1 are"):
        SegmentScorer(tau=0.4, keep_second_to_last=True).score(base)


def between_one_and_two() -> Attribution:
    """The ends are always kept, and segment 1; two samples of three keep segment 2 instead."""
    same, other = [0.1, -0.1, 2.0, -2.0, 1.9, -1.9, 0.1, -0.1], [0.1, -0.1, 1.9, -1.9, 2.0, -2.0]
    segments = [0.1, -0.1], [2.0, -2.0], [1.9, -1.9], [0.1, -0.1]
    return with_samples(attribution(*segments), same, [*other, 0.1, -0.1], [*other, 0.1, -0.1])


def test_the_agreement_is_the_mean_over_the_samples():
    with pytest.warns(UndecidedWarning):
        scores = SegmentScorer(tau=0.4).score(between_one_and_two())
    assert scores.kept.tolist() == [True, True, False, True]
    assert scores.agreement == pytest.approx((1 + 2 / 4 + 2 / 4) / 3)
    assert "2 undecided, agreement 66.7%" in repr(scores)


@pytest.mark.parametrize(("asked", "warns"), [(0.6, False), (0.66, False), (0.67, True), (1, True)])
def test_a_warning_is_for_less_agreement_than_was_asked_for(asked, warns):
    """It is 2/3."""
    base = dataclasses.replace(between_one_and_two(), settings={"agreement": asked})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert SegmentScorer(tau=0.4).score(base).undecided.any()
    said = [str(warning.message) for warning in caught]
    assert [bool(said), all("(expected agreement of the kept" in s for s in said)] == [warns, True]


def test_without_an_agreement_asked_for_any_undecided_segment_is_warned_of():
    base = dataclasses.replace(between_one_and_two(), settings={"agreement": None})
    with pytest.warns(UndecidedWarning, match=r"kept segments 66\.7%\)"):
        SegmentScorer(tau=0.4).score(base)


def test_the_warning_says_what_helps():
    segments = [0.1, -0.1], [2.0, -2.0], [1.9, -1.9], [0.1, -0.1]
    base = with_samples(attribution(*segments), [0.1, -0.1, 1.9, -1.9, 2.0, -2.0, 0.1, -0.1])
    encoded = dataclasses.replace(base.encoded, id="x")
    sure = dataclasses.replace(base, converged=True, encoded=encoded)
    with pytest.warns(UndecidedWarning, match="1, 2 of trace 'x' are.*Give FastIG this scorer"):
        SegmentScorer(tau=0.4).score(sure)
    samples = base.segment_samples.clone()
    samples[1:] = torch.nan
    blind = dataclasses.replace(base, segment_samples=samples)
    with pytest.warns(UndecidedWarning, match="miss too much of F, to estimate an error from"):
        scores = SegmentScorer(tau=0.4).score(blind)
    assert scores.undecided.tolist() == [False, True, True, False]
    assert scores.strength_error.isinf().all()
    assert scores.agreement == 0
    with pytest.warns(UndecidedWarning, match="Raise max_evaluations, or use another baseline"):
        SegmentScorer(tau=0.4).score(blind)
    narrow = dataclasses.replace(blind, settings={"dtype": "bfloat16", "rounding": 0.1})
    with pytest.warns(UndecidedWarning, match="Use a wider dtype, .*, or another baseline"):
        SegmentScorer(tau=0.4).score(narrow)
    settings = {"dtype": "bfloat16", "rounding": 0.1, "stopped_by_rounding": True}
    stopped = dataclasses.replace(base, converged=False, settings=settings)
    with pytest.warns(UndecidedWarning, match="rounding in bfloat16 may.*Use a wider dtype"):
        SegmentScorer(tau=0.4).score(stopped)
    with pytest.warns(UndecidedWarning, match="segments 0, 1, 2, 3 are"):
        SegmentScorer(keep_ends=False).score(blind)
    with pytest.warns(UndecidedWarning, match="segments 1 are"):
        SegmentScorer(keep_second_to_last=True).score(blind)


def test_what_is_kept_in_any_case_agrees_without_an_estimate():
    base = with_samples(attribution([1.0, -2.0], [3.0, -1.0]), [1.0, -2.0, 3.0, -1.0])
    samples = base.segment_samples.clone()
    samples[1:] = torch.nan
    scores = SegmentScorer().score(dataclasses.replace(base, segment_samples=samples))
    assert (scores.agreement, scores.undecided.tolist()) == (1, [False, False])


def test_samples_of_other_segments_are_refused():
    base = with_samples(attribution([1.0, -2.0], [3.0, -1.0]), [1.0, -2.0, 3.0, -1.0])
    (start, _), (_, stop) = base.encoded.segments
    encoded = dataclasses.replace(base.encoded, segments=[(start, stop)])
    with pytest.raises(ValueError, match=r"must be of the 1 segments, got 2\..*these segments"):
        SegmentScorer().score(dataclasses.replace(base, encoded=encoded))


def test_the_consistency_filter_can_be_what_is_undecided():
    segments = [0.1, -0.1], [2.0, -0.2], [0.1, -0.1]
    base = with_samples(attribution(*segments), [0.1, -0.1, 2.0, -0.3, 0.1, -0.1])
    with pytest.warns(UndecidedWarning, match="segments 1 are"):
        scores = SegmentScorer(beta=0.8).score(base)
    assert scores.consistency.tolist() == pytest.approx([0, 1.8 / 2.2, 0])
    assert scores.consistency_error.tolist() == pytest.approx([0, 1.8 / 2.2 - 1.7 / 2.3, 0])
    assert not SegmentScorer(beta=1.0).score(base).undecided.any()


def test_agreement_of_sets():
    def flags(*places):
        return torch.tensor([place in places for place in range(4)])

    assert jaccard(flags(0, 1), flags(1, 2)) == pytest.approx(1 / 3)
    assert jaccard(flags(), flags()) == 1
    assert jaccard(flags(), flags(3)) == 0


def test_high_strength_is_a_beta_of_1():
    """The paper's variant without the consistency filter."""
    found = attribution([3.0], [1.0, -1.0], [0.5])
    filtered, strong = (SegmentScorer(tau=0.6, beta=b, keep_ends=False) for b in (0.8, 1.0))
    assert filtered.score(found).kept.tolist() == [False, False, False]
    assert strong.score(found).kept.tolist() == [True, False, False]


def test_finite_propagation_is_not_filtered_unless_asked():
    """Its important segments are consistent throughout, so the paper's filter would drop them."""
    gradients = attribution([0.1, -0.1], [3.0], [1.0, -1.0], [0.1, -0.1])
    differences = dataclasses.replace(gradients, method="finite-propagation")
    for tau in (0.6, 0.7):
        assert important(SegmentScorer(tau).score(gradients)) == [2] * (tau > 0.6)
        assert important(SegmentScorer(tau).score(differences))[0] == 1
        assert important(SegmentScorer(tau, beta=0.8).score(differences)) == [2] * (tau > 0.6)


def test_a_beta_that_is_left_out_is_a_number_for_every_method():
    scorer = SegmentScorer(tau=0.5)
    assert scorer.for_method("integrated-gradients") == SegmentScorer(tau=0.5, beta=0.8)
    assert scorer.for_method("finite-propagation") == SegmentScorer(tau=0.5, beta=1.0)
    assert scorer.for_method("of somebody's own") == SegmentScorer(tau=0.5, beta=0.8)
    assert SegmentScorer(beta=0.3).for_method("finite-propagation") == SegmentScorer(beta=0.3)


def test_token_scores_alone_are_enough():
    whole = attribution([1.0, -2.0], [3.0, 2.0], [0.5, -0.4, 0.1])
    scorer = SegmentScorer(beta=0.5)
    alone = scorer.score_tokens(whole.token_scores, whole.encoded.segments)
    for name in ("strength", "consistency", "effective_tokens", "important", "kept"):
        assert torch.equal(getattr(alone, name), getattr(scorer.score(whole), name))


def test_sums_are_enough_for_another_selection():
    whole = attribution([1.0, -2.0], [3.0, 2.0], [], [0.5, -0.4, 0.1])
    sums = segment_sums(whole.token_scores, whole.encoded.segments)
    assert sums.lengths.tolist() == [2, 2, 0, 3]
    assert sums.signed.tolist() == pytest.approx([-1, 5, 0, 0.2])
    assert sums.absolute.tolist() == pytest.approx([3, 5, 0, 1])
    assert sums.squares.tolist() == pytest.approx([5, 13, 0, 0.42])
    for scorer in (SegmentScorer(tau=0.3), SegmentScorer(normalization="length", beta=1)):
        scores, expected = scorer.select(sums), scorer.score(whole)
        assert torch.equal(scores.strength, expected.strength)
        assert torch.equal(scores.kept, expected.kept)


def test_sums_are_float64_whatever_the_scores_are():
    tokens = torch.full((10_001,), 0.1, dtype=torch.bfloat16)
    sums = segment_sums(tokens, [(0, 10_001)])
    assert sums.signed.item() == pytest.approx(10_001 * tokens[0].item(), rel=1e-12)


def test_scores_print_in_one_line():
    segments = attribution([1.0], [9.0], [1.0], [1.0])
    scores = SegmentScorer(tau=0.5, beta=1).score(segments)
    assert repr(scores) == (
        "SegmentScores(4 segments, 3 kept ++-+, 1 important, strongest 75.0% at 1)"
    )
    assert len(repr(SegmentScorer().score(attribution(*[[1.0]] * 5000)))) < 160


def test_a_scorer_is_a_value():
    assert SegmentScorer(0.5) == SegmentScorer(tau=0.5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        SegmentScorer().tau = 0.5


def test_what_is_no_attribution_is_named():
    with pytest.raises(TypeError, match=r"must be an Attribution, got a dict\. Pass what FastIG"):
        SegmentScorer().score({"token_scores": [1.0]})


@pytest.mark.parametrize("sign", [1, -1])
def test_rounding_leaves_no_segment_of_one_sign_undecided(sign):
    """Its consistency is 1 exactly, so that beta = 1 takes it in every sample."""
    tokens = sign * torch.arange(1, 13).double() / 10  # 0.1, 0.2, 0.3: no exact sums
    spans = [(0, 2), (2, 5), (5, 9), (9, 12)]
    factors = 1 + torch.arange(40).double()[:, None] * 1e-3 / 3
    samples = segment_samples(tokens * factors, spans)
    scorer = SegmentScorer(tau=1.0, beta=1.0, keep_ends=False)
    verdict = scorer.judge(samples, spans)
    assert verdict["undecided"].tolist() == [False] * 4
    assert verdict["consistency_error"].tolist() == [0.0] * 4
    scores = scorer.score_tokens(tokens, spans)
    assert scores.consistency.tolist() == [1.0] * 4
    assert scores.kept.all()
