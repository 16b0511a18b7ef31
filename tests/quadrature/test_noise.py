"""Noise: what it makes of values and integrals, and how a refinement lives with it."""

from __future__ import annotations

import pytest
import torch
from rounds import bisect, columns, noisy

from segattr.quadrature.noise import Noise, Scatter, beyond
from segattr.quadrature.refinement import MAX_EVALUATIONS, Refinement, refine

NOISE = Noise(common=0.06, own=0.06, floor=0.02)
ALPHAS = torch.tensor([0.0, 0.125, 0.5, 1.0], dtype=torch.float64)
SEEDS = 30


@pytest.mark.parametrize("noise", [Noise(common=0.1), Noise(own=0.1), Noise(floor=0.1), NOISE])
def test_deviations_are_those_of_many_noisy_values(noise):
    """Of values, trapezoids, integrals and their sums; of samples, too."""
    function = columns(torch.exp, lambda x: 3 - x, lambda x: -0.1 * x)
    evaluate, values = noisy(function, noise, 0), function(ALPHAS)
    many = torch.stack([evaluate(ALPHAS) for _ in range(4000)])
    scatter = Scatter.of(noise, ALPHAS, values)
    parts = ALPHAS.diff()[:, None] / 2 * (many[:, 1:] + many[:, :-1])
    for expected, got in (
        (noise.of_values(values).sqrt(), many),
        (noise.of_sums(values).sqrt(), many.sum(2)),
        (scatter.parts, parts),
        (scatter.part_sums, parts.sum(2)),
        (scatter.value, parts.sum(1)),
        (scatter.total, parts.sum((1, 2))),
        (scatter.value, noise.samples(4000, ALPHAS, values, torch.Generator().manual_seed(1))),
    ):
        torch.testing.assert_close(got.std(0), expected, rtol=0.06, atol=1e-12)


def test_noise_of_all_components_together_adds_up_in_their_sum():
    """Independent noise does not: of 100 equal components, 10 times as much."""
    values = torch.ones(1, 100, dtype=torch.float64)
    assert Noise(common=0.1).of_sums(values).sqrt().item() == pytest.approx(10)
    assert Noise(own=0.1).of_sums(values).sqrt().item() == pytest.approx(1)
    assert Noise(floor=0.1).of_sums(values).sqrt().item() == pytest.approx(1)


@pytest.mark.parametrize(
    ("size", "noise", "share"),
    [(5.0, 0.0, 1.0), (5.0, 3.0, 0.8), (5.0, 5.0, 0.0), (5.0, 9.0, 0.0), (0.0, 0.0, 1.0)],
)
def test_noise_is_taken_out_of_sizes_in_squares(size, noise, share):
    got = beyond(torch.tensor(size).double(), torch.tensor(noise).double())
    assert got.item() == pytest.approx(share)


def test_without_noise_samples_are_the_errors_alone():
    path = bisect(columns(torch.exp, lambda x: torch.tanh(30 * (x - 0.5))), rounds=3)
    signs = (path.samples()[1:, :1] - path.value[:1]) / path.errors[:, 0]
    assert path.rounding is None
    assert not path.is_noise()
    assert torch.equal(path.scatter.value, torch.zeros(2).double())
    assert signs.shape == (32, len(path.errors))
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(0, 2, (32, len(path.errors)), generator=generator) * 2.0 - 1
    assert torch.equal(path.samples()[1:], path.value + signs.double() @ path.errors)


def random_function(kind, seed):
    """A function of 40 components, a potential at multiples of 1/4096, and the integral."""
    generator = torch.Generator().manual_seed(seed)
    size, place, width = (
        start + spread * torch.rand(40, generator=generator, dtype=torch.float64)
        for start, spread in ((-1, 2), (0.3, 0.4), (0.08, 0.22))
    )
    other = size.flip(0) / 10
    function = {
        "flat": lambda x: size * torch.ones_like(x)[:, None],
        "bumps": lambda x: size * torch.exp(-(((x[:, None] - place) / width) ** 2) / 2),
        "exponentials": lambda x: size * torch.exp((8 * place - 4) * x[:, None]),
        "peak": lambda x: size * torch.exp(-(((x[:, None] - place[0]) / 0.02) ** 2) / 2) + other,
    }[kind]
    fine = function(torch.linspace(0, 1, 4097, dtype=torch.float64))
    trapezoids = (fine[1:] + fine[:-1]) / 2 / 4096
    sums = torch.nn.functional.pad(trapezoids.sum(1).cumsum(0), (1, 0))
    return function, lambda x: sums[(4096 * x).round().long()], trapezoids.sum(0)


def run(kind, seed, tolerance, noise=NOISE, claimed=NOISE):
    """A refinement of a noisy function, and how far it is off."""
    function, potential, exact = random_function(kind, seed)
    evaluate = noisy(function, noise, seed)
    path = refine(
        lambda x: (potential(x), evaluate(x)),
        lambda path: bool(path.error.norm() <= tolerance * path.value.norm()),
        Refinement(noise=claimed),
    )
    return path, path.value - exact


@pytest.mark.parametrize("kind", ["flat", "bumps", "exponentials", "peak"])
@pytest.mark.parametrize("tolerance", [0.2, 0.05, 1e-4])
def test_the_claimed_error_covers_noise(kind, tolerance):
    """In L2 on 95 of 100 paths, and on 90 of 100 components."""
    found = [run(kind, seed, tolerance) for seed in range(SEEDS)]
    covered = [bool(off.norm() <= path.error.norm()) for path, off in found]
    components = torch.stack([(off.abs() <= path.error).double().mean() for path, off in found])
    assert sum(covered) >= 0.95 * SEEDS
    assert components.mean() >= 0.9


@pytest.mark.parametrize("kind", ["flat", "bumps", "exponentials", "peak"])
def test_the_claimed_error_is_not_much_larger_than_the_noise(kind):
    """What it stops with is of the size of noise, and so is what it claims."""
    found = [run(kind, seed, 1e-4) for seed in range(SEEDS)]
    errors = torch.stack([off.norm() / path.value.norm() for path, off in found])
    claims = torch.stack([path.error.norm() / path.value.norm() for path, _ in found])
    assert errors.median() <= 1.5 * max(path.rounding for path, _ in found)
    assert claims.median() <= 5 * errors.median()


@pytest.mark.parametrize(
    ("kind", "most"), [("flat", 17), ("bumps", 17), ("exponentials", 33), ("peak", 30)]
)
def test_it_stops_above_the_noise_and_says_so(kind, most):
    """A tolerance that it cannot reach takes the whole budget where the noise is not known."""
    for seed in range(SEEDS):
        path, _ = run(kind, seed, 1e-4)
        assert (path.noisy, path.converged) == (True, False)
        assert len(path.alphas) <= most
    path, _ = run(kind, 0, 1e-4, claimed=Noise())
    assert (path.noisy, path.converged, len(path.alphas)) == (False, False, MAX_EVALUATIONS)


@pytest.mark.parametrize("kind", ["bumps", "exponentials", "peak"])
def test_it_looks_for_more_than_noise_where_there_is_more(kind):
    """Noise a hundred times smaller, with a tolerance above it: no stop before that is reached."""
    small = Noise(6e-4, 6e-4, 2e-4)
    path, off = run(kind, 0, 5e-3, small, small)
    assert (path.noisy, path.converged) == (False, True)
    assert off.norm() <= 5e-3 * path.value.norm()
    assert path.rounding < 1e-3


def test_hardly_an_interval_is_bisected_for_noise_alone():
    """Peaks among noise: how many nodes beyond the first ones are elsewhere."""

    def elsewhere(seed, claimed):
        path, _ = run("peak", seed, 1e-4, claimed=claimed)
        peak = path.alphas[path.values.norm(dim=1).argmax()]
        added = path.alphas[(8 * path.alphas) % 1 != 0]
        return int(((added - peak).abs() > 0.125).sum())

    for seed in range(10):
        assert elsewhere(seed, NOISE) <= 6
        assert elsewhere(seed, Noise()) >= 15


def test_noise_is_repeatable_and_the_first_sample_has_none():
    path, _ = run("bumps", 0, 1e-4)
    samples = path.samples(400)
    assert torch.equal(samples, path.samples(400))
    assert torch.equal(samples[0], path.value)
    spread = (samples[1:] - samples[0]).square().mean(0).sqrt()
    expected = (path.errors.square().sum(0) + path.scatter.value.square()).sqrt()
    torch.testing.assert_close(spread, expected, rtol=0.15, atol=0)
