"""Fixtures of all tests; what they are built from stands in tiny.py."""

from __future__ import annotations

import importlib
import json
import os
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # or a busy machine takes several times as long

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before Triton is imported

import transformers
from tiny import SHARED, STUDENTS, exact_attention, exact_norm, make_model, make_student, make_trace

from segattr import EncodedTrace, FastIG, SegmentScorer, Trace, encode, training_row
from segattr.dataset import ScoredTrace, Student, score_trace
from segattr.demo import BUNDLED, TRACES, load_demo, load_records
from segattr.engine.decoder import FAMILIES
from segattr.training.rows import Row


def pytest_configure(config: pytest.Config) -> None:
    # Triton's interpreter before 3.9 makes loop bounds of arrays with one element.
    ignored = r"ignore:Conversion of an array with ndim:DeprecationWarning:triton\.runtime"
    config.addinivalue_line("filterwarnings", ignored)


@pytest.fixture
def exact_norms(monkeypatch):
    """Give the fused engine's models norms in float64, so that it must equal them to rounding.

    And Gemma2 its softmax, too: torch's attention has no bounds of scores.
    """
    for family, prefix in FAMILIES.items():
        modeling = importlib.import_module(f"transformers.models.{family}.modeling_{family}")
        norm = getattr(modeling, f"{prefix}RMSNorm")
        monkeypatch.setattr(norm, "forward", exact_norm(of=norm))
        if family == "gemma2":
            monkeypatch.setattr(modeling, "eager_attention_forward", exact_attention)


@pytest.fixture
def poisoned_memory(monkeypatch):
    """Fresh memory holds NaN, so that an element no program writes is seen."""

    def poison(create):
        def poisoned(*args, **kwargs):
            tensor = create(*args, **kwargs)
            return tensor.fill_(torch.nan) if tensor.is_floating_point() else tensor

        return poisoned

    for home, name in [(torch, "empty"), (torch, "empty_like"), (torch.Tensor, "new_empty")]:
        monkeypatch.setattr(home, name, poison(getattr(home, name)))


@pytest.fixture
def nearest_bfloat16(monkeypatch):
    """Round to bfloat16 as a GPU does; the interpreter truncates."""
    if torch.cuda.is_available():
        return
    import triton.language as tl
    from triton.runtime import interpreter

    convert = interpreter._convert_float

    def rounded(values, source, target, mode):
        if (source, target) != (tl.float32, tl.bfloat16):
            return convert(values, source, target, mode)
        bits = torch.from_numpy(values.copy()).bfloat16().view(torch.int16)
        return bits.numpy().view("uint16")

    monkeypatch.setattr(interpreter, "_convert_float", rounded)


@pytest.fixture
def trace() -> EncodedTrace:
    return make_trace()


@pytest.fixture
def model():
    return make_model("qwen2")


@pytest.fixture(scope="session")
def weighted_rows() -> list[dict]:
    """4 rows of 20 to 23 tokens with loss on kept segments, weights between 0.25 and 2.25."""
    ig = FastIG(make_model("qwen2"), rule="midpoint", steps=4, scope="all")
    scorer = SegmentScorer(tau=0.4, beta=1.0)
    rows = []
    for seed in range(4):
        trace = make_trace(seed=seed)
        row = training_row(trace, scorer.score(ig.attribute(trace)))
        for column in row.values():  # different lengths, so there is padding
            del column[20 + seed :]
        row["loss_weights"] = [
            on * (0.25 + (token % 9) / 4)
            for on, token in zip(row["loss_weights"], row["input_ids"], strict=True)
        ]
        rows.append(row)
    return rows


@pytest.fixture(scope="session")
def demo():
    """The bundled model and tokenizer."""
    return load_demo()


@pytest.fixture(scope="session")
def records() -> list[dict]:
    return load_records()


@pytest.fixture(scope="session")
def scored_traces(demo, records) -> list[ScoredTrace]:
    """Three bundled traces as they come from a scored file, the last one with a response."""
    model, tokenizer = demo
    ig, scorer = FastIG(model, tokenizer, rule="midpoint", steps=4, scope="all"), SegmentScorer()
    given = [*records[:2], {**records[2], "response": "\n\nSo it is."}]
    traces = [Trace.from_record(record) for record in given]
    asked = {"model": BUNDLED, "tau": scorer.tau}
    scored = [score_trace(t, encode(t, tokenizer), ig, scorer, asked) for t in traces]
    return [ScoredTrace.from_record(json.loads(json.dumps(s.to_record()))) for s in scored]


@pytest.fixture
def unpadded(demo, tmp_path):
    """A model whose config names no pad token, and its tokenizer, which does; saved together."""
    tokenizer = demo[1]
    sizes = {"vocab_size": len(tokenizer), "max_position_embeddings": 4096}
    make_model("llama", pad_token_id=None, **sizes).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return transformers.AutoModelForCausalLM.from_pretrained(tmp_path), tokenizer


@pytest.fixture(scope="session")
def rows(scored_traces) -> list[Row]:
    """Their training rows, without options."""
    return [scored.row() for scored in scored_traces]


@pytest.fixture
def traces(tmp_path) -> Path:
    """A file of three bundled traces."""
    path = tmp_path / "traces.jsonl"
    path.write_text("".join(TRACES.read_text().splitlines(keepends=True)[:3]))
    return path


@pytest.fixture(scope="session")
def tokenizer(demo):
    """The bundled one."""
    return demo[1]


@pytest.fixture(scope="session", params=STUDENTS)
def student(request, tokenizer) -> Student:
    """Another model to train than the bundled one."""
    return Student(make_student(request.param), scored_by=Student(tokenizer))


@pytest.fixture(scope="session")
def cut_inside_a_character(scored_traces, tokenizer) -> ScoredTrace:
    """A trace whose first segment stops among the bytes of a character, as no text can."""
    reasoning = "a \N{THINKING FACE} b"
    ids = tokenizer(f"Q?\n\n{reasoning}", add_special_tokens=False)["input_ids"]
    middle = next(at for at in range(len(ids)) if "\ufffd" in tokenizer.decode(ids[at:])) + 2
    assert "\ufffd" in tokenizer.decode(ids[:middle])
    first = scored_traces[0]
    spans = [((0, 3), (1, middle), True), ((3, 5), (middle, len(ids)), False)]
    return replace(
        first,
        id="cut",
        reasoning=reasoning,
        digest=replace(first.trace, reasoning=reasoning).digest,
        prompt=(0, 1),
        segments=[
            replace(first.segments[0], characters=characters, tokens=tokens, kept=kept)
            for characters, tokens, kept in spans
        ],
        input_ids=[*ids, 7, 8],
        response_ids=[tokenizer.eos_token_id],
        token_scores=[0.0] * (len(ids) + 2),
        target=(len(ids) + 1, len(ids) + 2),
    )


@pytest.fixture(scope="session")
def qwen_tokenizer():
    path = SHARED / "tokenizers" / "qwen"
    if not path.exists():
        pytest.skip("needs the real Qwen tokenizer, which is not part of the project")
    return transformers.PreTrainedTokenizerFast.from_pretrained(path)


@pytest.fixture(scope="session")
def real_traces() -> list[dict]:
    path = SHARED / "traces" / "amc23-r1-distill-qwen-7b.jsonl"
    if not path.exists():
        pytest.skip("needs the 40 real traces, which are not part of the project")
    starts = json.loads(path.with_suffix(".segment-starts.json").read_text())
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return [{**record, "starts": cuts} for record, cuts in zip(records, starts, strict=True)]


@pytest.fixture(scope="session")
def labelled_traces() -> list[dict]:
    path = SHARED / "traces" / "labelled" / "dependency-graph-qwq-32b-preview.jsonl"
    if not path.exists():
        pytest.skip("needs the 15 labelled traces, which are not part of the project")
    return [json.loads(line) for line in path.read_text().splitlines()]
