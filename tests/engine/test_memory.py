"""The numbers of a config that an estimate of memory needs, however the config says them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import transformers
from tiny import MODELS, SMALL, make_engine, make_model

from segattr.engine.memory import Sizes, bytes_per_point
from segattr.engine.planner import Plan, Planner

PLAIN = {key: value for key, value in SMALL.items() if isinstance(value, int)}


def sizes_of(**changes: object) -> Sizes:
    return Sizes.of(SimpleNamespace(**{**PLAIN, **changes}))


def test_a_plain_config_is_read_as_it_is():
    assert sizes_of() == Sizes(32, 3, 4, queries=32, keys=16, width=48, vocabulary=96)
    assert sizes_of(_attn_implementation="eager").eager
    assert sizes_of(head_dim=None).queries == 32
    assert sizes_of(num_key_value_heads=None).keys == 32
    assert sizes_of(intermediate_size=None, n_inner=None).width == 4 * 32


def test_experts_count_as_many_as_a_token_goes_through():
    experts = {"num_experts_per_tok": 2, "moe_intermediate_size": 24}
    assert sizes_of(**experts).width == 48
    assert sizes_of(**experts, shared_expert_intermediate_size=10).width == 58
    assert sizes_of(num_experts_per_tok=2).width == 2 * 48
    assert sizes_of(top_k_experts=3, moe_intermediate_size=24).width == 72


def test_numbers_per_layer_give_the_largest():
    assert sizes_of(intermediate_size=[48, 64, 16]).width == 64
    assert sizes_of(num_key_value_heads=(2, 4, 1)).keys == 4 * 8


@pytest.mark.parametrize("value", [None, "wide", [], ["a"], {}, [None, "x"], -3, 0, object()])
@pytest.mark.parametrize("name", PLAIN)
def test_what_cannot_be_read_stops_nothing(name, value):
    sizes = sizes_of(**{name: value})
    assert all(number > 0 for key, number in vars(sizes).items() if key != "eager")
    assert bytes_per_point(sizes, 100, 2, 40, 3, recompute=False) > 0


def test_a_config_that_says_nothing_gets_usual_values():
    assert Sizes.of(SimpleNamespace()) == Sizes(4096, 32, 32, 4096, 4096, 4 * 4096, 32_000)


@pytest.mark.parametrize("name", MODELS)
def test_every_kind_of_model_has_an_estimate(name):
    model = make_model(name)
    engine = make_engine(model, "autograd")
    assert engine.bytes_per_point(recompute=True) < engine.bytes_per_point(recompute=False)
    memory = int(2.5 * engine.bytes_per_point(recompute=False))
    assert Planner(model, memory).plan(engine, 10) == Plan(2, recompute=False)


def test_gemma3n_has_an_mlp_width_per_layer():
    assert Sizes.of(make_model("gemma3n").config).width == 64
    assert Sizes.of(transformers.Gemma3nTextConfig()).width == 16384


@pytest.mark.skipif("gemma4" not in MODELS, reason="needs transformers 5")
class TestGemma4:
    def test_its_heads_differ_in_width(self):
        config = make_model("gemma4").config
        with pytest.raises(RuntimeError, match="head_dim"):  # of all layers together
            _ = config.head_dim
        assert Sizes.of(config).queries == 4 * 16
        assert Sizes.of(transformers.Gemma4TextConfig()).queries == 8 * 512

    def test_with_embeddings_per_layer_it_still_has_an_estimate(self):
        plain = make_engine(make_model("gemma4"))
        model = make_model("gemma4", hidden_size_per_layer_input=8, vocab_size_per_layer_input=96)
        assert make_engine(model).bytes_per_point(False) == plain.bytes_per_point(False)

    def test_it_has_experts_by_another_name(self):
        experts = {"num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 40}
        config = make_model("gemma4", enable_moe_block=True, **experts).config
        assert Sizes.of(config).width == 80


def test_the_estimate_is_its_parts():
    sizes = Sizes(32, 3, 4, queries=32, keys=16, width=48, vocabulary=96)
    working = 2 * 1000 + 2 * 2 * 32 + 8 * 32
    logits = 5 * 96 * (2 + 12)
    whole = bytes_per_point(sizes, 1000, 2, 40, 5, recompute=False)
    assert whole == 40 * (3 * 1000 + working) + logits
    recomputed = bytes_per_point(sizes, 1000, 2, 40, 5, recompute=True)
    assert recomputed == 40 * (3 * 2 * 32 + working) + logits


def test_a_config_of_no_layers_has_an_estimate_too():
    class Empty:
        is_heterogeneous = True
        per_layer_config = ()

    sizes = Sizes.of(Empty())
    assert min(sizes.hidden, sizes.layers, sizes.heads, sizes.queries, sizes.width) > 0
