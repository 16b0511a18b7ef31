"""Small tokenizers, and chat templates that behave as those in use; all invented."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

CORPUS = [
    "What is 12 plus 30? So, the final answer is \\boxed{42}.",
    "Okay, let me add. 12 plus 30 is 42.\n\nWait, check that again.\n\nHowever, hmm.\n",
] * 9
SPECIAL = ("<|im_start|>", "<|im_end|>", "<think>", "</think>")


def byte_level(template: str | None, special: tuple[str, ...] = SPECIAL) -> PreTrainedTokenizerFast:
    """As Qwen's and Llama-3's: any text, nothing put before it."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    names = ["<pad>", "<eos>", *special]
    raw.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=400, special_tokens=names, initial_alphabet=alphabet, show_progress=False
        ),
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", eos_token="<eos>")
    tokenizer.chat_template = template
    return tokenizer


def sentence_piece(template: str | None, scheme: str = "first") -> PreTrainedTokenizerFast:
    """As Llama-2's, Mistral's and Phi-3's: a space is put before a text."""
    raw = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    strip = decoders.Strip(" ", 1, 0)
    bytes_and_text = [decoders.ByteFallback(), decoders.Fuse(), strip]
    raw.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), *bytes_and_text])
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=names, show_progress=False)
    raw.train_from_iterator(CORPUS, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    tokenizer.chat_template = template
    return tokenizer


LOOP, DONE = "{%- for m in messages %}", "{%- endfor %}"
START = "{%- if add_generation_prompt %}"
PLAIN = (
    LOOP + "{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}" + DONE + START
    + "{{- '<|im_start|>assistant\n' }}{%- endif %}"
)  # fmt: skip
# Writes thinking itself, without what surrounds it, and opens nothing in the prompt: Qwen3.
WRITES = (
    LOOP
    + "{%- set c = m.content or '' %}{%- set r = m.reasoning_content or '' %}"
    "{%- if '</think>' in c %}{%- set r = c.split('</think>')[0].split('<think>')[-1] %}"
    "{%- set c = c.split('</think>')[-1] %}{%- endif %}"
    "{%- if m.role == 'assistant' and loop.last %}"
    "{{- '<|im_start|>assistant\n<think>\n' + r.strip('\n') + '\n</think>\n\n' }}"
    "{{- c.lstrip('\n') + '<|im_end|>\n' }}"
    "{%- else %}{{- '<|im_start|>' + m.role + '\n' + c + '<|im_end|>\n' }}{%- endif %}"
    + DONE + START + "{{- '<|im_start|>assistant\n' }}{%- endif %}"
)  # fmt: skip
# The same with the mark opened by the prompt: Qwen3.5.
OPENS_AND_WRITES = WRITES.replace(
    "{{- '<|im_start|>assistant\n' }}", "{{- '<|im_start|>assistant\n<think>\n' }}"
)
# Opens the mark, and leaves the thinking of rendered turns out: R1-Distill.
OPENS = (
    LOOP
    + "{%- if m.role == 'assistant' %}"
    "{{- '<|im_start|>assistant\n' + m.content.split('</think>')[-1] + '<|im_end|>' }}"
    "{%- else %}{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' }}{%- endif %}"
    + DONE + START + "{{- '<|im_start|>assistant\n<think>\n' }}{%- endif %}"
)  # fmt: skip
# Thinks only when asked: DeepSeek-V3.1.
SWITCHED = (
    LOOP + "{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' }}" + DONE + START
    + "{{- '<|im_start|>assistant\n' + ('<think>' if thinking else '</think>') }}{%- endif %}"
)  # fmt: skip
# Thinking in a channel of its own: gpt-oss.
CHANNELS = (
    LOOP
    + "{{- '<|start|>' + m.role }}{%- if m.thinking %}"
    "{{- '<|channel|>analysis<|message|>' + m.thinking + '<|end|><|start|>assistant' }}{%- endif %}"
    "{%- if m.role == 'assistant' %}{{- '<|channel|>final<|message|>' + m.content + '<|return|>' }}"
    "{%- else %}{{- '<|message|>' + m.content + '<|end|>' }}{%- endif %}"
    + DONE + START + "{{- '<|start|>assistant' }}{%- endif %}"
)  # fmt: skip
# Content in parts, thinking between brackets: Magistral.
PARTS = (
    LOOP + "{%- if m.role == 'assistant' and m.content is not string %}"
    "{%- for p in m.content %}{{- '[THINK]' + p.thinking + '[/THINK]' if p.type == 'thinking' "
    "else p.text }}{%- endfor %}{{- '<eos>' }}"
    "{%- elif m.role == 'assistant' %}{{- m.content + '<eos>' }}"
    "{%- else %}{{- '[INST]' + m.content + '[/INST]' }}{%- endif %}" + DONE
)
# A space before the content, which is trimmed: Mistral, Gemma.
SPACED = (
    LOOP + "{%- if m.role == 'assistant' %}{{- ' ' + m.content | trim + '</s>' }}"
    "{%- else %}{{- '[INST] ' + m.content + ' [/INST]' }}{%- endif %}" + DONE
)  # fmt: skip
# Writes parts, and leaves plain texts out: models of text and images.
PARTS_ONLY = (
    LOOP + "{{- m.role }}{%- for p in m.content %}{{- p.text }}{%- endfor %}" + DONE
    + "{{- '<eos>' }}"
)  # fmt: skip
