"""The Triton kernels against the reference, and the reference against transformers and autograd.

Three ways are explained in three_ways.py.
"""

from __future__ import annotations

from itertools import product

import pytest

pytest.importorskip("triton")

import segattr_kernels as kernels
import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from segattr_kernels.logarithmic_mean import phi
from three_ways import DEVICE, SLACK, assert_as_accurate, copies, random, results, strided
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm, apply_rotary_pos_emb

from segattr.engine import reference

pytestmark = pytest.mark.usefixtures("poisoned_memory", "nearest_bfloat16")
EPS = 1e-6
HEADS = {64: (2, 32), 96: (1, 96), 896: (7, 128)}  # D -> H, E
# 1 token: arguments of 1, which Triton compiles in; 63 and 127: not multiples of 16, so unaligned
# strides; 500: many programs, the last tile of the elementwise kernels in part. D = 64: a power of
# two; 96: masked, also inside a head half (48 of 64); 896: a masked row, a masked head (7 of 8).
TOKENS, WIDTHS = (1, 63, 127, 500), (64, 96, 896)
SIZES = list(product(TOKENS, WIDTHS, SLACK))
if DEVICE == "cpu":  # the interpreter takes some 3 ms a program
    slow = pytest.mark.slow(reason="hundreds of programs in the interpreter")
    SIZES = [(*size, dtype) for size, dtype in product([(1, 64), (1, 896), (63, 96)], SLACK)]
    large = [*((127, 64, dtype) for dtype in SLACK), (500, 64, torch.bfloat16)]
    SIZES += [pytest.param(*size, marks=slow) for size in large]


def path(T, D, dtype):
    K = 3
    inputs, baseline = random(T, D, dtype=dtype), random(T, D, dtype=dtype, seed=1)
    gradients = random(K, T, D, dtype=dtype, seed=2)
    alphas = torch.linspace(0.05, 0.95, K, dtype=torch.float64)
    return inputs, baseline, gradients, alphas


def heads_and_angles(T, D, dtype):
    H, E = HEADS[D]
    K = 1 if T == 500 and DEVICE == "cpu" else 2  # a program per point and token
    angles = random(T, E)
    cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
    return random(K, T, H, E, dtype=dtype, seed=3), cos, sin, random(E, dtype=dtype, seed=4)


def rows(T, D, dtype, count):
    return [random(1, T, D, dtype=dtype, seed=seed) for seed in range(count)]


def rms_norm_case(T, D, dtype):
    hidden, delta = rows(T, D, dtype, 2)
    return hidden, random(D, dtype=dtype, seed=5), EPS, delta


def rms_norm_small_case(T, D, dtype):
    hidden, weight, eps, _ = rms_norm_case(T, D, dtype)
    return hidden * 1e-3, weight, eps  # eps is half of the bracket


def rms_norm_backward_case(T, D, dtype):
    grad, hidden, residual = rows(T, D, dtype, 3)
    weight = random(D, dtype=dtype, seed=5)
    return grad, hidden, weight, reference.rms_norm(hidden, weight, EPS)[2], residual


def points(T, D, dtype, scale=1.0):
    """Three points; the first token does not move, the second by little."""
    states = random(3, T, D, dtype=dtype, scale=scale)
    states[:, :1] = states[:1, :1]
    states[:, 1:2] = states[:1, 1:2] * torch.tensor([1, 1.001, 1.01]).to(states)[:, None, None]
    return states


def rms_norm_secant_case(T, D, dtype):
    hidden = points(T, D, dtype)
    grad, residual = (random(2, T, D, dtype=dtype, seed=seed) for seed in (1, 2))
    return grad, hidden, random(D, dtype=dtype, seed=5), EPS, residual


def swiglu_secant_case(scale):
    def case(T, D, dtype):
        gate = points(T, D, dtype, scale)
        return random(2, T, D, dtype=dtype, seed=1), gate, random(3, T, D, dtype=dtype, seed=2)

    return case


def path_case(name):
    def case(T, D, dtype):
        inputs, baseline, gradients, alphas = path(T, D, dtype)
        return inputs, baseline, gradients if name == "path_dot" else alphas

    return case


def rope_case(T, D, dtype):
    return heads_and_angles(T, D, dtype)[:3]


def rope_norm_case(T, D, dtype):
    return (*heads_and_angles(T, D, dtype), EPS)


def rope_norm_backward_case(T, D, dtype):
    heads, cos, sin, weight = heads_and_angles(T, D, dtype)
    return random(*heads.shape, dtype=dtype, seed=6), cos, sin, heads, weight, EPS


# Op, its arguments, and the arguments whose memory the results take, in the results' order.
CASES = {
    "blend": ("blend", path_case("blend"), {}),
    "path_dot": ("path_dot", path_case("path_dot"), {}),
    "rms_norm": ("rms_norm", rms_norm_case, {1: 3}),
    "rms_norm-small": ("rms_norm", rms_norm_small_case, {1: 0}),
    "rms_norm_backward": ("rms_norm_backward", rms_norm_backward_case, {0: 0}),
    "rms_norm_backward-alone": (
        "rms_norm_backward",
        lambda *size: rms_norm_backward_case(*size)[:4],
        {0: 0},
    ),
    "swiglu": ("swiglu", lambda *size: rows(*size, 2), {}),
    "swiglu_backward": ("swiglu_backward", lambda *size: rows(*size, 3), {0: 1, 1: 2}),
    "rms_norm_secant": ("rms_norm_secant", rms_norm_secant_case, {0: 0}),
    "rms_norm_secant-alone": (
        "rms_norm_secant",
        lambda *size: rms_norm_secant_case(*size)[:4],
        {0: 0},
    ),
    "swiglu_secant": ("swiglu_secant", swiglu_secant_case(1.0), {}),
    "swiglu_secant-large": ("swiglu_secant", swiglu_secant_case(20.0), {}),
    "rope": ("rope", rope_case, {0: 0}),
    "rope-norm": ("rope", rope_norm_case, {}),
    "rope_backward": ("rope_backward", rope_case, {0: 0}),
    "rope_backward-norm": ("rope_backward", rope_norm_backward_case, {0: 0}),
}


@pytest.mark.parametrize(("T", "D", "dtype"), SIZES, ids=str)
@pytest.mark.parametrize("case", list(CASES))
def test_kernel_is_as_accurate_as_torch(case, T, D, dtype):
    name, make, in_place = CASES[case]
    arguments = make(T, D, dtype)
    given = copies(arguments)
    exact = results(reference, name, copies(arguments, torch.float64))
    eager = results(reference, name, copies(arguments))
    got = results(kernels, name, given)
    for one, of_torch, of_double in zip(got, eager, exact, strict=True):
        assert_as_accurate(one, of_torch, of_double, SLACK[dtype])
    taken = set(in_place.values())
    for result, argument in in_place.items():
        assert got[result].data_ptr() == given[argument].data_ptr()
    for index, (after, before) in enumerate(zip(given, arguments, strict=True)):
        if index not in taken and isinstance(after, torch.Tensor):
            assert torch.equal(after, before), f"argument {index} was changed"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", ["rope", "rope-norm", "rms_norm", "swiglu"])
def test_roundings_inside_a_kernel_are_those_of_torch(case, dtype):
    """A product that went into a sum unrounded would differ in one element of ten."""
    name, make, _ = CASES[case]
    arguments = make(40, 96, dtype)
    eager = results(reference, name, copies(arguments))[0]
    got = results(kernels, name, copies(arguments))[0]
    assert (got != eager).double().mean() < 1e-3


def test_path_dot_loops_over_blocks_of_a_wide_row():
    arguments = path(2, 4100, torch.float32)[:3]  # 2048 + 2048 + 4
    exact = reference.path_dot(*copies(arguments, torch.float64))
    assert_as_accurate(
        kernels.path_dot(*arguments), reference.path_dot(*arguments), exact, SLACK[torch.float32]
    )


@pytest.mark.parametrize("normed", [False, True])
def test_rope_loops_over_tiles_of_many_heads(normed):
    heads, grad = random(1, 2, 40, 128), random(1, 2, 40, 128, seed=1)  # 32 heads + 8 of 32
    cos, sin = random(2, 128, seed=2), random(2, 128, seed=3)
    norm = (random(128, seed=4), EPS) if normed else ()
    torch.testing.assert_close(
        kernels.rope(heads.clone(), cos, sin, *norm),
        reference.rope(heads.clone(), cos, sin, *norm),
        rtol=0,
        atol=1e-12,
    )
    below = (heads, *norm) if normed else ()
    torch.testing.assert_close(
        kernels.rope_backward(grad.clone(), cos, sin, *below),
        reference.rope_backward(grad.clone(), cos, sin, *below),
        rtol=0,
        atol=1e-12,
    )


def test_path_points_reach_both_ends():
    inputs, baseline, *_ = path(3, 64, torch.bfloat16)
    ends = kernels.blend(inputs, baseline, torch.tensor([0.0, 1.0]))
    assert torch.equal(ends[0], baseline)
    torch.testing.assert_close(ends[1], inputs)


@pytest.mark.filterwarnings("ignore:overflow encountered in exp:RuntimeWarning")  # NumPy's
@pytest.mark.parametrize("size", [20.0, 200.0, 3e4])
def test_swiglu_of_large_gates_is_finite(size):
    gate, up = torch.tensor([size, -size], device=DEVICE), random(2, dtype=torch.float32)
    torch.testing.assert_close(kernels.swiglu(gate, up), reference.swiglu(gate, up))
    got = kernels.swiglu_backward(up * 2, gate.clone(), up.clone())
    torch.testing.assert_close(got, reference.swiglu_backward(up * 2, gate.clone(), up.clone()))


@triton.jit
def _phi_kernel(p_gap, p_found, BLOCK: tl.constexpr):
    o_n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    b_gap = tl.load(p_gap + o_n)
    tl.store(p_found + o_n, phi(b_gap, tl.exp(-b_gap)))


@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 5e-7), (torch.float64, 5e-16)])
def test_phi_is_exact_to_a_few_ulp(dtype, most):
    """Worst in the interpreter: 2.1e-7 and 4.5e-16, 2 ulp; a GPU's exp is a few ulp off itself."""
    gaps = torch.logspace(-20, 2, 2**16, dtype=torch.float64).to(DEVICE, dtype)
    gaps[0] = 0
    exact = torch.expm1(-gaps.double()).neg() / gaps.double()
    exact[0] = 1
    got = torch.empty_like(gaps)
    _phi_kernel[(8,)](gaps, got, BLOCK=2**13)
    assert ((got.double() - exact).abs() / exact).max() <= most


def test_swiglu_secant_of_large_gates_is_finite():
    gate = torch.tensor([[3e4, -3e4, 200.0], [-3e4, -3e4, -200.0]], device=DEVICE)
    grad, up = torch.ones(1, 3, device=DEVICE), random(2, 3, dtype=torch.float32)
    got, want = (ops.swiglu_secant(grad, gate, up) for ops in (kernels, reference))
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("rows", [1, 15, 16, 40])  # 16 rows of a head norm in a program
def test_rms_norm_secant_of_short_rows(rows):
    grad, hidden, *settings = rms_norm_secant_case(rows, 128, torch.float32)
    exact = reference.rms_norm_secant(*copies([grad, hidden, *settings], torch.float64))
    eager = reference.rms_norm_secant(grad.clone(), hidden, *settings)
    got = kernels.rms_norm_secant(grad, hidden, *settings)
    assert_as_accurate(got, eager, exact, SLACK[torch.float32])


def test_a_secant_of_no_pieces_is_empty():
    grad, hidden, *settings = rms_norm_secant_case(3, 64, torch.float32)
    assert kernels.rms_norm_secant(grad[:0], hidden[:1], *settings[:2]).shape == (0, 3, 64)
    assert kernels.swiglu_secant(grad[:0], hidden[:1], hidden[:1])[0].shape == (0, 3, 64)


@pytest.mark.parametrize(
    ("case", "argument"),
    [
        *[("blend", index) for index in (0, 1, 2)],
        *[("path_dot", index) for index in (0, 1, 2)],
        *[("rms_norm", index) for index in (0, 1)],
        *[("rms_norm_backward", index) for index in (1, 2, 3, 4)],
        *[("swiglu", index) for index in (0, 1)],
        ("swiglu_backward", 0),
        *[("rms_norm_secant", index) for index in (1, 2, 4)],
        *[("swiglu_secant", index) for index in (0, 1, 2)],
        *[("rope", index) for index in (1, 2)],
        *[("rope-norm", index) for index in (0, 1, 2, 3)],
        *[("rope_backward", index) for index in (0, 1, 2)],
        *[("rope_backward-norm", index) for index in (0, 1, 2, 3, 4)],
    ],
)
def test_strided_arguments_that_are_only_read_are_handled(case, argument):
    name, make, _ = CASES[case]
    arguments = make(3, 96, torch.float64)
    want = results(kernels, name, copies(arguments))
    given = copies(arguments)
    given[argument] = strided(given[argument])
    assert not given[argument].is_contiguous()
    for got, expected in zip(results(kernels, name, given), want, strict=True):
        assert torch.equal(got, expected)


@pytest.mark.parametrize(
    ("case", "argument", "called"),
    [
        ("rms_norm", 3, "delta"),
        ("rms_norm_backward", 0, "grad"),
        ("rms_norm_secant", 0, "grad"),
        ("swiglu_backward", 1, "gate"),
        ("swiglu_backward", 2, "up"),
        ("rope", 0, "heads"),
    ],
)
def test_strided_memory_for_a_result_is_refused(case, argument, called):
    name, make, _ = CASES[case]
    given = copies(make(3, 96, torch.float32))
    given[argument] = strided(given[argument])
    message = rf"{called} must be contiguous.*got strides \(.*Pass {called}\.contiguous\(\)"
    with pytest.raises(ValueError, match=message):
        getattr(kernels, name)(*given)


@pytest.mark.parametrize("normed", [False, True])
def test_rope_backward_of_transposed_heads_is_new_and_contiguous(normed):
    """What attention returns is ``[K, H, T, E]`` in memory."""
    grad, cos, sin, *norm = rope_norm_backward_case(5, 896, torch.float32)
    transposed = grad.transpose(1, 2).contiguous().transpose(1, 2)
    before = transposed.clone()
    got = kernels.rope_backward(transposed, cos, sin, *(norm if normed else ()))
    assert got.is_contiguous()
    assert torch.equal(transposed, before)
    assert torch.equal(got, kernels.rope_backward(grad, cos, sin, *(norm if normed else ())))


def test_rope_backward_needs_the_heads_for_a_norm():
    grad, cos, sin, _, weight, eps = rope_norm_backward_case(1, 64, torch.float32)
    with pytest.raises(ValueError, match="heads must be given with a weight, got None"):
        kernels.rope_backward(grad, cos, sin, None, weight, eps)


def test_baseline_may_be_one_expanded_row():
    inputs, _, gradients, alphas = path(5, 96, torch.float32)
    baseline = random(96, dtype=torch.float32, seed=9).expand(5, -1)
    copied = baseline.clone()
    assert torch.equal(
        kernels.blend(inputs, baseline, alphas), kernels.blend(inputs, copied, alphas)
    )
    assert torch.equal(
        kernels.path_dot(inputs, baseline, gradients),
        kernels.path_dot(inputs, copied, gradients),
    )


def test_widest_row_and_the_first_refused():
    hidden, weight = random(1, 16384, dtype=torch.float32), random(16384, dtype=torch.float32)
    exact = reference.rms_norm(hidden.double(), weight.double(), EPS)[0]
    eager = reference.rms_norm(hidden, weight, EPS)[0]
    assert_as_accurate(kernels.rms_norm(hidden, weight, EPS)[0], eager, exact, 1e-6)
    wider = random(1, 16385)
    for call in (
        lambda: kernels.rms_norm(wider, wider[0], EPS),
        lambda: kernels.rms_norm_backward(wider, wider, wider[0], wider[:, 0]),
        lambda: kernels.rms_norm_secant(wider, wider, wider[0], EPS),
    ):
        with pytest.raises(ValueError, match="hidden size must be at most 16384, got 16385"):
            call()


@pytest.mark.parametrize("case", list(CASES))
def test_no_tokens_give_empty_results(case):
    name, make, _ = CASES[case]
    arguments = copies(make(0, 64, torch.float32))
    for got, want in zip(
        results(kernels, name, copies(arguments)), results(reference, name, arguments), strict=True
    ):
        assert got.shape == want.shape
        assert got.dtype == want.dtype


def test_no_path_points():
    inputs, baseline, gradients, alphas = path(3, 64, torch.float32)
    assert kernels.blend(inputs, baseline, alphas[:0]).shape == (0, 3, 64)
    assert kernels.path_dot(inputs, baseline, gradients[:0]).shape == (0, 3)


def test_same_call_gives_the_same_bits():
    arguments = path(9, 896, torch.bfloat16)[:3]
    assert torch.equal(kernels.path_dot(*arguments), kernels.path_dot(*arguments))


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU: 13 GB, and not in the interpreter")
def test_more_elements_than_int32_counts():
    N = 2**31 + 4096
    T, D = N // 4096, 4096
    gate = torch.ones(T, D, dtype=torch.bfloat16, device=DEVICE)
    last = random(D, dtype=torch.bfloat16)
    gate[-1] = last
    out = kernels.swiglu(gate, gate)
    assert torch.equal(out[-1], kernels.swiglu(last, last))
    normed = kernels.rms_norm(gate, last, EPS)[0]
    assert torch.equal(normed[-1], kernels.rms_norm(gate[-1:], last, EPS)[0][0])
    del out, normed
    # Two path points, so that the second begins above 2^30 and ends above 2^31.
    half = gate[: T // 2 + 1]
    zeros = gate.new_zeros(1, 1).expand(half.shape)
    points = kernels.blend(half, zeros, torch.tensor([0.5, 1.0]))
    assert torch.equal(points[1], half)
    values = kernels.path_dot(half, zeros, points)
    assert (values == torch.tensor([[0.5 * D], [D]], device=DEVICE)).all()
    del points, values
    heads = gate.view(1, T, D // 128, 128)
    angles = torch.full((T, 128), 0.5, dtype=torch.bfloat16, device=DEVICE)
    want = reference.rope(heads[:, -1:].clone(), angles[:1], angles[:1])
    assert torch.equal(kernels.rope(heads, angles, angles)[:, -1:], want)


# The reference itself.


@pytest.mark.parametrize("D", [64, 96, 896, 3584])
def test_reference_norm_is_that_of_transformers(D):
    norm = Qwen2RMSNorm(D, EPS).bfloat16().to(DEVICE)
    norm.weight.data = random(D, dtype=torch.bfloat16, seed=1)
    hidden = random(2, 63, D, dtype=torch.bfloat16)
    want = norm(hidden).detach()
    assert torch.equal(reference.rms_norm(hidden, norm.weight.data, EPS)[0], want)


def test_reference_swiglu_is_that_of_transformers():
    gate, up = random(63, 96, dtype=torch.bfloat16), random(63, 96, dtype=torch.bfloat16, seed=1)
    assert torch.equal(reference.swiglu(gate, up), F.silu(gate) * up)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_reference_rope_is_that_of_transformers(dtype):
    heads, cos, sin, weight = heads_and_angles(63, 896, dtype)
    want, _ = apply_rotary_pos_emb(
        heads.transpose(1, 2), heads.transpose(1, 2), cos[None], sin[None]
    )
    assert torch.equal(reference.rope(heads.clone(), cos, sin), want.transpose(1, 2))
    normed = reference.rms_norm(heads, weight, EPS)[0].transpose(1, 2)
    want, _ = apply_rotary_pos_emb(normed, normed, cos[None], sin[None])
    assert torch.equal(reference.rope(heads, cos, sin, weight, EPS), want.transpose(1, 2))


def norm_of(hidden, weight):
    return weight * hidden * (hidden.square().mean(-1, keepdim=True) + EPS).rsqrt()


def test_reference_gradient_of_the_norm_is_autograd_s():
    grad, hidden, weight, rstd, residual = rms_norm_backward_case(5, 96, torch.float64)
    hidden.requires_grad_()
    (want,) = torch.autograd.grad(norm_of(hidden, weight), hidden, grad)
    got = reference.rms_norm_backward(grad, hidden.detach(), weight, rstd, residual)
    torch.testing.assert_close(got, want + residual, rtol=0, atol=1e-12)


def test_reference_gradient_of_swiglu_is_autograd_s():
    grad, gate, up = (tensor.requires_grad_() for tensor in rows(5, 96, torch.float64, 3))
    want = torch.autograd.grad(F.silu(gate) * up, (gate, up), grad)
    got = reference.swiglu_backward(*(tensor.detach().clone() for tensor in (grad, gate, up)))
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("normed", [False, True])
def test_reference_gradient_of_rope_is_autograd_s(normed):
    grad, cos, sin, heads, weight, eps = rope_norm_backward_case(5, 896, torch.float64)
    heads.requires_grad_()
    first, second = (norm_of(heads, weight) if normed else heads).chunk(2, dim=-1)
    turned = torch.cat([-second, first], dim=-1)
    rotated = torch.cat([first, second], dim=-1) * cos[:, None] + turned * sin[:, None]
    (want,) = torch.autograd.grad(rotated, heads, grad)
    norm = (heads.detach(), weight, eps) if normed else ()
    got = reference.rope_backward(grad, cos, sin, *norm)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
