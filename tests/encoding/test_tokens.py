"""The tokens of a piece of text are its own, and give it back."""

from __future__ import annotations

import pytest
from tiny_tokenizers import OPENS, PLAIN, byte_level, sentence_piece
from tokenizers import normalizers, pre_tokenizers

from segattr import Trace, encode, training_row
from segattr.encoding.tokens import tokenise

REASONING = "Okay, 12 plus 30.\n\nWait, 42."
SCHEMES = ["first", "always", "never"]


@pytest.mark.parametrize("answer", ["42", "-3", "x+1", "\\frac{1}{2}", "{", "é", "x = 3, y = {2}"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_no_space_is_put_before_what_follows_the_reasoning(scheme, answer):
    tokenizer = sentence_piece(OPENS, scheme)
    encoded = encode(Trace("q", REASONING, answer), tokenizer)
    after = encoded.input_ids[encoded.reasoning[1] :].tolist()
    marker = tokenizer("a", add_special_tokens=False)["input_ids"]
    stub = f"</think> So, the final answer is \\boxed{{{answer}}}"
    assert tokenizer.decode(marker + after) == "a" + stub
    target = encoded.input_ids[slice(*encoded.target)].tolist()
    assert tokenizer.decode(marker + target) == "a" + answer


@pytest.mark.parametrize("make", [byte_level, sentence_piece])
def test_tokens_that_lose_text_are_refused_with_the_loss(make):
    tokenizer = make(PLAIN)
    backend = tokenizer.backend_tokenizer
    if make is byte_level:  # spaces become a character that the vocabulary lacks
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
    else:
        backend.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    with pytest.raises(ValueError, match=r"must give the text back, got .* after 'a': ' b c'"):
        tokenise(tokenizer, "a b c")
    with pytest.raises(ValueError, match="tokens that lose"):
        encode(Trace("What is it?", REASONING, "42"), tokenizer)


def test_a_character_written_otherwise_is_not_lost_another_one_is():
    tokenizer = byte_level(PLAIN)
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    assert tokenise(tokenizer, "cafe\u0301 42").ids
    tokenizer.backend_tokenizer.normalizer = normalizers.NFKC()
    with pytest.raises(ValueError, match="tokens that lose it after '5': '\u00b2'"):
        tokenise(tokenizer, "5\u00b2")


@pytest.fixture
def spelled() -> Trace:
    return Trace("q <eos>", "A <|im_end|> b.\n\nWait, <eos>.", "42", "It <|im_end|> is.")


def test_special_tokens_that_the_texts_spell_out_are_named(spelled):
    encoded = encode(spelled, byte_level(PLAIN))
    assert set(encoded.control_tokens) == {"<eos>", "<|im_end|>"}
    assert encode(Trace("q", REASONING, "42"), byte_level(PLAIN)).control_tokens == ()


def test_special_tokens_are_read_as_letters_when_asked(spelled):
    tokenizer = byte_level(PLAIN)
    as_control, as_text = (
        encode(spelled, tokenizer, split_special_tokens=split) for split in (False, True)
    )
    rows = [training_row(e, weights=[1] * len(e.segments)) for e in (as_control, as_text)]
    texts = [tokenizer.decode(row["input_ids"]) for row in rows]
    assert texts[0] == texts[1]
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    # The template's own stay: one after the question, one after the turn.
    assert [row["input_ids"].count(end) for row in rows] == [4, 2]
    assert as_text.control_tokens == ()
    assert as_text.characters == as_control.characters


def test_special_tokens_in_a_question_that_the_template_trims_are_read_as_letters():
    tokenizer = byte_level(PLAIN.replace("content", "content | trim"))
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    plain, spelled = (
        encode(Trace(question, REASONING, "42"), tokenizer, split_special_tokens=True)
        for question in ("q", " q <|im_end|>\n")
    )
    counts = [encoded.input_ids.tolist().count(end) for encoded in (plain, spelled)]
    assert counts[0] == counts[1]
