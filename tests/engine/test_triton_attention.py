"""The Triton kernels of attention's secant against the reference, in three ways.

Three ways are explained in three_ways.py.
"""

from __future__ import annotations

import pytest

pytest.importorskip("triton")

import segattr_kernels as kernels
import torch
from three_ways import DEVICE, SLACK, assert_as_accurate, copies, random, results, strided

from segattr.engine import reference

pytestmark = pytest.mark.usefixtures("poisoned_memory", "nearest_bfloat16")
# Pieces, rows, tokens, query heads, key heads, head size, window. Blocks are 16 rows x 16 tokens,
# of 16-bit numbers 64 x 32, or 16 x 32 of a head size above 128.
CASES = {
    "one token": (1, 1, 1, 1, 1, 16, None),
    "groups": (2, 12, 12, 4, 2, 6, None),  # a head size below what tl.dot takes
    "one key head": (1, 17, 17, 3, 1, 16, None),
    "no groups": (1, 16, 16, 2, 2, 24, None),
    "one row": (2, 1, 40, 2, 1, 16, None),
    "last rows": (1, 5, 33, 2, 1, 16, None),
    "window": (1, 40, 40, 2, 1, 16, 7),  # whole blocks are out of sight
    "window of one": (1, 18, 18, 1, 1, 16, 1),
    "window of two": (1, 18, 18, 1, 1, 16, 2),  # one token of the block before
    "last rows, window": (1, 20, 50, 1, 1, 16, 30),
    "wide window": (1, 9, 9, 1, 1, 16, 100),
}
LARGE = {
    "below blocks": (1, 63, 63, 2, 1, 64, None),
    "blocks": (1, 64, 64, 2, 1, 64, None),
    "above blocks": (2, 65, 65, 4, 2, 80, None),
    "real heads": (1, 40, 130, 2, 1, 128, None),
    "real heads, window": (1, 130, 130, 2, 2, 128, 40),
}
SIZES = {**CASES, **LARGE, "largest heads": (1, 33, 33, 1, 1, 256, None)}
slow = pytest.mark.slow(reason="hundreds of programs in the interpreter")
ALL = [*CASES, *(name if DEVICE == "cuda" else pytest.param(name, marks=slow) for name in LARGE)]


def arguments(name, dtype, scale=1.0):
    pieces, rows, tokens, heads, key_heads, size, window = SIZES[name]
    grad = random(pieces, rows, heads, size, dtype=dtype, seed=3)
    queries = random(pieces + 1, rows, heads, size, dtype=dtype, scale=scale)
    keys, values = (
        random(pieces + 1, tokens, key_heads, size, dtype=dtype, seed=seed) for seed in (1, 2)
    )
    return [grad, queries, keys, values, size**-0.5, tokens - rows, window]


def assert_three_ways(given, dtype):
    exact = results(reference, "attention_secant", copies(given, torch.float64))
    eager = results(reference, "attention_secant", copies(given))
    own = copies(given)
    got = results(kernels, "attention_secant", own)
    for one, of_torch, of_double in zip(got, eager, exact, strict=True):
        assert_as_accurate(one, of_torch, of_double, SLACK[dtype])
        assert one.is_contiguous()
    for after, before in zip(own[:4], given[:4], strict=True):
        assert torch.equal(after, before), "an argument was changed"


@pytest.mark.parametrize("dtype", SLACK, ids=str)
@pytest.mark.parametrize("name", ALL)
def test_kernels_are_as_accurate_as_torch(name, dtype):
    assert_three_ways(arguments(name, dtype), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_largest_heads(dtype):
    assert_three_ways(arguments("largest heads", dtype), dtype)


@pytest.mark.parametrize("dtype", SLACK, ids=str)
@pytest.mark.parametrize("name", ["groups", "last rows, window"])
def test_split_by_content(name, dtype):
    assert_three_ways([*arguments(name, dtype), "content"], dtype)


@pytest.mark.parametrize("dtype", SLACK, ids=str)
@pytest.mark.parametrize("split", ["mean", "content"])
def test_a_piece_of_no_length(split, dtype):
    """The logarithmic mean of two equal probabilities is either."""
    given = [*arguments("groups", dtype), split]
    for states in given[1:4]:
        states[1] = states[0]
    assert_three_ways(given, dtype)


@pytest.mark.parametrize("dtype", SLACK, ids=str)
def test_tokens_that_no_row_sees_get_nothing(dtype):
    *given, _, window = arguments("last rows", dtype)
    given = [*given, 10, window]  # 5 rows from token 10 on, of 33 tokens
    assert_three_ways(given, dtype)
    for to_tokens in kernels.attention_secant(*given)[1:]:
        assert to_tokens[:, :15].ne(0).any()
        assert to_tokens[:, 15:].eq(0).all()


def attention(queries, keys, values, scale, first, window):
    group, tokens = queries.shape[2] // keys.shape[2], torch.arange(keys.shape[1], device=DEVICE)
    keys, values = (part.repeat_interleave(group, 2) for part in (keys, values))
    behind = first + torch.arange(queries.shape[1], device=DEVICE)[:, None] - tokens
    unseen = (behind < 0) | (behind >= (window or len(tokens)))
    scores = torch.einsum("prhe,pthe->phrt", queries, keys) * scale
    return torch.einsum(
        "phrt,pthe->prhe", scores.masked_fill(unseen, -torch.inf).softmax(-1), values
    )


@pytest.mark.parametrize("split", ["mean", "content"])
@pytest.mark.parametrize(
    ("dtype", "scale", "rounding"),
    [
        (torch.float64, 1e-3, 1e-14),
        (torch.float64, 30.0, 1e-14),
        (torch.float64, 3e3, 1e-13),  # probabilities that round to 0 and 1, of scores in thousands
        (torch.float32, 1e-3, 1e-6),
        (torch.float32, 30.0, 2e-6),
    ],
    ids=str,
)
def test_multipliers_are_complete(dtype, scale, rounding, split):
    grad, *states, factor, first, window = arguments("window", dtype, scale)
    outputs = attention(*(part.double() for part in states), factor, first, window)
    got = kernels.attention_secant(grad, *states, factor, first, window, split)
    terms = [(to * part.diff(dim=0)).double() for to, part in zip(got, states, strict=True)]
    changes = grad * outputs.diff(dim=0)
    size = changes.abs().sum() + sum(term.abs().sum() for term in terms)
    assert abs(changes.sum() - sum(term.sum() for term in terms)) <= rounding * size


@pytest.mark.parametrize("dtype", SLACK, ids=str)
def test_a_saturated_softmax_gives_finite_numbers(dtype):
    """Every query looks at one token, with a probability that rounds to 1; then at another."""
    for one in kernels.attention_secant(*arguments("groups", dtype, 3e3)):
        assert one.isfinite().all()


@pytest.mark.parametrize("argument", range(4))
def test_strided_arguments_are_handled(argument):
    given = arguments("last rows", torch.float64)
    want = kernels.attention_secant(*given)
    given[argument] = strided(given[argument])
    assert not given[argument].is_contiguous()
    for got, expected in zip(kernels.attention_secant(*given), want, strict=True):
        assert torch.equal(got, expected)


def test_same_call_gives_the_same_bits():
    given = arguments("groups", torch.bfloat16)
    for one, other in zip(*(kernels.attention_secant(*given) for _ in range(2)), strict=True):
        assert torch.equal(one, other)


def test_no_pieces_give_empty_results():
    grad, *states, scale, first, window = arguments("groups", torch.float32)
    got = kernels.attention_secant(grad[:0], *(part[:1] for part in states), scale, first, window)
    want = (grad, *states[1:])
    assert [one.shape for one in got] == [(0, *part.shape[1:]) for part in want]


@pytest.mark.parametrize(("dtype", "most"), [(torch.float64, 128), (torch.bfloat16, 256)], ids=str)
def test_a_head_too_large_is_refused(dtype, most):
    grad, points = (random(n, 1, 1, most + 1, dtype=dtype) for n in (1, 2))
    with pytest.raises(ValueError, match=f"head size must be at most {most} in {dtype}, got"):
        kernels.attention_secant(grad, points, points, points, 1.0)


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU: 18 GB, and not in the interpreter")
def test_more_elements_than_int32_counts():
    heads, size, seen = 8, 128, 64
    tokens = 2**31 // (heads * size) + seen
    points = torch.zeros(2, tokens, heads, size, dtype=torch.bfloat16, device=DEVICE)
    points[:, -seen:] = random(2, seen, heads, size, dtype=torch.bfloat16)
    queries = random(2, 1, heads, size, dtype=torch.bfloat16, seed=1)
    grad = random(1, 1, heads, size, dtype=torch.bfloat16, seed=2)
    got = kernels.attention_secant(grad, queries, points, points, 0.1, tokens - 1, seen)
    last = points[:, -seen:].contiguous()
    want = kernels.attention_secant(grad, queries, last, last, 0.1, seen - 1, seen)
    assert torch.equal(got[0], want[0])
    for one, expected in zip(got[1:], want[1:], strict=True):
        assert torch.equal(one[:, -seen:], expected)
        assert one[:, :-seen].eq(0).all()
