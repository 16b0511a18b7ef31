"""A trace scored in one model's tokens, trained in another's."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from tiny import CHATML, make_student

from segattr import Attribution, FastIG, SegmentScorer, Trace, encode, top_tokens
from segattr.dataset import Fit, ScoredTrace, Student, score_trace, scored_trace, student_row

REASONING = "I need a.\n\nWait, a is 3; a = 3.\n\nHowever, hmm."


@pytest.fixture(scope="module")
def score(demo):
    """Scores a trace with the bundled model."""
    model, tokenizer = demo
    ig = FastIG(model, tokenizer, rule="midpoint", steps=2, scope="all")

    def scored(trace: Trace, tokenizer=tokenizer, **options) -> ScoredTrace:
        encoded = encode(trace, tokenizer, **options)
        return score_trace(trace, encoded, ig, SegmentScorer(), options)

    return scored


def bare(text: str) -> str:
    return "".join(text.split())


def trained(tokenizer, row) -> str:
    """The text with loss, without white space."""
    return bare(tokenizer.decode([label for label in row["labels"] if label != -100]))


def written(tokenizer, scored) -> list[int]:
    """What the tokenizer's chat template makes of the conversation."""
    content = scored.reasoning
    if scored.response is not None:
        content = f"<think>\n{content}</think>{scored.response}"
    turn = {"role": "assistant", "content": content}
    messages = [{"role": "user", "content": scored.question}, turn]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_a_row_is_what_the_students_chat_template_writes(scored_traces, student):
    for scored in scored_traces:
        row = scored.row(student=student)
        assert row["input_ids"] == written(student.tokenizer, scored)
        assert row["input_ids"] != scored.row()["input_ids"]


@pytest.mark.parametrize("response", [None, "\n\nIt is 3.\n"])
def test_a_template_may_trim_what_it_writes(score, tokenizer, response):
    """As Llama 3's does; tokens of the text in between keep their weights."""
    words = make_student("bpe")
    words.chat_template = CHATML.replace("message.content", "message.content | trim")
    scored = score(Trace("Find a?", f" \n {REASONING}\n\n", "3", response))
    student = Student(words, scored_by=Student(tokenizer))
    row = scored.row(student=student, weights=[1.0] * len(scored.segments))
    assert row["input_ids"] == written(words, scored)
    assert trained(words, row).removeprefix("<think>").startswith(bare(REASONING))
    read, first = student.read(scored), scored.encoded.segments[0]
    weights = torch.zeros(scored.encoded.reasoning[1] - scored.encoded.reasoning[0])
    weights[: first[1] - first[0]] = 1
    chosen = scored.row(student=student, weights=read.token_weights(weights), train_response=False)
    assert trained(words, chosen).removeprefix("<think>") == "Ineeda."


def test_the_same_text_is_trained(scored_traces, student, tokenizer):
    for scored in scored_traces:
        mine = scored.row(student=student, train_response=False)
        theirs = scored.row(train_response=False)
        got = trained(student.tokenizer, mine).removeprefix("<think>")
        assert got == trained(tokenizer, theirs)
        assert student.read(scored).fit.moved_over_text == 0


def test_the_scorer_as_student_changes_nothing(scored_traces, tokenizer):
    same = Student(tokenizer, scored_by=Student(tokenizer))
    for scored in scored_traces:
        assert scored.row(student=same) == scored.row()
        read, weights = same.read(scored), top_tokens(scored.attribution)
        assert torch.equal(read.token_weights(weights), weights)
        assert read.fit == replace(read.fit, moved_over_text=0, merged=0, split=0)


def test_a_token_has_the_weight_of_its_first_character(score, tokenizer):
    """Each byte is a token: all the characters of a scored token have its weight."""
    scored = score(Trace("Find a?", REASONING + " \N{THINKING FACE}", "3"))
    student = Student(make_student("bytes"), scored_by=Student(tokenizer))
    start, stop = scored.encoded.reasoning
    weights = torch.arange(1.0, stop - start + 1)
    read = student.read(scored)
    got = read.token_weights(weights)
    texts = [tokenizer.decode(scored.input_ids[at]) for at in range(start, stop)]
    letters = [(t, w) for text, w in zip(texts, weights.tolist(), strict=True) for t in bare(text)]
    first, last = read.encoded.reasoning
    mine = [student.tokenizer.decode(int(one)) for one in read.encoded.input_ids[first:last]]
    found = [(t, w) for t, w in zip(mine, got.tolist(), strict=True) if not t.isspace()]
    assert found[:-4] == [pair for pair in letters if pair[0] != "\ufffd"]
    assert len(set(got[-4:].tolist())) == 1  # the bytes of one character


@pytest.mark.parametrize(
    ("cuts", "expected"),
    [
        ([1, 6, 8, 11], Fit(cuts=4)),
        ([2], Fit(cuts=1, moved=1)),  # after a word's space
        ([9], Fit(cuts=1, moved=1)),  # before the blank line
        ([10], Fit(cuts=1, moved=1)),  # inside it
        ([4], Fit(cuts=1, moved=1, moved_over_text=1)),  # inside a word
        ([3, 4], Fit(cuts=2, moved=2, moved_over_text=2, merged=1)),
        ([6, 6], Fit(cuts=1)),  # an empty segment is not a merged one
    ],
)
def test_cuts_between_tokens_and_inside_them(score, tokenizer, cuts, expected):
    """Bytes were scored; the student's tokens are "I", " need", " a", ".\n\n" and others."""
    spans = list(pairwise([0, *cuts, len(REASONING)]))
    trace = Trace("Find a?", REASONING, "3", segments=spans)
    scored = score(trace, tokenizer=make_student("bytes"))
    assert Student(tokenizer).read(scored).fit == expected


def test_segments_without_tokens_may_get_some(score):
    """The bundled tokenizer has one token for what every byte is a token of here."""
    scored = score(Trace("Find a?", REASONING, "3", segments=[(0, 3), (3, 4), (4, len(REASONING))]))
    assert scored.encoded.segments[1][0] == scored.encoded.segments[1][1]
    assert Student(make_student("bytes")).read(scored).fit == Fit(cuts=2, split=1)


def test_cuts_of_real_traces_move_over_white_space_alone(qwen_tokenizer, real_traces):
    """Qwen's tokens hold the blank line before a keyword and the end of the sentence before it."""
    scorer, found = make_student("bytes"), Fit()
    for record in real_traces:
        trace = Trace.from_record(record)
        encoded = encode(trace, scorer)
        scores = torch.linspace(-1, 2, len(encoded.input_ids))
        attribution = Attribution(scores, encoded, -1.0, -9.0, 9, "by hand")
        scored = scored_trace(trace, attribution, SegmentScorer())
        found += Student(qwen_tokenizer).read(scored).fit
    assert found == Fit(cuts=1046, moved=1024)


def test_sums_of_fits():
    assert Fit(5, 4, 3, 2, 1) + Fit(1, 1, 1, 1, 1) == Fit(6, 5, 4, 3, 2)


@pytest.mark.parametrize("last", ["\n\nHowever, hmm. So \\boxed{3}.", "\n\nWait. \\boxed{3}"])
def test_what_was_left_out_of_the_attributed_text_is_trained_with_the_response(
    score, tokenizer, student, last
):
    trace = Trace("Find a?", REASONING + last, "3", " It is 3.")
    scored = score(trace, strip_final_answer=True)
    assert scored.segments[-1].characters[1] < len(scored.reasoning)
    same = Student(tokenizer).read(scored).encoded
    for name in ("input_ids", "response_ids", "trailing_ids"):
        assert torch.equal(getattr(same, name), getattr(scored.encoded, name))
    for name in ("segments", "target", "prompt", "characters"):
        assert getattr(same, name) == getattr(scored.encoded, name)
    row = scored.row(student=student, weights=[0.0] * len(scored.segments))
    assert row["input_ids"] == written(student.tokenizer, scored)
    tail = scored.reasoning[scored.segments[-1].characters[1] :]
    expected = bare(f"<think>{tail}</think> It is 3.{student.tokenizer.eos_token}")
    assert trained(student.tokenizer, row) == expected


def test_the_instruction_is_as_scored_unless_given(score):
    scored = score(Trace("Find a?", REASONING, "3"), instruction=" Think.")
    words = make_student("bpe")
    for given, found in ((None, "Find a? Think."), ("", "Find a?"), ("!", "Find a?!")):
        text = words.decode(student_row(scored, words, instruction=given)["input_ids"])
        assert f"user\n{found}<|im_end|>" in text


def test_options_of_rows_and_of_students(scored_traces):
    """A template is the tokenizer's; marks and options of `training_row` can be given."""
    words = make_student("bpe")
    words.chat_template = CHATML.replace("im_start|>", "im_start|>>")
    row = student_row(scored_traces[2], words, opening="<r>", closing="</r>", prune=True)
    text = words.decode(row["input_ids"])
    assert "<|im_start|>>assistant\n<r>" in text
    assert "</r>\n\nSo it is.<|im_end|>" in text


def test_weights_of_tokens_need_the_tokenizer_that_scored(scored_traces):
    words, scored = make_student("bpe"), scored_traces[0]
    weights = top_tokens(scored.attribution)
    with pytest.raises(ValueError, match=r"scored_by must be given .*, got None"):
        Student(words).read(scored).token_weights(weights)
    with pytest.raises(ValueError, match=r"scored_by must give the tokens of .*, got others"):
        Student(words, scored_by=Student(words)).read(scored).token_weights(weights)


def test_the_options_that_scored_are_recorded(score, tokenizer):
    scored = score(Trace("Find a?", REASONING, "3"), prompt_template="Q: {question}\n", opening="!")
    weights = top_tokens(scored.attribution)
    words = make_student("bpe")
    with pytest.raises(ValueError, match="got others"):
        Student(words, scored_by=Student(tokenizer)).read(scored).token_weights(weights)
    scored_by = Student.that_scored(tokenizer, scored.asked)
    got = Student(words, scored_by=scored_by).read(scored).token_weights(weights)
    assert 0 < got.sum() < len(got)


def test_a_student_without_a_chat_template_is_refused(scored_traces):
    words = make_student("bpe")
    words.chat_template = None
    with pytest.raises(ValueError, match="must have a chat template, got one without"):
        scored_traces[0].row(student=Student(words))
