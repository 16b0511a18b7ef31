"""The chat templates that come with TRL, of models in use: rows are what they render."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_tokenizers import byte_level

from segattr import Trace, encode, training_row

trl = pytest.importorskip("trl", reason="TRL comes with the templates of many models")

TEMPLATES = sorted((Path(trl.__file__).parent / "chat_templates").glob("*.jinja"))
TEMPLATES = [path for path in TEMPLATES if not path.stem.endswith("_training")]
QUESTION = "What is 12 plus 30?"
REASONING, RESPONSE = "Okay, 12 plus 30.\n\nWait, 42.", "The sum is \\boxed{42}."
# Why a template cannot be served as it is.
REFUSED = {
    "write the question": "idefics3 llava_next smolvlm",  # contents in parts
    "leave the thinking open": "qwen3_5_nothink",
}
# They leave the thinking of a turn out: nothing to compare with.
SILENT = {"deepseek_r1_distill", "deepseekv3"}
# The turn has no end of its own: the EOS token is added.
ENDLESS = {"glm4moe"}


def renderings(tokenizer, reasoning: str, response: str):
    """What the template makes of the ways to hand thinking over, those without it left out."""
    question = {"role": "user", "content": QUESTION}
    for message in (
        {"content": response, "reasoning_content": reasoning},
        {"content": response, "thinking": reasoning},
        {"content": f"<think>\n{reasoning}</think>{response}"},
    ):
        turn = {"role": "assistant", **message}
        try:
            text = tokenizer.apply_chat_template([question, turn], tokenize=False)
        except Exception:  # a template's own complaint
            continue
        if reasoning.strip() in text:
            yield tokenizer(text, add_special_tokens=False)["input_ids"]


def name_of(path: Path) -> str:
    return path.stem


@pytest.mark.skipif(not TEMPLATES, reason="this version of TRL has none")
@pytest.mark.parametrize("edges", [("", ""), ("\n", "\n\n")])
@pytest.mark.parametrize("path", TEMPLATES, ids=name_of)
def test_the_row_is_what_the_template_renders(path, edges):
    tokenizer = byte_level(path.read_text())
    tokenizer.bos_token = "<pad>"
    reasoning, response = REASONING + edges[0], edges[1] + RESPONSE
    trace = Trace(QUESTION, reasoning, "42", response)
    for message, names in REFUSED.items():
        if path.stem in names.split():
            with pytest.raises(ValueError, match=message):
                encode(trace, tokenizer)
            return
    encoded = encode(trace, tokenizer)
    ids = training_row(encoded, weights=[1] * len(encoded.segments))["input_ids"]
    expected = list(renderings(tokenizer, reasoning, response))
    if path.stem in SILENT:
        assert expected == []
    elif path.stem in ENDLESS:
        assert any(ids == [*other, tokenizer.eos_token_id] for other in expected)
    else:
        assert ids in expected
