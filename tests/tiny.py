"""Tiny random models in float64; traces, attributions and scores by hand; IG by its definition."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import accumulate, chain, pairwise
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor

from segattr import Attribution, EncodedTrace, SegmentScorer, SegmentScores, Trace
from segattr.dataset import ScoredTrace, scored_trace
from segattr.demo import TRACES
from segattr.engine.choice import Engine, engine_class
from segattr.engine.ends import PathEnds

DATA = Path(__file__).parent / "data"
SHARED = Path(__file__).parents[2] / "shared"
# Options with which `segattr score` takes no time; its scores are too rough to be trusted.
ROUGH = ["--model", "bundled", "--rule", "midpoint", "--steps", "2", "--scope", "all"]
SCORE = [*ROUGH, "--require", "none"]
VOCAB = 96

SMALL = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": None,
    "initializer_range": 0.15,
}
HEADS_OF_GEMMA = {"query_pre_attn_scalar": 8, "sliding_window": 16}
SMALL_GPT2 = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 128}
SLIDING_AND_FULL = {
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
    "sliding_window": 16,
}
WIDTHS_OF_GEMMA3N = {
    **SLIDING_AND_FULL,
    "intermediate_size": [48, 64, 48],
    "activation_sparsity_pattern": [0.0] * 3,
    "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": VOCAB,
    "laurel_rank": 4,
    "num_kv_shared_layers": 0,
}
# With embeddings of its own for each layer it takes no embeddings, as `target_logprob` gives it.
HEADS_OF_GEMMA4 = {**SLIDING_AND_FULL, "global_head_dim": 16, "hidden_size_per_layer_input": 0}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
LONGROPE = {
    "partial_rotary_factor": 0.5,
    "rope_scaling": {"type": "longrope", "short_factor": [1.0, 1.5], "long_factor": [2.0, 6.0]},
}
BOUNDS = {"attn_logit_softcapping": 0.5, "final_logit_softcapping": 2.0}
# One name per way a model can differ: biases, head norms, sliding window, merged projections
# (Phi-3), embeddings scaled in the model (Gemma) or in the embedding (Gemma3), capped logits
# (Gemma2), learned positions (GPT-2), experts, tied and untied heads, layers whose MLP (Gemma3n) or
# heads (Gemma4) differ in width.
MODELS = {
    "llama": ("LlamaConfig", "LlamaForCausalLM", {}),
    "llama-tied": ("LlamaConfig", "LlamaForCausalLM", {"tie_word_embeddings": True}),
    "qwen2": ("Qwen2Config", "Qwen2ForCausalLM", {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM", {}),
    "mistral-window": ("MistralConfig", "MistralForCausalLM", {"sliding_window": 16}),
    "phi3": ("Phi3Config", "Phi3ForCausalLM", {}),
    "gemma": ("GemmaConfig", "GemmaForCausalLM", {}),
    "gemma2": ("Gemma2Config", "Gemma2ForCausalLM", HEADS_OF_GEMMA),
    "gemma3": ("Gemma3TextConfig", "Gemma3ForCausalLM", HEADS_OF_GEMMA),
    "gpt2": ("GPT2Config", "GPT2LMHeadModel", SMALL_GPT2),
    "qwen3-moe": ("Qwen3MoeConfig", "Qwen3MoeForCausalLM", EXPERTS),
    "mixtral": ("MixtralConfig", "MixtralForCausalLM", {"num_local_experts": 4}),
    "gemma3n": ("Gemma3nTextConfig", "Gemma3nForCausalLM", WIDTHS_OF_GEMMA3N),
    "gemma4": ("Gemma4TextConfig", "Gemma4ForCausalLM", HEADS_OF_GEMMA4),
}
# transformers 4 has no Gemma4.
MODELS = {name: kind for name, kind in MODELS.items() if hasattr(transformers, kind[1])}

# What the fused engine runs: grouped keys 4:1, 2:1 and 1:1, biases (Qwen2), head norms (Qwen3),
# tied heads, sliding windows in all layers (Mistral) and in some (Qwen2), MLP and output biases
# (Llama), merged projections (Phi-3), heads rotated in part, by factors that depend on the length
# (Phi-4-mini): 34 tokens are long here, four norms, GELU and two ropes (Gemma3), bounds of scores
# and logits (Gemma2) which the tiny models reach.
VARIANTS = {
    "llama": ("llama", {}),
    "llama-tied": ("llama-tied", {}),
    "llama-biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama-one-key-head": ("llama", {"num_key_value_heads": 1}),
    "llama-all-key-heads": ("llama", {"num_key_value_heads": 4}),
    "llama-scaled-rope": (
        "llama",
        {"rope_scaling": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}},
    ),
    "qwen2-tied": ("qwen2", {}),
    "qwen2-untied": ("qwen2", {"tie_word_embeddings": False}),
    "qwen2-window": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1},
    ),
    "qwen3": ("qwen3", {}),
    "mistral": ("mistral-window", {"sliding_window": None}),
    "mistral-window": ("mistral-window", {}),
    "phi3": ("phi3", {}),
    "phi3-window": ("phi3", {"sliding_window": 16, "num_key_value_heads": 4}),
    "phi3-partial-rope": ("phi3", {"partial_rotary_factor": 0.5, "tie_word_embeddings": True}),
    "phi3-short-rope": ("phi3", {**LONGROPE, "original_max_position_embeddings": 40}),
    "phi3-long-rope": ("phi3", {**LONGROPE, "original_max_position_embeddings": 20}),
    "gemma3": ("gemma3", {**SLIDING_AND_FULL, "query_pre_attn_scalar": 5}),
    "gemma3-window": ("gemma3", {"attention_bias": True, "tie_word_embeddings": False}),
    "gemma3-scaled-rope": (
        "gemma3",
        {**SLIDING_AND_FULL, "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
    ),
    "gemma2": ("gemma2", {**SLIDING_AND_FULL, **BOUNDS}),
    "gemma2-full": ("gemma2", {"layer_types": ["full_attention"] * 3, **BOUNDS}),
    "gemma2-unbounded": ("gemma2", dict.fromkeys(BOUNDS)),
    "one-layer": ("qwen2", {"num_hidden_layers": 1}),
    # What transformers' forward does not read must not matter: types of Mistral's layers, a window
    # of Llama's, a bound of Gemma3's scores.
    "gemma3-bounds": ("gemma3", BOUNDS),
    "mistral-typed": ("mistral-window", {"layer_types": ["full_attention"] * 3}),
    "llama-typed": ("llama", {"sliding_window": 8, "layer_types": ["sliding_attention"] * 3}),
}


if transformers.__version__ < "5":  # whose Gemma2 scales embeddings outside of their module
    VARIANTS = {name: kind for name, kind in VARIANTS.items() if kind[0] != "gemma2"}


def make_model(name: str, dtype: torch.dtype = torch.float64, **changes: object):
    """A random model of this kind, seeded, in evaluation mode."""
    config_name, model_name, extra = MODELS[name]
    shared = ("vocab_size", "pad_token_id", "eos_token_id") if name == "gpt2" else SMALL
    settings = {**{key: SMALL[key] for key in shared}, **extra, **changes}
    config = getattr(transformers, config_name)(**settings)
    torch.manual_seed(0)
    model = getattr(transformers, model_name)(config)
    # The pad token's embedding starts as zeros, where the norms make the path singular.
    torch.nn.init.normal_(model.get_input_embeddings().weight.data[0], std=0.15)
    if name in ("qwen3-moe", "mixtral") and hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation("eager")  # torch's grouped product has no float64
    return model.to(dtype).eval()


def make_variant(name: str, dtype: torch.dtype = torch.float64, **changes: object):
    base, settings = VARIANTS[name]
    model = make_model(base, dtype, **{**settings, **changes})
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():  # biases start as zeros and norms as ones: useless here
        if parameter.ndim == 1:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data += 0.1 * noise.to(parameter.dtype)
    return model


def make_trace(num_targets: int = 3, tail: int = 1, seed: int = 0) -> EncodedTrace:
    """Prompt 5, segments 7 + 0 + 4 + 12, stub 4, then the target and some tokens after it."""
    generator = torch.Generator().manual_seed(seed)
    length = 32 + num_targets + tail
    return EncodedTrace(
        input_ids=torch.randint(2, VOCAB, (length,), generator=generator),
        prompt=(0, 5),
        segments=[(5, 12), (12, 12), (12, 16), (16, 28)],
        target=(32, 32 + num_targets),
    )


def make_engine(model, name: str = "auto", tokens: int = 34, num_targets: int = 3) -> Engine:
    """An engine for so many tokens, the last of which predicts the last answer token."""
    width = model.get_input_embeddings().weight.shape[1]
    rows = torch.zeros(tokens, width, dtype=model.dtype, device=model.device)
    ends = PathEnds(torch.zeros(tokens).long(), rows, rows, torch.arange(num_targets))
    return engine_class(model, name)(model, ends)


def make_scored() -> ScoredTrace:
    """A scored trace by hand: prompt 2, segments 2 + 1 + 3 + 2, stub 1, answer 1, response 2."""
    spans = [(2, 4), (4, 5), (5, 8), (8, 10)]
    characters = [(start - 2, stop - 2) for start, stop in spans]
    ids, response = [*range(20, 30), 40, 41], [7, 8]
    encoded = EncodedTrace(ids, (0, 2), spans, (11, 12), response, "a", characters=characters)
    tokens = torch.tensor([0.0, 0.0, 1.0, -1.0, 3.0, 2.0, -2.0, 2.0, 0.1, 0.1, 0.0, 0.0])
    attribution = Attribution(tokens, encoded, -1.0, -9.0, 9, method="by hand")
    return scored_trace(Trace("q", "abcdefgh", "1", id="a"), attribution, SegmentScorer())


CLOSE = 1e-8  # some kinds of model keep their float32 norms and softmax


def make_attribution(*segments: Sequence[float], outside: float = 0.0) -> Attribution:
    """Segments with these token scores, between a prompt and a stub of one token each.

    Prompt and stub score ``outside``, the target, of one token too, 0.
    """
    scores = [outside, *chain(*segments), outside, 0.0]
    cuts = accumulate(map(len, segments), initial=1)
    target = (len(scores) - 1, len(scores))
    encoded = EncodedTrace(range(len(scores)), (0, 1), list(pairwise(cuts)), target)
    return Attribution(torch.tensor(scores), encoded, -1.0, -2.0, 1, "by hand")


def make_scores(*strength: float) -> SegmentScores:
    """Scores of segments of these strengths; those above 0 are kept."""
    values = torch.tensor(strength, dtype=torch.float64)
    return SegmentScores(values, values, values, values > 0, values > 0)


def assert_close(got: Tensor, expected: Tensor, tolerance: float = CLOSE) -> None:
    """``got`` may differ from ``expected`` by this share of its largest value."""
    assert got.shape == expected.shape
    error = (got - expected).abs().max() / expected.abs().max()
    assert error <= tolerance, f"differs by {error:.1e} of the largest score"


def target_logprob(model, embeds: Tensor, encoded: EncodedTrace) -> Tensor:
    """F by its definition: the whole sequence, all logits, one log-softmax."""
    start, stop = encoded.target
    logits = model(inputs_embeds=embeds[None], use_cache=False).logits[0].double()
    return (
        logits.log_softmax(-1)[start - 1 : stop - 1]
        .gather(-1, encoded.input_ids[start:stop, None])
        .sum()
    )


def naive_ig(
    model, encoded: EncodedTrace, alphas, weights, baseline_id: int = 0, scope: str = "all"
) -> Tensor:
    """IG by its definition: one path point, one backward pass at a time."""
    embed = model.get_input_embeddings()
    inputs = embed(encoded.input_ids).detach()
    baseline = embed(torch.full_like(encoded.input_ids, baseline_id)).detach()
    if scope == "reasoning":
        start, stop = encoded.reasoning
        baseline = torch.cat([inputs[:start], baseline[start:stop], inputs[stop:]])
    total = torch.zeros_like(inputs)
    for alpha, weight in zip(alphas.tolist(), weights.tolist(), strict=True):
        point = (baseline + alpha * (inputs - baseline)).requires_grad_()
        (gradient,) = torch.autograd.grad(target_logprob(model, point, encoded), point)
        total += weight * gradient
    return ((inputs - baseline) * total).sum(-1)


def exact_norm(of: type):
    """RMSNorm in the dtype of its input; transformers has float32 even in a float64 model."""

    def forward(self, hidden: Tensor) -> Tensor:
        mean_square = hidden.pow(2).mean(-1, keepdim=True)
        plain = hasattr(self, "variance_epsilon")  # Gemma adds 1 to its weights
        weight, eps = (self.weight, self.variance_epsilon) if plain else (1 + self.weight, self.eps)
        return weight * (hidden * torch.rsqrt(mean_square + eps))

    forward.__module__ = of.__module__  # the fused engine refuses a forward from elsewhere
    return forward


def exact_attention(module, queries, keys, values, mask, scaling, softcap, **_):
    """Gemma2's attention in the dtype of its input; transformers has float32 for the softmax."""
    groups = module.num_key_value_groups
    keys, values = (part.repeat_interleave(groups, 1) for part in (keys, values))
    scores = queries @ keys.transpose(2, 3) * scaling
    if softcap is not None:
        scores = softcap * (scores / softcap).tanh()
    shares = (scores if mask is None else scores + mask).softmax(-1)
    return (shares @ values).transpose(1, 2).contiguous(), shares


def read_parquet(path: Path) -> list[dict]:
    import pyarrow.parquet

    return pyarrow.parquet.read_table(path).to_pylist()


def read_jsonl(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
INST = (
    "<s>{% for message in messages %}{% if message.role == 'user' %}[INST] {{ message.content }}"
    " [/INST]{% else %}{{ message.content }}</s>{% endif %}{% endfor %}"
)
# Merges of its own and offsets without spaces, as Llama 3's; no merges; SentencePiece's spaces.
STUDENTS = ("bpe", "bytes", "metaspace")


def make_student(kind: str):
    """A tokenizer that shares no ids with the bundled one, and writes a turn in its own way."""
    corpus = TRACES.read_text()
    bpe = Tokenizer(models.BPE())
    special = ["<s>", "</s>"] if kind == "metaspace" else ["<|im_start|>", "<|im_end|>"]
    alphabet = [*map(chr, range(32, 127)), "\n", "\u2581"]
    if kind == "metaspace":
        lines = pre_tokenizers.Split("\n", behavior="isolated")
        spaces = pre_tokenizers.Metaspace(prepend_scheme="first")
        bpe.pre_tokenizer = pre_tokenizers.Sequence([lines, spaces])
        bpe.decoder = decoders.Metaspace(prepend_scheme="first")
    else:
        bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        bpe.decoder, bpe.post_processor = decoders.ByteLevel(), processors.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    size = len(special) + len(alphabet) + (0 if kind == "bytes" else 150)
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=special,
        initial_alphabet=sorted(alphabet),
        show_progress=False,
    )
    bpe.train_from_iterator([corpus.replace("\\n", "\n")], trainer)
    template = INST if kind == "metaspace" else CHATML
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token=special[1], pad_token=special[1], chat_template=template
    )
