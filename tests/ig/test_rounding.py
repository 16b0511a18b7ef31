"""Noise of 16-bit gradients: of the size that is said, and admitted by rule="auto"."""

from __future__ import annotations

import copy

import pytest
import torch

from segattr import FastIG, SegmentScorer, Trace, UndecidedWarning
from segattr.ig import Adaptive, Fixed
from segattr.ig.rounding import noise_of
from segattr.quadrature.noise import Noise

HALVES = (torch.bfloat16, torch.float16)
SCORERS = [SegmentScorer(tau=tau / 20, beta=1.0) for tau in range(1, 20)]


@pytest.fixture(scope="module", params=HALVES, ids=str)
def rounded(request, demo):
    """The bundled model in 16 bits, and its tokenizer."""
    return copy.deepcopy(demo[0]).to(request.param), demo[1]


def test_wide_dtypes_have_no_noise_that_matters():
    assert noise_of(torch.float32) == noise_of(torch.float64) == Noise()
    ratio = noise_of(torch.bfloat16).own / noise_of(torch.float16).own
    assert ratio == torch.finfo(torch.bfloat16).eps / torch.finfo(torch.float16).eps


@pytest.mark.parametrize("scope", ["reasoning", "all"])
def test_gradients_are_off_by_as_much_as_is_said(rounded, records, scope):
    """Against float64 with the same weights: at most of its points, and not much less."""
    narrow, wide = (FastIG(*rounded, scope=scope, dtype=dtype) for dtype in (None, torch.float64))
    alphas = torch.linspace(0, 1, 9)
    for record in records[::20]:
        encoded = narrow.encode(Trace.from_record(record))
        (_, got), (_, exact) = (ig.integrand(encoded, alphas) for ig in (narrow, wide))
        said = noise_of(rounded[0].dtype).of_values(exact).sum(1).sqrt()
        ratios = (got - exact).norm(dim=1) / said
        assert 1 / 10 < ratios.median() < 1


@pytest.mark.parametrize("scope", ["reasoning", "all"])
def test_auto_claims_errors_that_cover_rounding(rounded, records, scope):
    auto = FastIG(*rounded, rule="auto", scope=scope)
    exact = FastIG(*rounded, scope=scope, dtype=torch.float64, rule=Adaptive(None, 1e-2, 129))
    for record in records[::20]:
        encoded = auto.encode(Trace.from_record(record))
        got, want = auto.attribute(encoded), exact.attribute(encoded)
        off = (got.token_scores - want.token_scores).abs()
        assert (off <= got.token_error + want.token_error).double().mean() > 0.95
        assert 0 < got.settings["rounding"] < 0.1
        assert want.settings["rounding"] is None
        assert want.settings["stopped_by_rounding"] is False


def test_auto_stops_above_rounding_and_names_the_remedy(demo, records):
    """A tolerance below the noise: more points would not help, a wider dtype does."""
    rule = Adaptive(None, 1e-3, 257)
    encoded = FastIG(*demo).encode(Trace.from_record(records[0]))
    narrow, wide = (FastIG(*demo, dtype=dtype, rule=rule) for dtype in (torch.bfloat16, None))
    stopped, reached = narrow.attribute(encoded), wide.attribute(encoded)
    assert (stopped.converged, stopped.settings["stopped_by_rounding"]) == (False, True)
    assert (reached.converged, reached.settings["stopped_by_rounding"]) == (True, False)
    assert stopped.evaluations < reached.evaluations
    remedy = r"rounding in bfloat16 may.*Use a wider dtype, such as dtype=torch\.float32"
    with pytest.warns(UndecidedWarning, match=remedy):
        assert any(scorer.score(stopped).undecided.any() for scorer in SCORERS)


def test_other_rules_have_no_word_of_rounding(demo, records):
    ig = FastIG(*demo, dtype=torch.bfloat16, rule=Fixed("midpoint", 2))
    settings = ig.attribute(Trace.from_record(records[0])).settings
    assert settings["rounding"] is settings["stopped_by_rounding"] is None
