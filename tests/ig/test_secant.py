"""rule='secant': complete, the prototype's numbers, Integrated Gradients in the limit."""

from __future__ import annotations

import sys

import pytest
import torch
from tiny import SHARED, VARIANTS, assert_close, make_model, make_trace, make_variant

from segattr import EncodedTrace, FastIG
from segattr.engine import forward, reference
from segattr.engine.planner import Plan, Planner
from segattr.ig import Secant
from segattr.ig.secant import ROUNDING

# The prototype has no windows, and knows these families only.
WINDOWED = {"qwen2-window", "mistral-window", "mistral-typed"}
PROTOTYPED = [
    name
    for name, (base, _) in VARIANTS.items()
    if base.startswith(("llama", "qwen", "mistral")) and name not in WINDOWED
]
FAMILIES = ["llama-biases", "qwen2-tied", "qwen3", "mistral-window", "phi3-long-rope", "gemma3"]

FAMILIES += [name for name in ("gemma2",) if name in VARIANTS]


def attribute(model, trace, rule=Secant(), **settings):  # noqa: B008 (frozen)
    return FastIG(model, rule=rule, **{"baseline": 0, "scope": "all", **settings}).attribute(trace)


def missed(attribution) -> float:
    """By how much the scores miss the change of F, as a share of what their sizes add up to."""
    change = attribution.target_logprob - attribution.baseline_logprob
    scores = attribution.token_scores.double()
    return float((scores.sum() - change).abs() / scores.abs().sum())


def test_it_is_the_default_and_so_is_a_path_of_the_reasoning(model, trace):
    default = FastIG(model)
    assert (str(default.rule), default.scope) == ("secant, 1 piece, mean split", "reasoning")
    got = default.attribute(trace)
    named = FastIG(model, rule="secant", scope="reasoning").attribute(trace)
    assert torch.equal(got.token_scores, named.token_scores)
    assert got.settings == named.settings
    ran = [got.settings[name] for name in ("rule", "steps", "split", "scope", "engine")]
    assert ran == ["secant", 1, "mean", "reasoning", "fused"]
    assert (got.method, got.evaluations) == ("finite-propagation", 1)


def test_the_published_pipeline_stays_what_it_is(model, trace):
    official = FastIG.official(model)
    assert (str(official.rule), official.scope) == ("linspace, 50 points", "all")
    assert official.attribute(trace).method == "integrated-gradients"


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("rule", [Secant(), Secant(3), Secant(1, "content")], ids=str)
@pytest.mark.parametrize("scope", ["all", "reasoning"])
def test_complete_on_every_family(name, rule, scope, trace):
    attribution = attribute(make_variant(name), trace, rule, scope=scope)
    assert missed(attribution) < 1e-14
    assert attribution.completeness_gap < 1e-10
    assert attribution.method == "finite-propagation"
    assert attribution.evaluations == rule.steps
    assert attribution.converged is attribution.segment_samples is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", FAMILIES)
def test_lower_precision_misses_what_rounding_takes(name, dtype):
    """Over four traces: one alone may be twice the mean, in any family."""
    models = [make_variant(name, dtype).double(), make_variant(name, dtype)]
    gaps = []
    for seed in range(4):
        exact, rounded = (attribute(model, make_trace(seed=seed)) for model in models)
        gaps.append(missed(rounded))
        error = (rounded.token_scores - exact.token_scores).norm() / exact.token_scores.norm()
        assert error < 20 * torch.finfo(dtype).eps
    assert sum(gaps) / 4 < 4 * torch.finfo(dtype).eps


@pytest.mark.parametrize("split", ["mean", "content"])
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("name", PROTOTYPED)
def test_equals_the_prototype(name, steps, split, monkeypatch):
    if not (SHARED / "prototypes").is_dir():
        pytest.skip("the prototype is not part of the package")
    monkeypatch.syspath_prepend(SHARED / "prototypes")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    from finite_propagation import Finite, Rules, equal_pieces

    model, trace = make_variant(name), make_trace()
    embed = model.get_input_embeddings()
    ends = [embed(ids).detach() for ids in (trace.input_ids, torch.zeros_like(trace.input_ids))]
    target = trace.input_ids[slice(*trace.target)]
    finite = Finite(model, *ends, target, trace.target[0], Rules(split))
    with torch.no_grad():
        want = equal_pieces(finite, steps)
    assert_close(attribute(model, trace, Secant(steps, split)).token_scores, want, 1e-13)


@pytest.mark.parametrize("split", ["mean", "content"])
@pytest.mark.parametrize("name", FAMILIES)
def test_many_pieces_are_integrated_gradients(name, split, trace):
    model = make_variant(name)
    exact = attribute(model, trace, "gauss-legendre", steps=48).token_scores
    errors = [
        float((attribute(model, trace, Secant(steps, split)).token_scores - exact).norm())
        for steps in (16, 64)
    ]
    assert errors[1] < 0.02 * exact.norm()
    # The content split is not symmetric in the ends, so it converges with 1 / steps alone.
    assert errors[1] < errors[0] / (12 if split == "mean" else 3)


def test_where_f_is_linear_it_is_integrated_gradients(trace):
    """On a path so short that F is linear along it."""
    model = make_variant("qwen3")
    row = model.get_input_embeddings().weight[7].detach()
    trace = EncodedTrace(torch.full((36,), 7), trace.prompt, trace.segments, trace.target)
    baseline = row + 1e-7 * torch.randn(row.shape, generator=torch.Generator().manual_seed(0))
    secant = attribute(model, trace, baseline=baseline).token_scores
    assert_close(
        secant, attribute(model, trace, "midpoint", steps=1, baseline=baseline).token_scores, 1e-5
    )


def test_a_path_that_goes_nowhere_has_scores_of_zero(trace):
    model = make_variant("qwen2-tied")
    trace = EncodedTrace(torch.full((36,), 7), trace.prompt, trace.segments, trace.target)
    attribution = attribute(model, trace, baseline=7)
    assert torch.equal(attribution.token_scores, torch.zeros(36, dtype=torch.float64))


def test_tokens_that_stay_in_place_have_no_score(trace):
    """Both ends of their path are one point, and so are the states of the prompt before them."""
    scores = attribute(make_variant("llama"), trace, scope="reasoning").token_scores
    moved = torch.zeros(36, dtype=torch.bool)
    moved[slice(*trace.reasoning)] = True
    assert not scores[~moved].any()
    assert scores[moved].all()


@pytest.mark.parametrize("name", FAMILIES)
class TestNothingElseChangesIt:
    @pytest.mark.parametrize("pieces", [1, 2, 5])
    @pytest.mark.parametrize("recompute", [False, True])
    def test_chunks_and_recomputing(self, name, pieces, recompute, trace, monkeypatch):
        model = make_variant(name)
        want = attribute(model, trace, Secant(5))
        monkeypatch.setattr(Planner, "plan", lambda *_: Plan(pieces, recompute))
        got = attribute(model, trace, Secant(5))
        assert_close(got.token_scores, want.token_scores, 1e-13)
        assert got.target_logprob == pytest.approx(want.target_logprob, rel=1e-13)
        assert got.evaluations == 5

    @pytest.mark.parametrize("bucket", [35, 128])
    def test_padding(self, name, bucket, trace, monkeypatch):
        model = make_variant(name)
        want = attribute(model, trace).token_scores
        monkeypatch.setattr(forward, "BUCKET", {"cpu": bucket})
        assert_close(attribute(model, trace).token_scores, want, 1e-13)

    def test_what_follows_the_answer(self, name):
        model = make_variant(name)
        short, long = (attribute(model, make_trace(tail=tail)).token_scores for tail in (1, 9))
        assert_close(long[:36], short, 1e-13)

    def test_blocks_of_attention(self, name, trace, monkeypatch):
        model = make_variant(name)
        want = attribute(model, trace).token_scores
        monkeypatch.setattr("segattr.engine.reference.secants.MOST_ROWS", 5)
        assert_close(attribute(model, trace).token_scores, want, 1e-13)


def test_the_model_is_untouched(trace):
    model = make_variant("qwen3").train()
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    attribute(model, trace)
    assert model.training
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad
        assert parameter.grad is None
        assert torch.equal(parameter, before[name])


def test_other_models_are_refused_with_the_families_that_run():
    message = (
        r"rule='secant' must be able to run the model, which it is for plain Llama, Qwen2, "
        r"Qwen3, Mistral, Phi3, Gemma2, Gemma3.*, but it is a GPT2LMHeadModel.*Pass rule='auto'\."
    )
    with pytest.raises(ValueError, match=message):
        FastIG(make_model("gpt2"), rule="secant")


def adapted(model):
    from peft import LoraConfig, get_peft_model

    return get_peft_model(model, LoraConfig(target_modules=["q_proj"], r=2))


def hooked(model):
    """As those of a ``device_map`` that offloads."""
    model.model.layers[0].register_forward_hook(lambda *_: None)
    return model


def replaced(model):
    """As what quantisation makes of linear layers."""
    for layer in model.model.layers:
        layer.mlp.down_proj.__class__ = type("Linear4bit", (torch.nn.Linear,), {})
    return model


UNFUSED = [
    (lambda _: make_model("gpt2"), {}, "but it is a GPT2LMHeadModel, not a"),
    (adapted, {}, "but it is a PeftModel, not a"),
    (hooked, {}, "but its module 'model.layers.0' has hooks"),
    (replaced, {}, r"but its module '.*down_proj' must be .*, got .*\.Linear4bit"),
    (lambda model: model, {"engine": "autograd"}, "got 'autograd'"),
]


@pytest.mark.parametrize(("change", "settings", "reason"), UNFUSED)
def test_what_it_cannot_run_is_told_what_can(change, settings, reason):
    model = change(make_model("llama"))
    remedy = r"\. Pass rule='auto'\. That is Integrated Gradients, for any causal LM\."
    with pytest.raises(ValueError, match=rf"rule='secant'.*{reason}.*{remedy}"):
        FastIG(model, rule="secant", **settings)


@pytest.mark.parametrize(("change", "settings", "reason"), UNFUSED)
def test_the_default_says_where_it_gives_way_to_integrated_gradients(
    change, settings, reason, trace
):
    model = change(make_model("llama"))
    said = rf"Integrated Gradients are computed instead of finite propagation: .*{reason}"
    with pytest.warns(UserWarning, match=said) as caught:
        ig = FastIG(model, **settings)
    assert [warning.filename for warning in caught] == [__file__]
    named = FastIG(model, rule="auto", **settings)
    assert (ig.rule, ig.scope) == (named.rule, named.scope)
    got, expected = ig.attribute(trace), named.attribute(trace)
    assert (got.method, got.settings["engine"]) == ("integrated-gradients", "autograd")
    assert torch.equal(got.token_scores, expected.token_scores)


def test_hooks_that_come_later_are_refused_then(trace):
    model = make_variant("llama")
    ig = FastIG(model, rule="secant", baseline=0, scope="all")
    ig.attribute(trace)
    model.model.layers[0].register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match=r"rule='secant' must be able .*has hooks"):
        ig.attribute(trace)


def test_the_autograd_engine_is_refused():
    with pytest.raises(ValueError, match="engine must be 'fused' or 'auto' with rule='secant'"):
        FastIG(make_model("llama"), rule="secant", engine="autograd")


@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
def test_scores_that_are_not_complete_are_refused(dtype, trace, monkeypatch):
    """As they would be with a wrong secant anywhere."""
    model = make_variant("llama", dtype)
    ig = FastIG(model, rule="secant", baseline=0, scope="all")
    right = reference.rms_norm_secant
    monkeypatch.setattr(reference, "rms_norm_secant", lambda *given: 3 * right(*given))
    with pytest.raises(FloatingPointError, match=r"must sum to F\(x\) - F\(x'\) = .*wider dtype"):
        ig.attribute(trace)


def test_points_may_still_be_evaluated(trace):
    """`integrand` is of the path, whatever the rule."""
    model = make_variant("llama")
    ours = FastIG(model, rule="secant", baseline=0, scope="all").integrand(trace, [0.5])
    theirs = FastIG(model, baseline=0, rule="auto", scope="all").integrand(trace, [0.5])
    assert torch.equal(ours[1], theirs[1])


@pytest.mark.parametrize("name", ["llama-biases", "qwen3", "mistral-window"])
def test_kernels_in_the_sweep(name):
    """On the GPU or in Triton's interpreter, which is slow: a short trace, two layers."""
    pytest.importorskip("triton")
    trace = EncodedTrace(torch.arange(3, 17), (0, 4), [(4, 8), (8, 10)], (11, 13))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = make_variant(name, num_hidden_layers=2, sliding_window=5).to(device)
    want, got = (attribute(model, trace, Secant(2), backend=word) for word in ("torch", "triton"))
    assert (want.settings["backend"], got.settings["backend"]) == ("torch", "triton")
    assert_close(got.token_scores, want.token_scores, 1e-12)
