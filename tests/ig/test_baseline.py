"""Where the path starts: the tokens, words and tensors that say so, and the text they become."""

from __future__ import annotations

import hashlib

import pytest
import torch
from tiny import assert_close, make_model, make_trace, target_logprob

from segattr import FastIG, Trace
from segattr.engine.causal_lm import CausalLM
from segattr.ig.baseline import Baseline

pytestmark = pytest.mark.usefixtures("exact_norms")


@pytest.mark.parametrize("baseline", ["zero", "mean", 7, "row"])
def test_baselines(model, trace, baseline):
    table = model.get_input_embeddings().weight.detach()
    row = {"zero": torch.zeros(32), "mean": table.mean(0), 7: table[7], "row": table[3] / 2}[
        baseline
    ].double()
    attribution = FastIG(
        model,
        rule="midpoint",
        steps=4,
        baseline=row if baseline == "row" else baseline,
        scope="all",
    ).attribute(trace)
    inputs = model.get_input_embeddings()(trace.input_ids).detach()
    with torch.no_grad():
        expected = target_logprob(model, row.expand_as(inputs), trace).item()
    assert attribution.baseline_logprob == pytest.approx(expected, rel=1e-6)
    assert attribution.settings["baseline"] == ("tensor" if baseline == "row" else baseline)


def test_the_mean_counts_the_scale_of_scaled_embeddings(trace):
    model = make_model("gemma3")
    embed = model.get_input_embeddings()
    expected = embed(torch.arange(embed.num_embeddings)).mean(0).detach()
    got, same = (
        FastIG(model, rule="midpoint", steps=3, baseline=b, scope="all").attribute(trace)
        for b in ("mean", expected)
    )
    assert_close(got.token_scores, same.token_scores)


def test_a_missing_pad_token_falls_back_to_eos_with_a_warning(trace):
    """Once, when the FastIG is made, at the line that makes it; a trace does not warn again."""
    model = make_model("qwen2", pad_token_id=None)
    with pytest.warns(UserWarning, match="EOS token 1") as caught:
        ig = FastIG(model, rule="midpoint", steps=2, scope="all")
    assert [warning.filename for warning in caught] == [__file__]
    assert ig.attribute(trace).settings["baseline_token_id"] == 1
    with pytest.warns(UserWarning, match="EOS token 1") as caught:
        FastIG.official(model)
    assert [warning.filename for warning in caught] == [__file__]


@pytest.mark.parametrize("pad", [-1, 96])
def test_a_pad_token_without_an_embedding_does_not_count(pad):
    model = make_model("qwen2")
    model.config.pad_token_id = pad
    with pytest.warns(UserWarning, match="EOS token 1"):
        assert FastIG(model, rule="auto", scope="all").baseline.token_id == 1


def test_neither_pad_nor_eos():
    model = make_model("qwen2", pad_token_id=None, eos_token_id=None)
    with pytest.raises(ValueError, match="needs a pad or EOS token, got a model without"):
        FastIG(model)
    assert FastIG(model, baseline=5, rule="auto", scope="all").baseline.token_id == 5


def test_it_does_not_depend_on_the_traces_before(unpadded, records):
    """Its config names no pad token; the tokenizer that its first text trace needs does."""
    model, tokenizer = unpadded
    trace, cheap = make_trace(), {"rule": "midpoint", "steps": 2, "scope": "all"}
    found, given = FastIG(model, **cheap), FastIG(model, tokenizer, **cheap)
    before = found.attribute(trace)
    found.attribute(Trace.from_record(records[0]))
    after = found.attribute(trace)
    assert before.settings["baseline_token_id"] == tokenizer.pad_token_id
    assert torch.equal(before.token_scores, after.token_scores)
    assert torch.equal(before.token_scores, given.attribute(trace).token_scores)
    assert before.settings == after.settings == given.attribute(trace).settings
    with pytest.warns(UserWarning, match="EOS"):  # which would have been another start
        eos = FastIG(make_model("llama", vocab_size=len(tokenizer), pad_token_id=None), **cheap)
    assert not torch.equal(before.token_scores, eos.attribute(trace).token_scores)


def test_a_config_that_names_a_pad_token_keeps_it_after_a_text(unpadded, records):
    model, tokenizer = unpadded
    model.config.pad_token_id = 9
    ig = FastIG(model, rule="midpoint", steps=2, scope="all")
    assert ig.tokenizer is None
    ig.attribute(Trace.from_record(records[0]))
    assert ig.tokenizer is not None
    assert ig.attribute(make_trace()).settings["baseline_token_id"] == 9
    assert (
        FastIG(model, tokenizer, rule="auto", scope="all").baseline.token_id
        == tokenizer.pad_token_id
    )


def test_a_line_break_is_a_token_of_the_tokenizer(demo):
    model, tokenizer = demo
    (newline,) = tokenizer.encode("\n", add_special_tokens=False)
    named = Baseline("newline", CausalLM(model, tokenizer))
    assert (named.token_id, str(named)) == (newline, f"token {newline}")


def test_a_line_break_that_is_no_token_is_refused(demo):
    class InTwo:
        pad_token_id = 0

        def encode(self, text, add_special_tokens):
            return [5, 6] if text == "\n" and not add_special_tokens else [5]

    with pytest.raises(ValueError, match=r"for a line break, got \[5, 6\]\. Pass a token"):
        Baseline("newline", CausalLM(demo[0], InTwo()))
    with pytest.raises(ValueError, match="tokenizer must be given"):
        FastIG(make_model("qwen2"), baseline="newline")


def test_baselines_of_another_model_are_refused(model):
    with pytest.raises(ValueError, match=r"one embedding of shape \[32\], got \[16\]"):
        FastIG(model, baseline=torch.zeros(16))
    with pytest.raises(ValueError, match="one of the model's 96 token ids, got 96"):
        FastIG(model, baseline=96)
    with pytest.raises(TypeError, match="baseline must be a str or int or Tensor, got a NoneType"):
        FastIG(model, baseline=None)
    with pytest.raises(TypeError, match="got a float"):
        FastIG(model, baseline=0.0)


def test_baselines_as_text(model):
    lm, row = CausalLM(model), torch.arange(32.0)
    assert str(Baseline("pad", lm)) == str(Baseline(0, lm)) == "token 0"
    assert str(Baseline("mean", lm)) == "mean"
    assert str(Baseline(row, lm)) == str(Baseline(row.double(), lm))
    assert str(Baseline(row, lm)) != str(Baseline(row + 1, lm))
    digest = hashlib.sha256(row.numpy().tobytes()).hexdigest()
    assert str(Baseline(row, lm)) == f"tensor {digest[:16]}"
