"""FastIG with rule="auto": what it claims, what it counts, and where it stops."""

from __future__ import annotations

import warnings

import pytest
import torch
from tiny import make_model, make_trace, naive_ig

from segattr import FastIG, SegmentScorer, Trace, UndecidedWarning
from segattr.demo import load_demo, load_records
from segattr.engine.planner import Plan, Planner
from segattr.quadrature.fixed import nodes_and_weights
from segattr.quadrature.refinement import MAX_EVALUATIONS
from segattr.scores import SegmentSums, jaccard, segment_sums

pytestmark = pytest.mark.usefixtures("exact_norms")


def exact(model, trace, scope="all"):
    return naive_ig(model, trace, *nodes_and_weights("gauss-legendre", 60), scope=scope)


@pytest.mark.parametrize("scope", ["all", "reasoning"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_its_error_estimate_bounds_its_error(model, scope, seed):
    trace = make_trace(seed=seed)
    attribution = FastIG(model, scope=scope, rule="auto").attribute(trace)
    assert attribution.converged
    off = (attribution.token_scores - exact(model, trace, scope)).norm()
    assert off <= attribution.token_error.norm()
    assert attribution.token_error.norm() <= attribution.token_scores.norm()


def test_a_small_tolerance_gives_exact_scores(model, trace):
    ig = FastIG(model, scorer=None, tolerance=1e-4, max_evaluations=257, rule="auto", scope="all")
    attribution = ig.attribute(trace)
    assert attribution.converged
    expected = exact(model, trace)
    assert (attribution.token_scores - expected).norm() <= 2e-4 * expected.norm()
    loose = FastIG(model, scorer=None, tolerance=0.1, rule="auto", scope="all").attribute(trace)
    assert loose.evaluations < attribution.evaluations


def test_the_segments_errors_are_within_the_tolerance(model, trace):
    attribution = FastIG(
        model, scorer=None, tolerance=5e-3, max_evaluations=257, rule="auto", scope="all"
    ).attribute(trace)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndecidedWarning)
        scores = SegmentScorer().score(attribution)
    assert attribution.converged
    assert max(scores.strength_error.max(), scores.consistency_error.max()) <= 5e-3
    reference = FastIG(model, rule="gauss-legendre", steps=60, scope="all").attribute(trace)
    truth = SegmentScorer().score(reference)
    assert (scores.strength - truth.strength).abs().max() <= 5e-3
    assert (scores.consistency - truth.consistency).abs().max() <= 5e-3


def test_it_does_not_stop_while_the_scores_do_not_add_up():
    """The kept segments agree after 21 points already, when 5.7 % of F are missing."""
    model, tokenizer = load_demo()
    trace = Trace.from_record(load_records()[0])
    scorer = SegmentScorer(beta=1.0)

    def attribute(**limits):
        settings = {"rule": "auto", "scope": "reasoning", "scorer": scorer, "agreement": 0.5}
        return FastIG(model, tokenizer, **settings, **limits).attribute(trace)

    stopped, attribution = attribute(max_evaluations=21), attribute()
    assert scorer.score(stopped).agreement >= 0.5
    assert stopped.completeness_gap > 0.05
    assert stopped.converged is stopped.trustworthy is False
    assert stopped.doubts == ["gap", "agreement"]
    assert attribution.evaluations > 21
    assert attribution.converged is attribution.trustworthy is True


def test_what_it_reports(model, trace):
    attribution = FastIG(model, max_evaluations=64, rule="auto", scope="all").attribute(trace)
    plain = FastIG(model, rule="trapezoid", steps=9, scope="all").attribute(trace)
    assert attribution.settings["rule"] == "auto"
    assert attribution.settings["max_evaluations"] == 64
    assert FastIG(model, rule="auto", scope="all").rule.max_evaluations == MAX_EVALUATIONS
    assert 9 <= attribution.evaluations <= 64
    for name in ("target_logprob", "baseline_logprob"):  # both ends are nodes
        assert getattr(attribution, name) == pytest.approx(getattr(plain, name), rel=1e-12)
    assert attribution.token_scores.dtype == torch.float64
    assert attribution.token_error.shape == attribution.token_scores.shape
    assert attribution.token_error[trace.target[1] :].count_nonzero() == 0
    samples = attribution.segment_samples
    assert samples.shape == (33, len(trace.segments), 2)
    start, stop = trace.segments[0]
    inside = attribution.token_scores[start:stop]
    torch.testing.assert_close(samples[0, 0], torch.stack([inside.sum(), inside.abs().sum()]))
    assert (plain.converged, plain.token_error, plain.segment_samples) == (None, None, None)


def test_evaluations_are_those_of_the_engine(model, trace, monkeypatch):
    ig, counted = FastIG(model, rule="auto", scope="all"), []
    run = ig.planner.run

    def counting(alphas, engine):
        counted.extend(alphas.tolist())
        return run(alphas, engine)

    monkeypatch.setattr(ig.planner, "run", counting)
    assert ig.attribute(trace).evaluations == len(counted) == len(set(counted))


@pytest.mark.parametrize("points", [1, 2, 64])
def test_chunks_and_engines_choose_the_same_points(model, trace, monkeypatch, points):
    expected = FastIG(model, engine="autograd", rule="auto", scope="all").attribute(trace)
    monkeypatch.setattr(Planner, "plan", lambda *_: Plan(points, recompute=False))
    got = FastIG(model, rule="auto", scope="all").attribute(trace)
    assert got.evaluations == expected.evaluations
    torch.testing.assert_close(got.token_scores, expected.token_scores, rtol=1e-8, atol=1e-10)


def test_it_is_the_given_scorers_segments_that_agree(demo, records):
    paper, own = SegmentScorer(), SegmentScorer(tau=0.4, beta=1.0, normalization="length")
    needed = {paper: [], own: []}
    for record in records[::12]:
        for scorer, evaluations in needed.items():
            ig = FastIG(*demo, scope="reasoning", scorer=scorer, agreement=1, rule="auto")
            attribution = ig.attribute(Trace.from_record(record))
            assert attribution.converged
            assert not scorer.score(attribution).undecided.any()
            assert scorer.score(attribution).agreement == 1
            evaluations.append(attribution.evaluations)
    assert needed[paper] != needed[own]
    assert attribution.settings["scorer"] == vars(own)


def expected_agreement(attribution, scorer: SegmentScorer) -> float:
    """The kept segments' mean Jaccard index with those of every sample, by its definition."""
    spans = attribution.encoded.segments
    lengths = segment_sums(attribution.token_scores, spans).lengths
    estimate, *others = (
        scorer.select(SegmentSums(signed, absolute, absolute**2, lengths)).kept
        for signed, absolute in (sample.unbind(-1) for sample in attribution.segment_samples)
    )
    return sum(jaccard(other, estimate) for other in others) / len(others)


def test_a_lower_agreement_stops_earlier_on_a_rough_integrand(demo, records):
    (record,) = (record for record in records if record["id"] == "medium-02")
    trace, scorer, evaluations = Trace.from_record(record), SegmentScorer(), []
    for asked in (0.5, 0.9, 0.95, 1):
        attribution = FastIG(*demo, scope="reasoning", agreement=asked, rule="auto").attribute(
            trace
        )
        scores = scorer.score(attribution)  # without a warning
        assert attribution.converged
        assert attribution.settings["agreement"] == asked
        assert scores.agreement == pytest.approx(expected_agreement(attribution, scorer))
        assert asked <= scores.agreement <= 1
        assert bool(scores.undecided.any()) == (scores.agreement < 1)
        evaluations.append(attribution.evaluations)
    assert evaluations == sorted(evaluations)
    assert 2 * evaluations[2] < evaluations[3]


def test_without_enough_evaluations_it_says_so_and_the_scorer_warns(demo, records):
    trace = Trace.from_record(records[0])
    attribution = FastIG(*demo, max_evaluations=12, rule="auto", scope="all").attribute(trace)
    assert (attribution.converged, attribution.evaluations) == (False, 12)
    with pytest.warns(UndecidedWarning, match=r"undecided after 12 evaluations.*Raise max_eval"):
        scores = SegmentScorer().score(attribution)
    assert scores.undecided.any()


@pytest.mark.parametrize(
    "scope", ["reasoning", pytest.param("all", marks=pytest.mark.slow(reason="257 path points"))]
)
def test_kept_segments_are_those_of_257_points(demo, records, scope):
    """Traces of the bundled model, where the integrand is a peak somewhere: every ninth one."""
    few = FastIG(*demo, scope=scope, agreement=1, rule="auto")
    many = FastIG(*demo, rule="trapezoid", steps=257, scope=scope)
    agreements, evaluations = [], []
    for record in records[1::9]:
        encoded = few.encode(Trace.from_record(record))
        attribution = few.attribute(encoded)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UndecidedWarning)
            kept = SegmentScorer().score(attribution).kept
        agreement = jaccard(kept, SegmentScorer().score(many.attribute(encoded)).kept)
        assert agreement == 1 or not attribution.converged
        agreements.append(agreement)
        evaluations.append(attribution.evaluations)
    assert sum(agreements) / len(agreements) >= 0.99
    assert sorted(evaluations)[len(evaluations) // 2] < 50


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_does_not_use_up_the_budget(dtype):
    """What rounding makes of F must not look like something the points have missed."""
    for seed in range(4):
        trace = make_trace(seed=seed)
        attribution = FastIG(make_model("qwen2", dtype), rule="auto", scope="all").attribute(trace)
        whole = FastIG(make_model("qwen2"), rule="auto", scope="all").attribute(trace)
        assert attribution.converged
        assert attribution.evaluations <= whole.evaluations + 12
        assert attribution.token_scores.dtype == torch.float32


def test_paths_without_a_good_start_are_not_called_converged():
    """RMSNorm of a baseline of zeros: all of F's change is in the first thousandth of the path."""
    model = make_model("qwen2")
    attribution = FastIG(
        model, baseline="zero", max_evaluations=15, rule="auto", scope="all"
    ).attribute(make_trace())
    assert attribution.converged is False
    assert attribution.completeness_gap > 1
    with pytest.warns(UndecidedWarning, match="miss too much of F, to estimate an error from"):
        scores = SegmentScorer().score(attribution)
    assert scores.undecided.tolist() == [False, True, True, False]
    assert (scores.agreement, attribution.trustworthy) == (0, False)
    assert attribution.doubts == ["gap", "agreement"]


def test_nan_at_a_late_point_is_named(model, trace):
    """Only beyond alpha = 0.9, so the first round is finite but for its last point."""
    ig = FastIG(model, rule="auto", scope="all")
    run = ig.planner.run

    def broken(alphas, engine):
        logprobs, values = run(alphas, engine)
        values[alphas > 0.9, 7] = torch.nan
        return logprobs, values

    ig.planner.run = broken
    with pytest.raises(
        FloatingPointError,
        match=r"gradients must be finite, got nan at token 7, path point alpha = 1\.",
    ):
        ig.attribute(trace)
