"""FastIG against the definition, Captum and published numbers; and what it must leave alone."""

from __future__ import annotations

import json

import pytest
import torch
from tiny import CLOSE, DATA, MODELS, assert_close, make_model, make_trace, naive_ig, target_logprob
from transformers import AutoModelForCausalLM

from segattr import EncodedTrace, FastIG, SegmentScorer
from segattr.engine.causal_lm import CausalLM
from segattr.engine.planner import Plan, Planner
from segattr.ig import Adaptive
from segattr.quadrature.fixed import RULES, nodes_and_weights

# The fused engine takes norms in float64 where transformers has float32: the models do here, too.
pytestmark = pytest.mark.usefixtures("exact_norms")
# Two kinds of model keep more in float32 than the others.
FLOAT32 = {"gemma3n": 1e-6, "gemma4": 1e-6}


@pytest.mark.parametrize("name", MODELS)
def test_equals_the_definition_for_every_kind_of_model(name, trace):
    model = make_model(name)
    attribution = FastIG(model, rule="midpoint", steps=6, baseline=0, scope="all").attribute(trace)
    expected = naive_ig(model, trace, *nodes_and_weights("midpoint", 6))
    assert_close(attribution.token_scores, expected, FLOAT32.get(name, CLOSE))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("scope", ["all", "reasoning"])
def test_equals_the_definition_for_every_rule_and_scope(model, trace, rule, scope):
    attribution = FastIG(model, rule=rule, steps=5, scope=scope).attribute(trace)
    expected = naive_ig(model, trace, *nodes_and_weights(rule, 5), scope=scope)
    assert_close(attribution.token_scores, expected)


@pytest.mark.parametrize("case", range(6))
def test_official_reproduces_the_published_code(case):
    """Eqs. 3-7 on numbers printed by the released scripts, in float64."""
    golden = json.loads((DATA / "official-qwen2" / "cases.json").read_text())["cases"][case]
    model = AutoModelForCausalLM.from_pretrained(DATA / "official-qwen2", dtype=torch.float64)
    encoded = EncodedTrace(
        golden["input_ids"], golden["prompt"], golden["segments"], golden["target"]
    )
    attribution = FastIG.official(model).attribute(encoded)
    assert attribution.settings["baseline_token_id"] == golden["baseline_token_id"]
    assert attribution.evaluations == golden["steps"]
    normalised = attribution.token_scores / attribution.token_scores.norm()
    for (start, stop), scores in zip(golden["segments"], golden["scores_float64"], strict=True):
        torch.testing.assert_close(
            normalised[start:stop], torch.tensor(scores).double(), rtol=0, atol=1e-6
        )
    found = SegmentScorer(tau=0.7, beta=0.8).score(attribution)
    close = {"rtol": 0, "atol": 1e-6}
    torch.testing.assert_close(
        found.strength, torch.tensor(golden["strength_float64"]).double(), **close
    )
    torch.testing.assert_close(
        found.consistency, torch.tensor(golden["consistency_float64"]).double(), **close
    )
    assert found.important.nonzero().flatten().tolist() == golden["selected_float64"]


def test_official_in_bfloat16_is_as_close_to_exact_as_the_published_code():
    golden = json.loads((DATA / "official-qwen2" / "cases.json").read_text())["cases"][1]
    model = AutoModelForCausalLM.from_pretrained(DATA / "official-qwen2", dtype=torch.bfloat16)
    encoded = EncodedTrace(
        golden["input_ids"], golden["prompt"], golden["segments"], golden["target"]
    )
    scores = FastIG.official(model).attribute(encoded).token_scores
    assert scores.dtype == torch.float32
    start, stop = encoded.reasoning
    ours = scores[start:stop] / scores[start:stop].norm()
    exact, published = (
        (values := torch.tensor([x for segment in golden[key] for x in segment])) / values.norm()
        for key in ("scores_float64", "scores_bfloat16")
    )
    assert (ours - exact).norm() <= (published - exact).norm()


def test_completeness_holds(model, trace):
    attribution = FastIG(model, rule="midpoint", steps=400, scope="all").attribute(trace)
    assert attribution.completeness_gap < 1e-3
    embed = model.get_input_embeddings()
    with torch.no_grad():
        at_inputs = target_logprob(model, embed(trace.input_ids), trace)
        at_baseline = target_logprob(model, embed(torch.zeros_like(trace.input_ids)), trace)
    assert attribution.target_logprob == pytest.approx(at_inputs.item(), rel=1e-6)
    assert attribution.baseline_logprob == pytest.approx(at_baseline.item(), rel=1e-6)


def test_the_bias_of_linspace_is_reproduced(model, trace):
    """sum_k g(alpha_k) / K over both ends = (K - 1) / K trapezoid + (g(0) + g(1)) / (2 K)."""
    steps = 50
    linspace, trapezoid = (
        FastIG(model, rule=r, steps=steps, scope="all").attribute(trace)
        for r in ("linspace", "trapezoid")
    )
    ends = sum(naive_ig(model, trace, torch.tensor([a]), torch.tensor([1.0])) for a in (0.0, 1.0))
    expected = (steps - 1) / steps * trapezoid.token_scores + ends / (2 * steps)
    assert_close(linspace.token_scores, expected)
    assert linspace.completeness_gap > 10 * trapezoid.completeness_gap


@pytest.mark.parametrize("points", [1, 2, 3, 7])
@pytest.mark.parametrize("recompute", [False, True])
def test_chunks_and_recomputing_do_not_change_the_result(
    model, trace, monkeypatch, points, recompute
):
    whole = FastIG(model, rule="midpoint", steps=7, scope="all").attribute(trace)
    monkeypatch.setattr(Planner, "plan", lambda *_: Plan(points, recompute))
    assert_close(
        FastIG(model, rule="midpoint", steps=7, scope="all").attribute(trace).token_scores,
        whole.token_scores,
    )


@pytest.mark.parametrize("tail", [0, 1, 40])
def test_tokens_after_the_answer_do_not_change_the_result(model, tail):
    alone, padded = make_trace(tail=0), make_trace(tail=tail)
    ids = torch.cat([alone.input_ids, padded.input_ids[len(alone.input_ids) :]])
    padded = EncodedTrace(ids, alone.prompt, alone.segments, alone.target)
    expected = FastIG(model, rule="midpoint", steps=5, scope="all").attribute(alone).token_scores
    got = FastIG(model, rule="midpoint", steps=5, scope="all").attribute(padded).token_scores
    assert_close(got[: len(alone.input_ids)], expected)
    assert got[alone.target[1] - 1 :].count_nonzero() == 0


def test_scopes_agree_where_everything_but_the_reasoning_is_the_baseline(model, trace):
    """Tokens that already are the pad token do not move, so both scopes are the same path."""
    start, stop = trace.reasoning
    ids = torch.zeros_like(trace.input_ids)
    ids[start:stop] = trace.input_ids[start:stop]
    still = EncodedTrace(ids, trace.prompt, trace.segments, trace.target)
    scopes = [
        FastIG(model, rule="midpoint", steps=5, scope=scope).attribute(still)
        for scope in ("all", "reasoning")
    ]
    assert_close(scopes[0].token_scores, scopes[1].token_scores)
    assert scopes[0].baseline_logprob == pytest.approx(scopes[1].baseline_logprob, rel=1e-9)


def test_only_the_reasoning_has_attribution_with_scope_reasoning(model, trace):
    scores = (
        FastIG(model, rule="midpoint", steps=3, scope="reasoning").attribute(trace).token_scores
    )
    start, stop = trace.reasoning
    assert scores[start:stop].count_nonzero() == stop - start
    assert scores.count_nonzero() == stop - start


@pytest.mark.parametrize(
    ("rule", "method"),
    [
        ("midpoint", "riemann_middle"),
        ("riemann", "riemann_right"),
        ("gauss-legendre", "gausslegendre"),
    ],
)
def test_equals_captum(model, trace, rule, method):
    """LayerIntegratedGradients driven by hand, with a summed target. Its weights are float32."""
    from captum.attr import LayerIntegratedGradients

    start, stop = trace.target
    target = trace.input_ids[None, start:stop, None]

    def summed_target(ids):
        logits = model(input_ids=ids, use_cache=False).logits[:, start - 1 : stop - 1]
        return logits.log_softmax(-1).gather(-1, target.expand(len(ids), -1, -1)).sum((1, 2))

    captum = LayerIntegratedGradients(summed_target, model.get_input_embeddings())
    expected = captum.attribute(
        trace.input_ids[None],
        baselines=torch.zeros_like(trace.input_ids)[None],
        n_steps=9,
        method=method,
        internal_batch_size=1,
    )[0].sum(-1)
    assert_close(
        FastIG(model, rule=rule, steps=9, scope="all").attribute(trace).token_scores,
        expected.detach(),
        1e-6,
    )


@pytest.mark.parametrize("num_targets", [1, 6])
def test_one_backward_and_one_slice_of_logits_per_chunk(model, monkeypatch, num_targets):
    trace, steps, points = make_trace(num_targets), 7, 3
    monkeypatch.setattr(Planner, "plan", lambda *_: Plan(points, False))
    ig = FastIG(model, rule="midpoint", steps=steps, engine="autograd", scope="all")
    ig.attribute(trace)  # the first time, the model itself runs too
    backwards, shapes, calls = [], [], []
    grad = torch.autograd.grad
    monkeypatch.setattr(
        torch.autograd, "grad", lambda *args, **kwargs: backwards.append(1) or grad(*args, **kwargs)
    )
    head = model.get_output_embeddings().register_forward_hook(
        lambda _m, _i, logits: shapes.append(logits.shape)
    )
    whole = model.register_forward_pre_hook(
        lambda _m, _a, kwargs: calls.append(kwargs), with_kwargs=True
    )
    ig.attribute(trace)
    head.remove(), whole.remove()
    assert len(backwards) == -(-steps // points)
    assert max(shape.numel() for shape in shapes) == points * num_targets * model.config.vocab_size
    assert all(
        kwargs.get("attention_mask") is None and kwargs["use_cache"] is False for kwargs in calls
    )


def test_settings_say_what_ran(model, trace):
    settings = FastIG(model, rule="midpoint", steps=2, scope="reasoning").attribute(trace).settings
    assert json.loads(json.dumps(settings)) == settings
    expected = {
        "rule": "midpoint",
        "steps": 2,
        "baseline": "pad",
        "baseline_token_id": 0,
        "scope": "reasoning",
        "engine": "fused",
        "backend": "torch",
        "strip_final_answer": False,
    }
    assert {name: settings[name] for name in expected} == expected
    for name, value in CausalLM(model).facts().items():
        assert settings[name] == value
    row = FastIG(model, baseline=torch.zeros(32), rule="midpoint", steps=2, scope="all").attribute(
        trace
    )
    assert json.loads(json.dumps(row.settings))["baseline"] == "tensor"


def test_settings_follow_the_weights(model, trace):
    """As while a policy is trained: every attribution says which weights it is of."""
    ig = FastIG(model, rule="midpoint", steps=2, scope="all")
    before = ig.attribute(trace).settings["fingerprint"]
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight.mul_(1.01)
    assert ig.attribute(trace).settings["fingerprint"] != before


def test_it_says_what_it_is_in_two_lines(model):
    shown = repr(FastIG(model, rule="midpoint", scope="reasoning", engine="autograd"))
    assert shown == (
        "FastIG(Qwen2ForCausalLM '', rule='midpoint, 50 points', baseline='token 0', "
        "scope='reasoning', engine='autograd', dtype=float64)"
    )
    model.name_or_path = "some/where"
    assert f"Qwen2ForCausalLM 'some/where', rule='{Adaptive()}'" in repr(
        FastIG(model, rule="auto", scope="all")
    )
    assert len(repr(FastIG(model, baseline=torch.zeros(32), rule="auto", scope="all"))) <= 200


def test_dtype_runs_a_converted_copy(trace):
    model = make_model("qwen2", dtype=torch.float32)
    attribution = FastIG(
        model, rule="midpoint", steps=3, dtype=torch.float64, scope="all"
    ).attribute(trace)
    assert attribution.token_scores.dtype == torch.float64
    assert model.dtype == torch.float32
    assert_close(
        attribution.token_scores, naive_ig(model.double(), trace, *nodes_and_weights("midpoint", 3))
    )


def test_lora_wrapped_model(trace):
    from peft import LoraConfig, get_peft_model

    bare = make_model("qwen2")
    expected = FastIG(bare, rule="midpoint", steps=3, scope="all").attribute(trace).token_scores
    wrapped = get_peft_model(bare, LoraConfig(target_modules=["q_proj", "v_proj"], r=2))
    assert_close(
        FastIG(wrapped, rule="midpoint", steps=3, scope="all").attribute(trace).token_scores,
        expected,
    )
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    changed = FastIG(wrapped, rule="midpoint", steps=3, scope="all").attribute(trace).token_scores
    assert (changed - expected).abs().max() > 1e-3
    assert_close(changed, naive_ig(wrapped, trace, *nodes_and_weights("midpoint", 3)))


@pytest.mark.parametrize(
    "settings", [{"target_modules": ["embed_tokens"]}, {"trainable_token_indices": [3, 4]}]
)
def test_lora_on_the_embeddings(trace, settings):
    from peft import LoraConfig, get_peft_model

    model = make_model("qwen2", tie_word_embeddings=False)
    expected = (
        FastIG(model, rule="midpoint", steps=3, baseline="mean", scope="all")
        .attribute(trace)
        .token_scores
    )
    wrapped = get_peft_model(model, LoraConfig(r=2, **settings))
    got = (
        FastIG(wrapped, rule="midpoint", steps=3, baseline="mean", scope="all")
        .attribute(trace)
        .token_scores
    )
    assert_close(got, expected)


def test_sharded_model(trace):
    """accelerate replaces the modules' forward to move tensors between devices; it must stay so."""
    from accelerate import dispatch_model

    model = make_model("qwen2", tie_word_embeddings=False)
    expected = FastIG(model, rule="midpoint", steps=3, scope="all").attribute(trace).token_scores
    places = {
        "model.embed_tokens": "cpu",
        "model.layers.0": "cpu",
        "model.layers.1": "cpu",
        "model.layers.2": "cpu",
    }
    places |= {"model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "cpu"}
    sharded = dispatch_model(model, places, force_hooks=True)
    forward = sharded.model.layers[1].forward
    for recompute in (False, True):
        ig = FastIG(sharded, rule="midpoint", steps=3, scope="all")
        ig.planner.plan = lambda *_, recompute=recompute: Plan(2, recompute)
        assert_close(ig.attribute(trace).token_scores, expected)
        assert sharded.model.layers[1].forward == forward


def state_of(model) -> dict:
    return {
        "requires_grad": [parameter.requires_grad for parameter in model.parameters()],
        "grad": [parameter.grad for parameter in model.parameters()],
        "training": [module.training for module in model.modules()],
        "hooks": [
            (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks))
            for m in model.modules()
        ],
        "attributes": [sorted(vars(module)) for module in model.modules()],
        "config": model.config.to_dict(),
        "weights": [parameter.data_ptr() for parameter in model.parameters()],
    }


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("recompute", [False, True])
def test_the_model_comes_back_untouched(model, trace, fails, recompute):
    model.train()
    model.model.layers[0].eval()
    model.model.layers[1].mlp.up_proj.weight.requires_grad_(False)
    runs = []

    def count_and_fail(*_):
        runs.append(1)
        if fails and len(runs) == 2:
            raise RuntimeError("in the middle")

    hook = model.model.layers[2].mlp.register_forward_hook(count_and_fail)
    before = state_of(model)
    ig = FastIG(model, rule="midpoint", steps=4, scope="all")
    ig.planner.plan = lambda *_: Plan(2, recompute)
    if fails:
        with pytest.raises(RuntimeError, match="in the middle"):
            ig.attribute(trace)
    else:
        ig.attribute(trace)
    assert state_of(model) == before
    hook.remove()


def test_dropout_is_off_although_the_model_trains(trace):
    model = make_model("gpt2")
    expected = FastIG(model, rule="midpoint", steps=3, scope="all").attribute(trace).token_scores
    assert_close(
        FastIG(model.train(), rule="midpoint", steps=3, scope="all").attribute(trace).token_scores,
        expected,
    )


def test_attribute_many_keeps_the_order(model):
    traces = [make_trace(num_targets=n, seed=n) for n in (4, 1, 2)]
    ig = FastIG(model, rule="midpoint", steps=2, scope="all")
    for trace, attribution in zip(traces, ig.attribute_many(iter(traces)), strict=True):
        assert attribution.encoded is trace
        assert_close(attribution.token_scores, ig.attribute(trace).token_scores)


@pytest.mark.parametrize("engine", ["fused", "autograd"])
@pytest.mark.parametrize("baseline", [0, "mean", torch.arange(32.0)])
def test_works_inside_inference_mode(model, trace, engine, baseline):
    """Also with ids that were made there."""
    settings = {"rule": "midpoint", "steps": 2, "scope": "all", "engine": engine}
    expected = FastIG(model, **settings, baseline=baseline).attribute(trace)
    with torch.inference_mode():
        made_there = make_trace()
        if isinstance(baseline, torch.Tensor):
            baseline = baseline + 0
        got = FastIG(model, **settings, baseline=baseline).attribute(made_there)
    assert made_there.input_ids.is_inference()
    assert_close(got.token_scores, expected.token_scores)


@pytest.mark.parametrize("word", ["rule", "scope", "engine", "baseline"])
def test_unknown_words_list_the_accepted_ones(model, word):
    with pytest.raises(ValueError, match=rf"{word} must be one of '.*got 'nonsense'"):
        FastIG(model, **{word: "nonsense"})


@pytest.mark.parametrize("steps", [0, -1, 1.5])
def test_too_few_steps(model, steps):
    with pytest.raises(ValueError, match="needs at least"):
        FastIG(model, rule="midpoint", steps=steps)


def test_nan_logits_name_the_path_point(model, trace):
    model.model.norm.register_forward_hook(
        lambda _m, _i, out: torch.where(out[:, :1] > 1e9, out, out.log() * 0 + out)
    )
    with pytest.raises(FloatingPointError, match=r"got nan at path point alpha = 0\.125\. Use"):
        FastIG(model, rule="midpoint", steps=4, scope="all").attribute(trace)
