"""Rows of tokens as pieces of text, and back."""

from __future__ import annotations

import copy
import random

from segattr.export.text import decode, pieces_of


def test_spaces_of_the_text_stay_as_they_are(tokenizer):
    """A tokenizer may be set to tidy up spaces before punctuation when it decodes."""
    ids = tokenizer("hmm . so", add_special_tokens=False)["input_ids"]
    tidy = copy.deepcopy(tokenizer)
    tidy.clean_up_tokenization_spaces = True
    assert decode(ids, tidy) == "hmm . so"


def test_real_traces_stay_text(qwen_tokenizer, real_traces):
    """Cut at token borders, 40 of 40 real traces come back from text with Qwen's tokenizer."""
    from segattr import Trace, encode, training_row

    for number, record in enumerate(real_traces):
        encoded = encode(Trace.from_record(record), qwen_tokenizer)
        chooser = random.Random(number)
        kept = [float(chooser.random() < 0.4) for _ in encoded.segments]
        kept[0] = kept[-1] = 1.0
        assert pieces_of(training_row(encoded, weights=kept), qwen_tokenizer) is not None
