"""One tokenisation, one owner for every token, exactly the answer as target."""

from __future__ import annotations

import pytest
import torch
from tiny import make_student
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from segattr import Trace, TraceTooLongError, encode, split_segments, training_row
from segattr.encoding import INSTRUCTION

QUESTION, REASONING = "Given: a is 3. Find a?", "I need a.\n\nWait, a is 3; a = 3.\n\nHowever, hmm."


def text_of(tokenizer, ids, span=None):
    return tokenizer.decode(ids if span is None else ids[span[0] : span[1]])


def test_layout(demo):
    tokenizer = demo[1]
    encoded = encode(Trace(QUESTION, REASONING, "a = 3", "\n\nIt is 3.", id="x"), tokenizer)
    ids = encoded.input_ids
    assert ids.dtype == torch.int64
    prompt, stub = (
        f"<user>{QUESTION}<assistant><think>\n",
        "</think> So, the final answer is \\boxed",
    )
    assert text_of(tokenizer, ids) == f"{prompt}{REASONING}{stub}{{a = 3}}"
    assert text_of(tokenizer, ids, encoded.prompt) == prompt
    assert text_of(tokenizer, ids, encoded.reasoning) == REASONING
    assert text_of(tokenizer, ids, encoded.target) == "a = 3"
    assert text_of(tokenizer, encoded.response_ids) == "</think>\n\nIt is 3.<eos>"
    assert encoded.id == "x"


def test_prompt_and_reasoning_are_tokenised_together(demo):
    tokenizer = demo[1]
    encoded = encode(Trace(QUESTION, REASONING, "a = 3"), tokenizer)
    together = tokenizer(f"<user>{QUESTION}<assistant><think>\n{REASONING}")["input_ids"]
    assert encoded.input_ids[: encoded.reasoning[1]].tolist() == together


def test_a_blank_line_inside_a_token_stays_with_the_sentence_it_ends(demo):
    tokenizer = demo[1]
    encoded = encode(Trace(QUESTION, REASONING, "a = 3"), tokenizer)
    assert [text_of(tokenizer, encoded.input_ids, span) for span in encoded.segments] == [
        "I need a.\n\n",
        "Wait, a is 3; a = 3.\n\n",
        "However, hmm.",
    ]


@pytest.mark.parametrize(
    "answer", ["-3", "\\frac{1}{2}", "x", "(1, 2)", "x+1", "{", "é", "x = 3, y = {2}"]
)
def test_the_target_is_exactly_the_answer(demo, answer):
    encoded = encode(Trace(QUESTION, REASONING, answer), demo[1])
    assert text_of(demo[1], encoded.input_ids, encoded.target) == answer


def test_given_segments_are_used_as_they_are(demo):
    trace = Trace(QUESTION, REASONING, "3", segments=[REASONING[:4], "", REASONING[4:]])
    encoded = encode(trace, demo[1])
    assert len(encoded.segments) == 3
    assert encoded.segments[1][0] == encoded.segments[1][1]
    assert encoded.characters == [(0, 4), (4, 4), (4, len(REASONING))]


def test_tokens_know_their_characters(demo):
    """Spaces that offsets leave out, as Llama 3's do, belong to the token after them."""
    reasoning = f" {REASONING} \N{THINKING FACE}!"
    for tokenizer in (demo[1], make_student("bpe"), make_student("bytes")):
        encoded = encode(Trace(QUESTION, reasoning, "3"), tokenizer)
        start, stop = encoded.reasoning
        tokens = zip(encoded.input_ids[start:stop].tolist(), encoded.token_characters, strict=True)
        texts = [(tokenizer.decode(index), reasoning[slice(*span)]) for index, span in tokens]
        assert all(text == here for text, here in texts if "\ufffd" not in text)
        assert texts[-1][1] == "!"
        assert {here for text, here in texts if text.startswith("\ufffd")} == {"\N{THINKING FACE}"}


FINAL = REASONING + "\n\nSo \\boxed{3}."


@pytest.mark.parametrize(
    ("trace", "settings", "texts"),
    [
        (
            Trace(QUESTION, REASONING, "3"),
            {},
            ["I need a.", "\n\nWait, a is 3; a = 3.", "\n\nHowever, hmm."],
        ),
        (
            Trace(QUESTION, REASONING, "3"),
            {"keywords": [" is", " hmm"], "opening": "Open.\n"},
            ["I need a.\n\nWait, a", " is 3; a = 3.\n\nHowever,", " hmm."],
        ),
        (
            Trace(
                QUESTION, REASONING, "3", segments=[REASONING[:6], REASONING[6:18], REASONING[18:]]
            ),
            {},
            [REASONING[:6], REASONING[6:18], REASONING[18:]],
        ),
        (
            Trace(QUESTION, FINAL, "3"),
            {"strip_final_answer": True},
            ["I need a.", "\n\nWait, a is 3; a = 3.", "\n\nHowever, hmm."],
        ),
        (
            Trace(QUESTION, FINAL, "3", segments=[FINAL[:18], FINAL[18:50], FINAL[50:]]),
            {"strip_final_answer": True},
            [FINAL[:18], FINAL[18 : len(REASONING)]],
        ),
    ],
    ids=["keywords", "own keywords", "own segments", "stripped", "own segments, stripped"],
)
def test_characters_are_those_of_the_tokens_up_to_whitespace(demo, trace, settings, texts):
    encoded = encode(trace, demo[1], **settings)
    assert [trace.reasoning[start:stop] for start, stop in encoded.characters] == texts
    assert encoded.characters[0][0] == 0
    for span, text in zip(encoded.segments, texts, strict=True):
        assert text_of(demo[1], encoded.input_ids, span).strip() == text.strip()


def test_keywords_are_passed_on(demo):
    assert len(encode(Trace(QUESTION, REASONING, "3"), demo[1], keywords=[" is"]).segments) == 2


def test_no_response_trains_the_end_of_the_turn_only(demo):
    assert (
        text_of(demo[1], encode(Trace(QUESTION, REASONING, "3"), demo[1]).response_ids) == "<eos>"
    )
    assert (
        text_of(demo[1], encode(Trace(QUESTION, REASONING, "3", ""), demo[1]).response_ids)
        == "</think><eos>"
    )


def test_settings_of_the_text(demo):
    tokenizer = demo[1]
    encoded = encode(
        Trace("Q", "R", "3"),
        tokenizer,
        stub=" stub ",
        brace="!",
        opening="O\n",
        instruction=INSTRUCTION,
    )
    whole = text_of(tokenizer, encoded.input_ids)
    assert whole == f"<user>Q{INSTRUCTION}<assistant><think>\nO\nR stub 3!"
    assert text_of(tokenizer, encoded.input_ids, encoded.reasoning) == "R"


def test_chat_messages_as_question(demo):
    messages = [
        {"role": "user", "content": "A"},
        {"role": "assistant", "content": "B"},
        {"role": "user", "content": "C"},
    ]
    encoded = encode(Trace(messages, "R", "3"), demo[1], instruction="!")
    assert (
        text_of(demo[1], encoded.input_ids, encoded.prompt)
        == "<user>A<assistant>B<eos><user>C!<assistant><think>\n"
    )
    assert messages[-1]["content"] == "C"


def test_a_tokenizer_without_chat_template_needs_a_prompt_template(demo):
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=demo[1].backend_tokenizer, eos_token="<eos>"
    )
    with pytest.raises(ValueError, match="must have a chat template"):
        encode(Trace("Q", "R", "3"), tokenizer)
    encoded = encode(Trace("Q {x}", "R", "3"), tokenizer, prompt_template="{question}\n")
    assert text_of(tokenizer, encoded.input_ids, encoded.prompt) == "Q {x}\n"
    assert text_of(tokenizer, encoded.response_ids) == "<eos>"
    with pytest.raises(ValueError, match=r"prompt_template must hold \{question\}, got 'Q: \{q\}'"):
        encode(Trace("Q", "R", "3"), tokenizer, prompt_template="Q: {q}")
    with pytest.raises(ValueError, match="one string, got chat messages"):
        encode(
            Trace([{"role": "user", "content": "Q"}], "R", "3"),
            tokenizer,
            prompt_template="{question}",
        )


@pytest.mark.parametrize(
    ("reasoning", "kept"),
    [
        ("Some work.\n\n**Final Answer**\n\\boxed{3}", "Some work.\n\n"),
        ("Some work. So it is \\boxed{3}.", "Some work."),
        (
            "Some work.\nIt is \\boxed{3}.\nCheck: \\boxed{3} is fine.",
            "Some work.\nIt is \\boxed{3}.\n",
        ),
        ("No statement of it.", "No statement of it."),
    ],
)
def test_strip_final_answer_moves_it_to_the_trained_text(demo, reasoning, kept):
    tokenizer = demo[1]
    trace = Trace(QUESTION, reasoning, "3", "")
    stripped, whole = encode(trace, tokenizer, strip_final_answer=True), encode(trace, tokenizer)
    assert text_of(tokenizer, stripped.input_ids, stripped.reasoning) == kept
    trained = [
        torch.cat([e.input_ids[: e.reasoning[1]], e.response_ids]).tolist()
        for e in (stripped, whole)
    ]
    assert trained[0] == trained[1]


def test_nothing_left_after_stripping(demo):
    with pytest.raises(ValueError, match="only states its answer"):
        encode(Trace(QUESTION, "\\boxed{3}", "3"), demo[1], strip_final_answer=True)


def test_a_second_think_tag_is_refused(demo):
    with pytest.raises(ValueError, match="must start after <think>"):
        encode(Trace(QUESTION, "<think>\nhmm", "3"), demo[1])


def test_too_long_says_by_how_much(demo):
    trace = Trace(QUESTION, REASONING, "3", id="x")
    length = len(encode(trace, demo[1]).input_ids)
    encode(trace, demo[1], max_length=length)
    with pytest.raises(
        TraceTooLongError,
        match=f"'x' must fit max_length = {length - 2} tokens, got {length}, 2 too many",
    ):
        encode(trace, demo[1], max_length=length - 2)


def test_slow_tokenizers_are_refused():
    class Slow:
        is_fast = False

    with pytest.raises(ValueError, match="must be a fast one with character offsets, got Slow"):
        encode(Trace("Q", "R", "3"), Slow())


def test_an_answer_without_tokens_is_refused():
    words = Tokenizer(models.WordLevel({"Q": 0, "R": 1, "<unk>": 2}, unk_token=None))
    words.pre_tokenizer = pre_tokenizers.Split("~", "removed")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words)
    with pytest.raises(ValueError, match="answer must have at least one token, got none for '~~'"):
        encode(Trace("Q", "R", "~~"), tokenizer, prompt_template="{question}~", stub="Q", brace="R")


def test_real_traces_with_the_real_tokenizer(real_traces, qwen_tokenizer):
    """Every token has one owner; a segment's tokens are its text up to whitespace at its edges."""
    for record in real_traces:
        trace = Trace.from_record(record)
        encoded = encode(trace, qwen_tokenizer)
        assert encoded.segments[0][0] == encoded.prompt[1]
        lengths = [stop - start for start, stop in encoded.segments]
        assert sum(lengths) == encoded.reasoning[1] - encoded.reasoning[0]
        assert text_of(qwen_tokenizer, encoded.input_ids, encoded.reasoning) == trace.reasoning
        assert encoded.characters == split_segments(trace.reasoning)
        for (start, stop), span in zip(encoded.characters, encoded.segments, strict=True):
            decoded = text_of(qwen_tokenizer, encoded.input_ids, span)
            assert decoded.strip() == trace.reasoning[start:stop].strip()


def test_the_published_spans_end_one_token_late(real_traces, qwen_tokenizer):
    """Its rule: count the tokens of the prefix, then those of the segment tokenised alone."""

    def count(text):
        return len(qwen_tokenizer(text, add_special_tokens=False)["input_ids"]) if text else 0

    boundaries = late = 0
    for record in real_traces:
        trace = Trace.from_record(record)
        encoded = encode(trace, qwen_tokenizer)
        cuts = split_segments(trace.reasoning)
        for (start, stop), (_, ours) in list(zip(cuts, encoded.segments, strict=True))[:-1]:
            text = trace.reasoning
            published = encoded.prompt[1] + count(text[:start]) + count(text[start:stop])
            boundaries += 1
            late += published == ours + 1
    assert (late, boundaries) == (969, 1046)


@pytest.mark.parametrize(
    ("reasoning", "segments"),
    [
        ("So it may be \\boxed{42}.\n\nWait, 2 is 2.\n\nHowever, 1 is 1.", 3),
        ("Okay. So it may be \\boxed{42}.\n\nLet me check. 2 is 2.", 1),
        ("Okay.\n\n**Final Answer**\n\\boxed{42}\n\nLet me check. 2 is 2.", 1),
        ("Okay.\n\n**Final Answer**\n\nIt is 42.\n\nLet me check.\n\nWait, so.", 2),
    ],
)
def test_an_early_statement_of_the_answer_is_no_final_one(demo, reasoning, segments):
    encoded = encode(Trace(QUESTION, reasoning, "42"), demo[1], strip_final_answer=True)
    assert len(encoded.segments) == segments
    assert encoded.characters[-1][1] == len(reasoning)


@pytest.mark.parametrize(
    "final", ["**Final Answer**\n\nIt is \\boxed{3}.", "**Final Answer**\n\nIt is 3.", "\\boxed{3}"]
)
def test_a_final_statement_may_stand_under_a_heading(demo, final):
    trace = Trace(QUESTION, f"Some work.\n\n{final}\n", "3")
    encoded = encode(trace, demo[1], strip_final_answer=True)
    assert encoded.characters == [(0, len("Some work."))]


def test_untrained_characters_are_tokens_without_loss(demo):
    reasoning = "I need a.\n\nWait, result: 7. So a = 3."
    start = reasoning.index("result")
    trace = Trace(QUESTION, reasoning, "3", untrained=[(start, start + len("result: 7."))])
    encoded = encode(trace, demo[1])
    row = training_row(encoded, weights=[1] * len(encoded.segments))
    off = [t for t, on in zip(row["input_ids"], row["assistant_masks"], strict=True) if not on]
    prompt = encoded.input_ids[slice(*encoded.prompt)].tolist()
    assert demo[1].decode(off[len(prompt) :]).strip() == "result: 7."


def test_trailing_empty_segments_of_ones_own_stay(demo):
    trace = Trace(QUESTION, REASONING, "3", segments=["", REASONING, "", ""])
    assert len(encode(trace, demo[1]).segments) == 4


def test_a_final_answer_with_untrained_spans_is_not_cut_off(demo):
    trace = Trace(QUESTION, FINAL, "3", untrained=[(len(FINAL) - 4, len(FINAL))])
    assert encode(trace, demo[1]).untrained
    with pytest.raises(ValueError, match="strip_final_answer trains what it cuts off"):
        encode(trace, demo[1], strip_final_answer=True)
