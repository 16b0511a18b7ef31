"""Path points in place of what a model looks up, and a model that is as before afterwards."""

from __future__ import annotations

import architectures
import pytest
import torch
from tiny import make_engine, make_model, make_trace

from segattr import FastIG
from segattr.engine.lookup import keeps_chosen_logits, logits_at, logits_of

IDS = torch.arange(5, 17)


def points_of(model, num_points: int = 1) -> torch.Tensor:
    with torch.no_grad():
        return model.get_input_embeddings()(IDS)[None].repeat(num_points, 1, 1)


@pytest.mark.parametrize("name", ["qwen2", "gemma", "gpt2", "gemma3n"])
def test_at_its_own_embeddings_a_model_says_what_it_says(name):
    model = make_model(name)
    with torch.no_grad():
        expected = model(input_ids=IDS[None]).logits[:, -3:]
        got = logits_at(model, IDS, points_of(model, 2), 3)
    torch.testing.assert_close(got, expected.repeat(2, 1, 1))


@pytest.mark.filterwarnings("ignore")  # transformers says what such a decoder lacks
def test_logits_of_a_model_that_makes_all_of_them_are_the_last():
    model = architectures.make("TrOCRForCausalLM")
    with torch.no_grad():
        expected = model(input_ids=IDS[None]).logits[:, -3:]
        torch.testing.assert_close(logits_of(model, IDS[None], 3), expected)
        torch.testing.assert_close(logits_of(model, IDS[None], 3, return_dict=False), expected)
    assert not keeps_chosen_logits(model)
    assert keeps_chosen_logits(make_model("qwen2"))
    # However few the answer has, the memory of all of them is planned.
    sizes = [make_engine(model, "autograd", 60, answer).bytes_per_point(False) for answer in (1, 5)]
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("fails", [False, True])
def test_hooks_of_others_come_first_and_stay(model, fails):
    embed, seen = model.get_input_embeddings(), []
    embed.register_forward_hook(lambda _m, _i, out: seen.append(out) or 2 * out)
    hooks = dict(embed._forward_hooks)
    if fails:
        model.model.norm.register_forward_hook(lambda *_: 1 / 0)
    points = points_of(model)
    seen.clear()
    try:
        logits = logits_at(model, IDS, points, 3)
        expected = model(input_ids=IDS[None]).logits[:, -3:]  # points have the user's hook in them
        torch.testing.assert_close(logits, expected)
    except ZeroDivisionError:
        assert fails
    assert seen
    assert dict(embed._forward_hooks) == hooks


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_model_compiled_in_place_runs_as_it_was(model):
    trace = make_trace()
    expected = FastIG(model, rule="midpoint", steps=2, engine="autograd", scope="all").attribute(
        trace
    )
    model.compile(backend="eager")
    compiled = model._compiled_call_impl
    with torch.no_grad():
        model(input_ids=trace.input_ids[None])  # compiled before there is a hook
    got = FastIG(model, rule="midpoint", steps=2, engine="autograd", scope="all").attribute(trace)
    assert torch.equal(got.token_scores, expected.token_scores)
    assert model._compiled_call_impl is compiled


def test_a_model_that_does_not_call_its_embeddings_is_refused(model):
    table = model.get_input_embeddings().weight
    stranger = torch.nn.Embedding(*table.shape)
    model.get_input_embeddings = lambda: stranger
    with pytest.raises(ValueError, match="calling its input embeddings, got Qwen2ForCausalLM"):
        logits_at(model, IDS, table[IDS][None], 1)
    assert not stranger._forward_hooks
