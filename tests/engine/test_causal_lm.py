"""A model with its tokenizer: encoding, special tokens, refusals, and what is said of it."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tiny import make_model, make_trace

import segattr
from segattr import EncodedTrace, FastIG, Trace, TraceTooLongError
from segattr.engine import CausalLM, load_causal_lm
from segattr.engine.fingerprint import fingerprint


def test_text_is_encoded_with_the_tokenizer_of_the_model(unpadded, records):
    """Found at ``model.name_or_path`` when it is not given."""
    model, tokenizer = unpadded
    trace = Trace.from_record(records[0])
    given, found = CausalLM(model, tokenizer), CausalLM(model)
    assert found.tokenizer is None
    expected, got = given.encoded(trace), found.encoded(trace)
    assert torch.equal(got.input_ids, expected.input_ids)
    assert got.segments == expected.segments
    assert found.tokenizer is found.load_tokenizer()
    ours, theirs = (
        FastIG(model, t, rule="midpoint", steps=2, scope="all") for t in (None, tokenizer)
    )
    assert torch.equal(ours.attribute(trace).token_scores, theirs.attribute(trace).token_scores)


def test_options_reach_the_encoding(demo, records):
    lm, trace = CausalLM(*demo), Trace.from_record(records[0])
    plain, longer = lm.encode(trace), lm.encode(trace, opening="<think>\n")
    assert len(longer.input_ids) > len(plain.input_ids)


def test_a_model_without_a_name_needs_a_tokenizer(model):
    with pytest.raises(ValueError, match="tokenizer must be given for a model without name_or_pa"):
        CausalLM(model).encode(Trace("q", "r", "a"))


@pytest.mark.parametrize("name", ["qwen2", "llama"])
def test_a_folder_without_a_tokenizer_has_none(name, tmp_path):
    """transformers 5 makes one of special tokens for some kinds of model, 4 raises many things."""
    make_model(name, pad_token_id=None).save_pretrained(tmp_path)
    lm = CausalLM(transformers.AutoModelForCausalLM.from_pretrained(tmp_path))
    with pytest.raises(ValueError, match="tokenizer must be given, as there is none at"):
        lm.encode(Trace("q", "r", "a"))
    assert lm.tokenizer is None
    assert lm.pad_token_id() is None
    assert lm.eos_token_id() == 1


@pytest.mark.parametrize("tokenizer", ["Qwen/Qwen2.5-7B", {}, 5])
def test_what_is_no_tokenizer_is_refused(model, tokenizer):
    with pytest.raises(TypeError, match=r"tokenizer must be a tokenizer, got a .*from_pretrained"):
        CausalLM(model, tokenizer)


def test_special_tokens_are_those_of_what_was_given(unpadded):
    model, tokenizer = unpadded
    pad, eos = tokenizer.pad_token_id, tokenizer.eos_token_id
    assert (pad, eos) != (9, 8)
    for given in (None, tokenizer):
        assert CausalLM(model, given).pad_token_id() == pad
        assert CausalLM(model, given).eos_token_id() == eos
    model.config.pad_token_id, model.config.eos_token_id = 9, [8, 7]
    lm = CausalLM(model)
    assert lm.pad_token_id() == 9
    lm.load_tokenizer()
    assert lm.pad_token_id() == 9
    assert CausalLM(model, tokenizer).pad_token_id() == pad
    nameless = CausalLM(make_model("llama", pad_token_id=None, eos_token_id=[8, 7]))
    assert (nameless.pad_token_id(), nameless.eos_token_id()) == (None, 8)


def test_a_trace_longer_than_the_context_says_by_how_much(model):
    encoded = EncodedTrace(torch.full((135,), 3), (0, 5), [(5, 120)], (130, 134), id="long")
    with pytest.raises(
        TraceTooLongError,
        match=r"'long' must fit the model's context = 128 tokens, got 135, 7 too many",
    ):
        FastIG(model, rule="auto", scope="all").attribute(encoded)
    assert CausalLM(model).context_length == 128
    assert CausalLM(make_model("gpt2")).context_length == 128


def test_token_ids_of_another_tokenizer_are_refused(model):
    for token, where in ((500, "500"), (96, "96"), (-1, "12")):
        ids = torch.full((20,), 12)
        ids[7] = token
        encoded = EncodedTrace(ids, (0, 5), [(5, 12)], (15, 19))
        with pytest.raises(ValueError, match=f"below the model's 96 embeddings, got {where}"):
            FastIG(model, rule="auto", scope="all").attribute(encoded)


@pytest.mark.parametrize("trace", [{"question": "q"}, [], "text", None, torch.arange(5)])
def test_what_is_no_trace_is_refused(model, trace):
    message = r"trace must be a Trace or EncodedTrace, got a .*Trace\.from_record\(\.\.\.\) makes"
    with pytest.raises(TypeError, match=message):
        CausalLM(model).encoded(trace)
    ig = FastIG(model, rule="auto", scope="all")
    for call in (ig.attribute, ig.encode, lambda trace: ig.integrand(trace, [0.5])):
        with pytest.raises(TypeError, match=message):
            call(trace)


def test_embeddings_are_as_the_model_scales_them():
    for name in ("qwen2", "gemma3"):
        model = make_model(name)
        lm, ids = CausalLM(model), torch.tensor([3, 4])
        assert torch.equal(lm.embed(ids), model.get_input_embeddings()(ids))
        assert lm.table_shape == (96, 32)
        assert lm.device == torch.device("cpu")


def test_a_frozen_model_records_only_where_it_is_asked_to(model):
    lm, trace = CausalLM(model), make_trace()
    with torch.inference_mode(), lm.frozen():
        assert not torch.is_inference_mode_enabled()
        assert not torch.is_grad_enabled()
        embeds = lm.embed(trace.input_ids[None]).requires_grad_()
        with torch.enable_grad():
            total = model(inputs_embeds=embeds, use_cache=False).logits.sum()
        (gradient,) = torch.autograd.grad(total, embeds)
        assert gradient.any()
        assert not any(parameter.requires_grad for parameter in model.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_dtype_is_that_of_a_copy(model):
    lm = CausalLM(model, dtype=torch.float32)
    assert (lm.model.dtype, model.dtype) == (torch.float32, torch.float64)
    assert CausalLM(model, dtype=torch.float64).model is model


def test_what_it_says_of_itself(model):
    facts = CausalLM(model).facts()
    assert json.loads(json.dumps(facts)) == facts
    assert facts == {
        "model": "",
        "fingerprint": fingerprint(model),
        "dtype": "float64",
        "device": "cpu",
        "gpu": None,
        "versions": {
            "segattr": segattr.__version__,
            "torch": str(torch.__version__),
            "transformers": transformers.__version__,
        },
    }


def test_a_checkpoint_must_have_the_models_weights(tmp_path):
    make_model("llama", torch.float32).save_pretrained(tmp_path)
    assert load_causal_lm(tmp_path).dtype == torch.float32
    weights = load_file(tmp_path / "model.safetensors")
    weights["extra.weight"] = weights.pop("model.norm.weight")
    weights["lm_head.weight"] = torch.zeros(3, 32)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="must have the weights of a LlamaForCausalLM") as error:
        load_causal_lm(tmp_path)
    for part in (
        "lacks 1 (model.norm.weight)",
        "has extra 1 (extra.weight)",
        "misfits 1 (lm_head.weight)",
    ):
        assert part in str(error.value)
