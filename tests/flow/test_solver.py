"""Parts of the solver against the equations above them."""

import math

import torch

from dd.flow.grid import Solver
from dd.flow.solver import Ends, augment, likeliest_two, mean, shrink, solve, start, two_codes, weigh, with_one
from tests.helpers.codebooks import peaked, random_codebook


def test_augmented_codes_give_the_posteriors_logits():
    """rho u.c is r y.c - r^2 |c|^2 / 2 for u = (pace y, rho pace^2) and r = rho pace."""
    codes, y, log_p = random_codebook(20, 4), torch.randn(6, 4), peaked(6, 20, 1.0)
    pace, rho = torch.rand(6, 1) + 0.5, 1.7
    u, r = torch.cat([pace * y, rho * pace**2], 1), rho * pace
    expected = (log_p + r * (y @ codes.T) - r**2 * codes.square().sum(-1) / 2).softmax(-1)
    torch.testing.assert_close(weigh(u, rho, log_p, augment(codes)), expected, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(mean(expected, codes), expected @ codes)
    assert torch.equal(with_one(augment(codes))[:, -1], torch.ones(20))


def test_own_codes_give_what_shared_ones_give():
    """Leaving out codes of negligible weight and shifting the others by the likeliest changes no posterior."""
    codes, log_p, noise = random_codebook(30, 4), peaked(50, 30, 3.0), torch.randn(50, 4)
    pool = start(noise, log_p, augment(codes))
    small = shrink(pool, 0.0, 1e-6)
    rho = 0.8
    whole = weigh(torch.cat([pool.u[:, :-1], torch.full((50, 1), rho) * pool.rate], 1), rho, log_p, pool.codes)
    u = torch.cat([pool.u[:, :-1], rho * pool.rate], 1)
    shifted = u.clone()
    centre = codes[log_p.argmax(-1)]
    shifted[:, :-1] -= u[:, -1:] * centre
    own = weigh(shifted, rho, small.log_probs, small.codes)
    found = torch.zeros(50, 30).scatter_add_(1, small.ids, own.masked_fill(small.log_probs == -math.inf, 0))
    torch.testing.assert_close(found, whole, atol=1e-3, rtol=0)


def test_the_two_likeliest():
    assert likeliest_two(torch.tensor([[0.1, 0.5, 0.4], [0.7, 0.1, 0.2]])).tolist() == [[1, 2], [0, 2]]


def test_the_end_between_two_codes_is_their_probabilities():
    """P(a) is pa for y normal at r = 0, and what is left is uniform."""
    count = 4000
    y = torch.randn(count, 3, generator=torch.Generator().manual_seed(1))
    vectors = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]]).expand(count, 2, 3)
    log_probs = torch.tensor([0.3, 0.7]).log().expand(count, 2)
    ids = torch.tensor([7, 9]).expand(count, 2)
    ends = Ends(torch.arange(count), vectors, log_probs, ids, y, torch.zeros(count, 1), torch.ones(count))
    chosen, left = two_codes(ends, remainder=True)
    assert abs((chosen == 7).double().mean() - 0.3) < 0.03
    assert set(chosen.tolist()) == {7, 9}
    ordered = left.sort().values
    assert (ordered - (torch.arange(count) + 0.5) / count).abs().max() < 1.63 / count**0.5  # Kolmogorov-Smirnov at 1 %


def test_every_token_ends_once():
    codes, log_p = random_codebook(40, 4), peaked(60, 40, 2.0)
    codes = (codes - codes.mean(0)) / codes.std()
    ends = solve(torch.randn(60, 4), log_p, codes, Solver())
    assert ends.row.sort().values.tolist() == list(range(60))
    assert int(ends.evaluations.max()) <= Solver().max_evaluations
