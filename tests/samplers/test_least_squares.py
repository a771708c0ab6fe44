"""Least squares: the solution to rounding where it is unique, the shortest where it is not."""

import pytest
import torch

from tiltbench.samplers.least_squares import least_squares
from tiltbench.samplers.networks.free_energy import FreeEnergy


def matrix(m, n, rank=None):
    g = torch.Generator().manual_seed(m + n)
    a = torch.randn(m, n, generator=g, dtype=torch.float64)
    if rank is not None:
        u, s, v = torch.linalg.svd(a, full_matrices=False)
        a = u[:, :rank] * s[:rank] @ v[:rank]
    return a, torch.randn(m, 3, generator=g, dtype=torch.float64)


def pivoted(a, b):
    """LAPACK's by QR with pivots, which a CPU has."""
    return torch.linalg.lstsq(a, b, driver="gelsy", rcond=1e-10).solution


@pytest.mark.parametrize("m, n", [(40, 9), (9, 9), (500, 64)])
def test_full_rank_is_solved_to_rounding(m, n):
    a, b = matrix(m, n)
    solution = least_squares(a, b)
    usual = torch.linalg.lstsq(a, b, driver="gels").solution  # all that a GPU has
    assert torch.allclose(solution, usual, rtol=1e-10, atol=1e-11)
    assert all(torch.equal(solution, least_squares(a, b)) for _ in range(5))


@pytest.mark.parametrize(
    "m, n, rank", [(40, 9, 8), (40, 9, 1), (5, 9, None), (5, 9, 3), (4, 3, 0), (64, 64, 63)]
)
def test_of_many_solutions_it_is_the_shortest(m, n, rank):
    """ "gels" alone divides by rounding here: 1e13 in the place of 1."""
    a, b = matrix(m, n, rank)
    solution, usual = least_squares(a, b), pivoted(a, b)
    assert solution.isfinite().all()
    assert (solution - usual).norm() <= 1e-10 * (1 + usual.norm())


def test_columns_that_are_nearly_alike_are_told_apart():
    a = torch.tensor([[1.0, 1.0], [0.0, 1e-7], [1.0, 1.0]], dtype=torch.float64)  # condition 2e7
    x = torch.tensor([[3.0], [-2.0]], dtype=torch.float64)
    assert torch.allclose(least_squares(a, a @ x), x, rtol=1e-6)


def test_scale_does_not_matter():
    a, b = matrix(40, 9, 8)
    for size in (1e-30, 1e30):
        assert torch.allclose(least_squares(size * a, b) * size, least_squares(a, b), rtol=1e-5)


@pytest.mark.parametrize("steps", [1, 3, 8, 32])
def test_a_free_energy_is_fitted_whatever_the_number_of_times(steps):
    """Also at times that come twice; with fewer times than numbers the rates are met exactly."""
    t = torch.linspace(0, 1, steps + 1)
    t, rate = torch.cat([t, t[-1:]]), torch.cat([1 + t, 1 + t[-1:]])
    energy = FreeEnergy()
    energy.fit(t, rate)
    size = sum(float(p.detach().square().sum()) for p in energy.parameters()) ** 0.5
    assert size < 3
    off = (energy.rate(t) - rate).abs().max()
    assert off < (1e-6 if steps < 9 else 0.2)
