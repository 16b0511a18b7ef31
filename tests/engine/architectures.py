"""A tiny random model of every kind of causal LM that transformers has: what sizes it takes."""

from __future__ import annotations

import inspect
from contextlib import suppress
from typing import Any

import torch
import transformers
from tiny import VOCAB
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

LAYERS = 4
# By the names that configs have for them; a config takes those it knows.
SMALL: dict[str, Any] = {
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input"), VOCAB),
    **dict.fromkeys(
        ("hidden_size", "d_model", "n_embd", "embedding_size", "word_embed_proj_dim", "emb_dim"), 32
    ),
    **dict.fromkeys(
        ("intermediate_size", "ffn_dim", "decoder_ffn_dim", "d_ff", "n_inner", "dff"), 48
    ),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "decoder_layers"), LAYERS),
    **dict.fromkeys(("num_decoder_layers", "num_layers", "encoder_layers"), LAYERS),
    **dict.fromkeys(
        ("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads"), 4
    ),
    **dict.fromkeys(("num_decoder_attention_heads", "num_experts", "num_local_experts"), 4),
    # All experts for all tokens: F jumps where a token changes experts, and has no gradient there.
    **dict.fromkeys(("num_experts_per_tok", "moe_k", "moe_top_k", "top_k_experts"), 4),
    **dict.fromkeys(("n_group", "topk_group"), 1),
    **dict.fromkeys(("n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_blocks"), 2),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 24),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "rotary_dim"), 8),
    **dict.fromkeys(("head_dim", "v_head_dim", "linear_head_dim", "global_head_dim"), 8),
    **dict.fromkeys(("qk_nope_head_dim", "qk_rope_head_dim", "index_head_dim"), 8),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim"), 8),
    **dict.fromkeys(("linear_num_key_heads", "linear_num_heads", "index_n_heads"), 2),
    **dict.fromkeys(("linear_num_value_heads",), 2),
    **dict.fromkeys(("mamba_n_heads", "mamba_num_heads", "n_mamba_heads"), 8),
    **dict.fromkeys(("mamba_d_head", "mamba_head_dim", "hidden_size_per_layer_input"), 8),
    **dict.fromkeys(("mamba_d_state", "ssm_state_size", "laurel_rank"), 4),
    **dict.fromkeys(("mamba_n_groups", "n_groups", "mamba_ngroups"), 1),
    **dict.fromkeys(("max_position_embeddings", "n_positions"), 128),
    **dict.fromkeys(("initializer_range", "init_std"), 0.15),
    "index_topk": 64,  # all tokens, as for experts
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
    "sliding_window": 16,
    "is_decoder": True,
}
MIXED = ["linear_attention", "full_attention"] * 2
ASSISTANT = {
    "text_config": {
        "model_type": "gemma4_text",
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "hidden_size_per_layer_input": 0,
        "vocab_size_per_layer_input": 0,
        "num_kv_shared_layers": LAYERS,
    }
}
# Shapes that fit together only so, and sizes by names that no other config has.
SPECIAL: dict[str, dict[str, Any]] = {
    "BailingHybridForCausalLM": {"layer_group_size": 2},
    "BambaForCausalLM": {"attn_layer_indices": [1, 3]},
    "BltForCausalLM": {
        "encoder_hash_byte_group_vocab": 50,
        "encoder_config": {"hidden_size_global": 32},
        "decoder_config": {"hidden_size_global": 32},
    },
    "CohereCompassForCausalLM": {
        "layer_types": ["full_attention"] * 4,
        "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e4}},
    },
    "CpmAntForCausalLM": {"dim_head": 8, "prompt_length": 4, "dim_ff": 48},
    "DbrxForCausalLM": {
        "attn_config": {"rope_theta": 1e4, "kv_n_heads": 2, "clip_qkv": 8.0},
        "ffn_config": {
            "ffn_hidden_size": 48,
            "hidden_size": 32,
            "moe_num_experts": 4,
            "moe_top_k": 4,
        },
    },
    "Dots1ForCausalLM": {"n_shared_experts": 1},
    "Dots3NoteForCausalLM": {
        "layer_types": ["indexed_attention"] * 4,
        "shared_experts_intermediate_size": 24,
    },
    "FalconH1ForCausalLM": {"mamba_d_ssm": 64, "embedding_multiplier": 5.0},
    "Gemma3nForCausalLM": {"num_kv_shared_layers": 1, "activation_sparsity_pattern": [0.0] * 4},
    "Gemma4AssistantForCausalLM": ASSISTANT,
    "Gemma4UnifiedAssistantForCausalLM": {
        "text_config": {**ASSISTANT["text_config"], "model_type": "gemma4_unified_text"}
    },
    "Gemma4UnifiedForConditionalGeneration": {"vision_config": {"mm_embed_dim": 32}},
    "GPTNeoForCausalLM": {"attention_types": [[["global", "local"], 2]]},
    "GotOcr2ForConditionalGeneration": {"vision_config": {"mlp_dim": 48}},
    "GraniteMoeHybridForCausalLM": {"layer_types": MIXED, "shared_intermediate_size": 48},
    "HrmTextForCausalLM": {"L_bp_cycles": [3, 3]},
    "InklingForCausalLM": {
        "swa_num_attention_heads": 4,
        "swa_num_key_value_heads": 2,
        "swa_head_dim": 8,
    },
    "Inkling2ForCausalLM": {
        "swa_num_attention_heads": 4,
        "swa_num_key_value_heads": 2,
        "swa_head_dim": 8,
    },
    "JambaForCausalLM": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "KimiLinearForCausalLM": {"layer_types": MIXED},
    "Lfm2MoeForCausalLM": {"layer_types": ["conv", "full_attention"] * 2},
    "LongcatFlashForCausalLM": {
        "ffn_hidden_size": 48,
        "expert_ffn_hidden_size": 24,
        "moe_topk": 8,
        "zero_expert_num": 4,
        "head_dim": 8,
    },
    "Mamba2ForCausalLM": {"num_heads": 8},
    "Qwen4ExpForCausalLM": {
        "ple_layer_ids": [1, 3],
        "ngram_vocab_size_base": 50,
        "heads_per_ngram": 2,
        "split_ngram_parts": 1,
        "make_ngram_vocab_size_divisible_by": 1,
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 64,
        "indexer_compress_ratio": 1,
    },
    "ReformerModelWithLMHead": {
        "axial_pos_embds_dim": (16, 16),
        "axial_pos_shape": (4, 8),
        "attention_head_size": 8,
        "feed_forward_size": 48,
    },
    "RoCBertForCausalLM": {"pronunciation_vocab_size": VOCAB, "shape_vocab_size": VOCAB},
    "xLSTMForCausalLM": {"hidden_size": 128, "num_hidden_layers": 2},
    "XmodForCausalLM": {"default_language": "en_XX"},
    "ZambaForCausalLM": {"num_hidden_layers": 6, "attn_layer_period": 2, "attn_layer_offset": 0},
    "Zamba2ForCausalLM": {"layers_block_type": ["linear_attention", "hybrid"] * 2},
    "ZayaForCausalLM": {"num_experts_per_tok": 1, "router_hidden_size": 16, "num_experts": 1},
}

NEWER = transformers.__version__ >= "5"
# The same where transformers 4 wants other words.
OLDER: dict[str, dict[str, Any]] = {
    "DbrxForCausalLM": {
        "ffn_config": {"ffn_hidden_size": 48, "moe_num_experts": 4, "moe_top_k": 4}
    },
    "GraniteMoeHybridForCausalLM": {"layer_types": ["mamba", "attention"] * 2},
    "JambaForCausalLM": {"use_mamba_kernels": False},
    "MllamaForCausalLM": {"rope_scaling": {"rope_type": "default"}},
    "ZambaForCausalLM": {"use_mamba_kernels": False},
    "Zamba2ForCausalLM": {"layers_block_type": ["mamba", "hybrid"] * 2},
}

SERVED = [
    "BltForCausalLM",
    "AfmoeForCausalLM",
    "ApertusForCausalLM",
    "ArceeForCausalLM",
    "AriaTextForCausalLM",
    "AXK1ForCausalLM",
    "AXK2ForCausalLM",
    "BailingHybridForCausalLM",
    "BambaForCausalLM",
    "BartForCausalLM",
    "BeamForCausalLM",
    "BertGenerationDecoder",
    "BertLMHeadModel",
    "BigBirdForCausalLM",
    "BigBirdPegasusForCausalLM",
    "BioGptForCausalLM",
    "BitNetForCausalLM",
    "BlenderbotForCausalLM",
    "BlenderbotSmallForCausalLM",
    "BloomForCausalLM",
    "CamembertForCausalLM",
    "CodeGenForCausalLM",
    "Cohere2ForCausalLM",
    "Cohere2MoeForCausalLM",
    "CohereCompassForCausalLM",
    "CohereForCausalLM",
    "CTRLLMHeadModel",
    "CwmForCausalLM",
    "Data2VecTextForCausalLM",
    "DbrxForCausalLM",
    "DeepseekV2ForCausalLM",
    "DeepseekV32ForCausalLM",
    "DeepseekV3ForCausalLM",
    "DeepseekV4ForCausalLM",
    "DiffLlamaForCausalLM",
    "DogeForCausalLM",
    "Dots1ForCausalLM",
    "Dots3NoteForCausalLM",
    "ElectraForCausalLM",
    "Emu3ForCausalLM",
    "Ernie4_5_MoeForCausalLM",
    "Ernie4_5ForCausalLM",
    "ErnieForCausalLM",
    "Exaone4ForCausalLM",
    "ExaoneMoeForCausalLM",
    "FalconForCausalLM",
    "FalconH1ForCausalLM",
    "FalconMambaForCausalLM",
    "FlexOlmoForCausalLM",
    "FlintForCausalLM",
    "FuyuForCausalLM",
    "Gemma2ForCausalLM",
    "Gemma3ForCausalLM",
    "Gemma3ForConditionalGeneration",
    "Gemma3nForCausalLM",
    "Gemma4ForCausalLM",
    "Gemma4ForConditionalGeneration",
    "Gemma4UnifiedForCausalLM",
    "Gemma4UnifiedForConditionalGeneration",
    "GemmaForCausalLM",
    "GitForCausalLM",
    "Glm4ForCausalLM",
    "Glm4MoeForCausalLM",
    "Glm4MoeLiteForCausalLM",
    "GlmForCausalLM",
    "GlmMoeDsaForCausalLM",
    "GotOcr2ForConditionalGeneration",
    "GPT2LMHeadModel",
    "GPTBigCodeForCausalLM",
    "GPTJForCausalLM",
    "GPTNeoForCausalLM",
    "GPTNeoXForCausalLM",
    "GPTNeoXJapaneseForCausalLM",
    "GptOssForCausalLM",
    "GraniteForCausalLM",
    "GraniteMoeForCausalLM",
    "GraniteMoeHybridForCausalLM",
    "GraniteMoeSharedForCausalLM",
    "GraniteMoeSWAForCausalLM",
    "GraniteSWAForCausalLM",
    "HeliumForCausalLM",
    "HrmTextForCausalLM",
    "HunYuanDenseV1ForCausalLM",
    "HunYuanMoEV1ForCausalLM",
    "HyperCLOVAXForCausalLM",
    "HYV3ForCausalLM",
    "HYV4ForCausalLM",
    "Inkling2ForCausalLM",
    "InklingForCausalLM",
    "Jais2ForCausalLM",
    "JambaForCausalLM",
    "JetMoeForCausalLM",
    "KimiLinearForCausalLM",
    "Kolibri1ForCausalLM",
    "LagunaForCausalLM",
    "Lfm2ForCausalLM",
    "Lfm2MoeForCausalLM",
    "Lfm3ForCausalLM",
    "Llama4ForCausalLM",
    "LlamaForCausalLM",
    "LongcatFlashForCausalLM",
    "Mamba2ForCausalLM",
    "MambaForCausalLM",
    "MarianForCausalLM",
    "MBartForCausalLM",
    "MegatronBertForCausalLM",
    "MellumForCausalLM",
    "MiMoV2FlashForCausalLM",
    "MiniCPM3ForCausalLM",
    "MiniMaxForCausalLM",
    "MiniMaxM2ForCausalLM",
    "MiniMaxM3VLForCausalLM",
    "Ministral3ForCausalLM",
    "MinistralForCausalLM",
    "MistralForCausalLM",
    "MixtralForCausalLM",
    "MllamaForCausalLM",
    "ModernBertDecoderForCausalLM",
    "MoshiForCausalLM",
    "MossTranscribeDiarizeForConditionalGeneration",
    "MptForCausalLM",
    "MvpForCausalLM",
    "NanoChatForCausalLM",
    "NemotronForCausalLM",
    "NemotronHForCausalLM",
    "Olmo2ForCausalLM",
    "Olmo3ForCausalLM",
    "OlmoeForCausalLM",
    "OlmoForCausalLM",
    "OlmoHybridForCausalLM",
    "OpenAIGPTLMHeadModel",
    "OPTForCausalLM",
    "PegasusForCausalLM",
    "PersimmonForCausalLM",
    "Phi3ForCausalLM",
    "Phi4MultimodalForCausalLM",
    "PhiForCausalLM",
    "PhimoeForCausalLM",
    "PLBartForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen2MoeForCausalLM",
    "Qwen3_5ForCausalLM",
    "Qwen3_5MoeForCausalLM",
    "Qwen3ForCausalLM",
    "Qwen3MoeForCausalLM",
    "Qwen3NextForCausalLM",
    "Qwen4ExpForCausalLM",
    "RecurrentGemmaForCausalLM",
    "RemBertForCausalLM",
    "RobertaForCausalLM",
    "RobertaPreLayerNormForCausalLM",
    "RoCBertForCausalLM",
    "RoFormerForCausalLM",
    "RwkvForCausalLM",
    "SeedOssForCausalLM",
    "SmolLM3ForCausalLM",
    "SolarOpenForCausalLM",
    "StableLmForCausalLM",
    "Starcoder2ForCausalLM",
    "TrOCRForCausalLM",
    "VaultGemmaForCausalLM",
    "WhisperForCausalLM",
    "XGLMForCausalLM",
    "XLMRobertaForCausalLM",
    "XLMRobertaXLForCausalLM",
    "xLSTMForCausalLM",
    "XmodForCausalLM",
    "YoutuForCausalLM",
    "Zamba2ForCausalLM",
    "ZambaForCausalLM",
    "ZayaForCausalLM",
]
# What segattr refuses, and what it says of it.
REFUSED = {
    "CpmAntForCausalLM": "look its token ids up",  # it puts a prompt of its own before them
    "MegaForCausalLM": "cannot generate",
    "MusicgenForCausalLM": "ModuleList",  # a table for each of several streams of sound
    "MusicgenMelodyForCausalLM": "ModuleList",
    "OpenLlamaForCausalLM": "cannot generate",
    "ProphetNetForCausalLM": "same log-probability",  # positions are counted from the end
    "ReformerModelWithLMHead": "gradients in evaluation mode",  # its backward runs in training only
    "XLMProphetNetForCausalLM": "cannot generate",
    "XLMWithLMHeadModel": "must be causal",
    "XLNetLMHeadModel": "look its token ids up",  # it turns the batch; and tokens see later ones
}
# What only the older transformers does not run as it should.
REFUSED_BY_OLDER = {
    "Gemma3nForCausalLM": "same log-probability",  # layers share keys through the cache alone
    "RecurrentGemmaForCausalLM": "must match the existing size",  # layers keep the last batch
}
# What transformers itself cannot make or run here, and what it says.
UNMADE = {
    "Gemma3nForConditionalGeneration": "requires the timm library",
    # Those two draft tokens from the states of a larger model; alone they have no keys.
    "Gemma4AssistantForCausalLM": "layer types producing a cache",
    "Gemma4UnifiedAssistantForCausalLM": "layer types producing a cache",
    "QDQBertLMHeadModel": "requires the pytorch-quantization library",
    "Speech2Text2ForCausalLM": "has no attribute 'weight'",
    "TransfoXLLMHeadModel": "negative dimension",
}
UNMADE_BY_NEWER = {
    "BltForCausalLM": "has no attribute 'num_hidden_layers'",  # so that its cache cannot be made
}


def every() -> list[str]:
    """All class names, once."""
    names: dict[str, None] = {}
    for entry in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values():
        names |= dict.fromkeys([entry] if isinstance(entry, str) else entry)
    return list(names)


def make(name: str) -> Any:
    """A random model of this class, seeded, in evaluation mode, in float64 if it can."""
    kind = getattr(transformers, name)
    special = {**SPECIAL.get(name, {}), **({} if NEWER else OLDER.get(name, {}))}
    config = kind.config_class(**settings_of(kind.config_class, special))
    if not config.is_encoder_decoder:
        config.is_decoder = True
    with suppress(NotImplementedError), torch.device("meta"):
        size = sum(weight.numel() for weight in kind(config).parameters())
        assert size < 4e6, f"{name} has {size / 1e6:.1f} M parameters: name its sizes"
    torch.manual_seed(0)
    model = kind(config).eval()
    if hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation("eager")  # torch's grouped product has no float64
    return model.double() if runs_in_float64(model) else model.float()


def runs_in_float64(model: Any) -> bool:
    """Whether nothing in the model insists on float32."""
    try:
        with torch.no_grad():
            model.double()(input_ids=torch.arange(4, 8)[None])
    except RuntimeError:
        return False
    return True


def settings_of(config_class: type, special: dict[str, Any]) -> dict[str, Any]:
    """What of `SMALL` a config knows, in the configs inside it too, and what is special."""
    known = {*inspect.signature(config_class.__init__).parameters, *config_class.attribute_map}
    for parent in config_class.__mro__:
        known |= set(vars(parent).get("__annotations__", {}))
    settings = {key: value for key, value in SMALL.items() if key in known}
    for key, inside in config_class.sub_configs.items():
        if inside is transformers.AutoConfig:
            kind = special.get(key, {}).get("model_type")
            inside = CONFIG_MAPPING[kind] if kind else type(getattr(config_class(), key))
        if inside is not type(None):
            settings[key] = settings_of(inside, special.get(key, {}))
    if "qk_rope_head_dim" in settings:  # then the other one is made of it
        settings.pop("head_dim", None)
        settings["num_key_value_heads"] = settings["num_attention_heads"]
    inner = {key: value for key, value in special.items() if key in config_class.sub_configs}
    return {**settings, **{key: special[key] for key in special.keys() - inner.keys()}}
