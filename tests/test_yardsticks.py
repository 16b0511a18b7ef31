"""Shapley values are those of games that are known; F of what is left out is the model's own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from tiny import assert_close, make_model, target_logprob

from segattr import FastIG

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import yardsticks


def additive(weights):
    return lambda present: present.double() @ weights + 3.0


def gloves(present):
    """Two have a left glove and the third a right one; a pair is worth 1."""
    left, right = present[:, :2].sum(1), present[:, 2]
    return torch.minimum(left, right).double()


def rough(present):
    """A game of 9 players in which everything depends on everything."""
    places = torch.arange(9, dtype=torch.float64)
    return (present * (places + 1)).sum(1).mul(0.7).sin() + 0.3 * present.sum(1) ** 1.5


@pytest.mark.parametrize("count", [1, 5, 10])
def test_players_of_an_additive_game_get_what_they_add(count):
    weights = torch.linspace(-2, 5, count, dtype=torch.float64)
    values, errors = yardsticks.shapley(additive(weights), count, permutations=8)
    assert_close(values, weights)
    assert errors.max() < 1e-12


def test_the_glove_game():
    values, errors = yardsticks.shapley(gloves, 3, permutations=0)
    assert values.tolist() == pytest.approx([1 / 6, 1 / 6, 2 / 3])
    assert errors.tolist() == [0.0] * 3


def test_sampled_values_are_within_their_errors_and_complete():
    exact = yardsticks._exact(rough, 9)
    values, errors = yardsticks.shapley(rough, 9, permutations=400)
    assert (errors > 0).all()
    assert ((values - exact).abs() < 4 * errors).all()
    whole = torch.tensor([[True] * 9, [False] * 9])
    assert float(values.sum() + rough(whole).diff()) == pytest.approx(0, abs=1e-12)
    again, _ = yardsticks.shapley(rough, 9, permutations=400)
    assert torch.equal(values, again)


@pytest.mark.usefixtures("exact_norms")
@pytest.mark.parametrize("scope", ["reasoning", "all"])
@pytest.mark.parametrize("name", ["qwen2", "gemma"])
def test_shapley_values_are_complete(name, scope, trace):
    ig = FastIG(make_model(name), rule="midpoint", steps=2, scope=scope)
    coalitions = yardsticks.Coalitions(ig, trace)
    assert coalitions.count == 4 + (scope == "all")
    values, _ = yardsticks.shapley(coalitions.worth, coalitions.count, permutations=0)
    found = ig.attribute(trace)
    change = found.target_logprob - found.baseline_logprob
    assert float(values.sum()) == pytest.approx(change, rel=1e-9)
    assert values[1] == 0  # the empty segment


def test_an_absent_segment_is_at_the_baseline_and_the_rest_stays(model, trace):
    ig = FastIG(model, scope="reasoning", baseline=3, rule="auto")
    embed = model.get_input_embeddings()
    inputs = embed(trace.input_ids).detach()
    changed = inputs.clone()
    changed[12:16] = embed(torch.tensor(3)).detach()
    expected = target_logprob(model, inputs, trace) - target_logprob(model, changed, trace)
    got = yardsticks.Coalitions(ig, trace).without_each()
    assert float(got[2]) == pytest.approx(expected.item(), rel=1e-6)


def test_batches_change_nothing(model, trace, monkeypatch):
    coalitions = yardsticks.Coalitions(FastIG(model, rule="auto", scope="all"), trace)
    present = torch.eye(5, dtype=torch.bool)
    together = coalitions.worth(present)
    monkeypatch.setattr(yardsticks, "BATCH_TOKENS", 1)
    assert_close(coalitions.worth(present), together)


def test_a_deleted_segment_is_not_in_the_sequence(model, trace):
    kept = torch.cat([trace.input_ids[:16], trace.input_ids[28:]])
    with torch.no_grad():
        logits = model(kept[None]).logits[0].double().log_softmax(-1)
    expected = logits[19:22].gather(-1, kept[20:23, None]).sum()
    ig = FastIG(model, rule="auto", scope="all")
    assert float(yardsticks.logprob_without(ig, trace, [3])) == pytest.approx(expected.item())
    whole = target_logprob(model, model.get_input_embeddings()(trace.input_ids), trace)
    assert float(yardsticks.deletions(ig, trace)[3]) == pytest.approx((whole - expected).item())


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_blocked_segment_is_a_deleted_one_whose_place_stays_empty(attention, trace):
    """The mask is given, so that transformers does not take the gap for a second sequence."""
    model = make_model("qwen2", attn_implementation=attention)
    kept = torch.cat([torch.arange(12), torch.arange(16, 34)])
    causal = torch.full((30, 30), -torch.inf, dtype=torch.float64).triu(1)[None, None]
    with torch.no_grad():
        logits = model(
            trace.input_ids[None, kept], attention_mask=causal, position_ids=kept[None]
        ).logits[0]
    words = trace.input_ids[slice(*trace.target), None]
    without = logits[-3:].double().log_softmax(-1).gather(-1, words).sum()
    whole = target_logprob(model, model.get_input_embeddings()(trace.input_ids), trace)
    got = yardsticks.blocked(FastIG(model, rule="auto", scope="all"), trace)
    assert float(got[2]) == pytest.approx((whole - without).item(), rel=1e-5)
    assert got[1] == 0  # the empty segment
    assert (
        abs(float(got[2] - yardsticks.deletions(FastIG(model, rule="auto", scope="all"), trace)[2]))
        > 1e-6
    )


@pytest.mark.parametrize(
    ("one", "other", "linear", "ranked"),
    [
        ([1, 2, 3], [2, 4, 6], 1.0, 1.0),
        ([1, 2, 3], [-1, -2, -3], -1.0, -1.0),
        ([1, 2, 3], [1, 10, 100], 0.9042, 1.0),
        ([1, 1, 2], [5, 5, 7], 1.0, 1.0),
        ([1, 1, 1], [1, 2, 3], 0.0, 0.0),
        ([0, 0, 1, 1], [0, 1, 0, 1], 0.0, 0.0),
    ],
)
def test_correlations(one, other, linear, ranked):
    assert yardsticks.pearson(one, other) == pytest.approx(linear, abs=1e-4)
    assert yardsticks.spearman(one, other) == pytest.approx(ranked)


def test_relative_error():
    assert yardsticks.relative_error([3.0, 5.0], [3.0, 4.0]) == pytest.approx(0.2)


def test_the_interval_is_that_of_the_mean():
    values = torch.randn(400, generator=torch.Generator().manual_seed(0)).tolist()
    low, high = yardsticks.interval(values)
    assert (high - low) / 2 == pytest.approx(1.96 / 20, rel=0.15)
    assert low < sum(values) / 400 < high
    assert yardsticks.interval(values) == (low, high)
    assert yardsticks.interval([0.5]) == (0.5, 0.5)
