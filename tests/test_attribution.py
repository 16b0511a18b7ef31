"""Saving and loading."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from safetensors.torch import save_file
from tiny import make_model, make_trace

from segattr import Attribution, EncodedTrace, FastIG
from segattr.attribution import DOUBTS, doubts_of


def test_a_saved_attribution_comes_back_whole(tmp_path):
    characters = [(0, 9), (9, 9), (9, 14), (14, 40)]
    encoded = dataclasses.replace(
        make_trace(), response_ids=torch.tensor([3, 4]), id="x", characters=characters
    )
    attribution = FastIG(make_model("qwen2"), rule="midpoint", steps=2, scope="all").attribute(
        encoded
    )
    attribution.save(tmp_path / "one.safetensors")
    loaded = Attribution.load(tmp_path / "one.safetensors")
    assert torch.equal(loaded.token_scores, attribution.token_scores)
    assert loaded.segment_error is None
    for field in dataclasses.fields(EncodedTrace):
        before, after = getattr(encoded, field.name), getattr(loaded.encoded, field.name)
        assert torch.equal(before, after) if isinstance(before, torch.Tensor) else before == after
    assert loaded.converged is None
    for name in (
        "target_logprob",
        "baseline_logprob",
        "evaluations",
        "method",
        "settings",
        "completeness_gap",
    ):
        assert getattr(loaded, name) == getattr(attribution, name)


def test_error_estimates_are_saved(tmp_path):
    attribution = FastIG(
        make_model("qwen2"), max_evaluations=9, rule="auto", scope="all"
    ).attribute(make_trace())
    attribution.save(tmp_path / "one.safetensors")
    loaded = Attribution.load(tmp_path / "one.safetensors")
    assert attribution.converged is False
    assert loaded.converged is False
    for name in ("token_error", "segment_samples", "segment_error"):
        torch.testing.assert_close(
            getattr(loaded, name), getattr(attribution, name), rtol=0, atol=0, equal_nan=True
        )


def test_a_segments_error_is_that_of_its_share():
    samples = torch.tensor([[[9.0, 3], [9, 1]], [[9, 3], [9, 3]], [[9, 2], [9, 2]]]).double()
    attribution = Attribution(
        torch.ones(37), make_trace(), -1.0, None, 1, "by hand", segment_samples=samples
    )
    torch.testing.assert_close(attribution.segment_error, torch.tensor([0.25, 0.25]).double())
    assert attribution.completeness_gap is None


def test_other_files_are_refused(tmp_path):
    save_file({"a": torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="must hold an attribution, got another safetensors file"):
        Attribution.load(tmp_path / "other.safetensors")


def test_the_gap_is_relative_to_the_change():
    attribution = Attribution(torch.tensor([3.0, 5.0]), make_trace(), -2.0, -12.0, 1, "by hand")
    assert attribution.completeness_gap == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("baseline", "converged", "doubts", "grounds"),
    [
        (None, None, [], "None"),
        (None, True, [], "True (converged)"),
        (None, False, ["agreement"], "False (not converged)"),
        (-9.0, None, [], "True (gap 0.0%)"),
        (-9.0, True, [], "True (gap 0.0%; converged)"),
        (-9.0, False, ["agreement"], "False (gap 0.0%; not converged)"),
        (-9.4, True, [], "True (gap 4.8%; converged)"),
        (-9.5, None, ["gap"], "False (gap 5.9%)"),
        (-9.5, False, ["gap", "agreement"], "False (gap 5.9%; not converged)"),
        (float("nan"), True, ["gap"], "False (gap nan%; converged)"),
    ],
)
def test_it_says_whether_it_can_be_trusted(trace, tmp_path, baseline, converged, doubts, grounds):
    """The scores sum to 8, and F to 8 too if the baseline is at -9."""
    scores = torch.full((36,), 8 / 36)
    made = Attribution(scores, trace, -1.0, baseline, 1, "by hand", converged=converged)
    made.save(tmp_path / "one.safetensors")
    for one in (made, Attribution.load(tmp_path / "one.safetensors")):
        assert one.doubts == doubts
        assert str(one.trustworthy) == grounds.split()[0]
        assert repr(one).endswith(f"trustworthy={grounds})")


def test_doubts_are_names_with_words():
    gaps = [(0.05, []), (0.051, ["gap"])]
    assert [doubts_of(gap, None) for gap, _ in gaps] == [doubts for _, doubts in gaps]
    assert doubts_of(0.5, True, max_gap=0.5) == []
    assert list(DOUBTS) == doubts_of(1.0, False)
    assert all(DOUBTS.values())


def test_it_shows_what_matters_and_no_tensors(trace):
    ig = FastIG(make_model("qwen2"), max_evaluations=9, rule="auto", scope="all")
    attribution = ig.attribute(dataclasses.replace(trace, id="x"))
    shown = repr(attribution)
    assert len(shown) <= 200
    for part in (
        "'x', integrated-gradients, 36 tokens, 4 segments, log p",
        f"{attribution.baseline_logprob:.2f} -> {attribution.target_logprob:.2f}",
        f"9 evaluations, trustworthy=False (gap {attribution.completeness_gap:.1%}; not converged)",
    ):
        assert part in shown
    assert "tensor(" not in shown
    assert repr(Attribution(torch.ones(37), trace, -1.0, None, 1, method="by hand")) == (
        "Attribution(by hand, 37 tokens, 4 segments, log p -1.00, 1 evaluation, trustworthy=None)"
    )


def test_attributions_can_be_compared_and_collected(trace):
    """Tensors cannot be compared to one truth value, so each attribution equals itself only."""
    one, other = (Attribution(torch.ones(37), trace, -1.0, None, 1, "by hand") for _ in range(2))
    assert one != other
    assert len({one, other}) == 2
    assert [other, one].index(one) == 1


def test_a_method_must_have_a_name(trace):
    with pytest.raises(TypeError, match="method"):
        Attribution(torch.ones(37), trace, -1.0, None, 1)
