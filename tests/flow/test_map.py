"""The noise-to-token map: its frequencies, its agreement with a tight integration of the paper's ODE, its edges."""

import math
import time

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torchdiffeq import odeint

from dd.errors import DDError
from dd.flow.grid import Solver
from dd.flow.map import Codes, map_noise, posterior, velocity
from dd.trajectories.noise import noise
from tests.helpers.codebooks import close_codebook, paper_ode, peaked, random_codebook


def normal(count: int, width: int, seed: int = 0) -> Tensor:
    return noise(seed, np.arange(count), 1, width)[:, 0]


def chi_square(tokens: Tensor, p: Tensor) -> float:
    """p-value; codes expected fewer than five times are pooled."""
    observed = torch.bincount(tokens, minlength=len(p)).double().numpy()
    expected = (p.double() * len(tokens)).numpy()
    order = np.argsort(expected)[::-1]
    enough = max(1, int((expected[order] >= 5).sum()))
    head, tail = order[:enough], order[enough:]
    observed = np.append(observed[head], observed[tail].sum())
    expected = np.append(expected[head], expected[tail].sum())
    if expected[-1] < 5:  # too small for a cell of its own: into the one before
        observed[-2] += observed[-1]
        expected[-2] += expected[-1]
        observed, expected = observed[:-1], expected[:-1]
    return (
        float(stats.chisquare(observed, expected * observed.sum() / expected.sum()).pvalue)
        if len(observed) > 1
        else 1.0
    )


@pytest.mark.parametrize(
    ("size", "width", "scale", "sharpness"),
    [
        (2, 4, 1.0, 1.0),
        (3, 8, 0.1, 1.0),
        (16, 4, 10.0, 0.0),
        (16, 32, 1.0, 3.0),
        (300, 8, 1.0, 2.0),
        (2048, 16, 10.0, 5.0),
        (16384, 8, 1.0, 6.0),
    ],
)
def test_induced_frequencies_are_p(size: int, width: int, scale: float, sharpness: float) -> None:
    codes = random_codebook(size, width, seed=size) * scale
    log_p = peaked(1, size, sharpness, seed=size)[0]
    count = 1000 if size > 2048 else 4000 if size > 256 else 10000
    result = map_noise(normal(count, width, seed=size), log_p.expand(count, -1), codes)
    assert chi_square(result.tokens, log_p.exp()) > 1e-3


def test_close_codes_do_not_pull_to_the_likelier_neighbour() -> None:
    """A grid that ends early gives a code and its close neighbour to the likelier of the two."""
    codes = close_codebook(64, 4, width=8, distance=0.04)
    log_p = peaked(12, len(codes), 2.0, seed=3).repeat_interleave(1500, 0)
    result = map_noise(normal(len(log_p), 8, seed=3), log_p, codes)
    p = log_p.exp()
    surprise, entropy = -log_p.gather(1, result.tokens[:, None])[:, 0], -(p * log_p).sum(-1)
    spread = ((p * log_p.square()).sum(-1) - entropy.square()).mean().sqrt() / math.sqrt(len(log_p))
    assert abs(surprise.mean() - entropy.mean()) < 4 * spread
    mode = (result.tokens == log_p.argmax(-1)).double().mean() - p.amax(-1).double().mean()
    assert abs(mode) < 4 * math.sqrt(0.25 / len(log_p))
    for tokens, row in zip(result.tokens.split(1500), log_p[::1500], strict=True):
        assert chi_square(tokens, row.exp()) > 1e-4


@pytest.mark.parametrize("case", ["random", "close", "filtered"])
def test_agrees_with_dopri5_on_the_papers_equation(case: str) -> None:
    if case == "close":
        codes = close_codebook(64, 4, width=8, distance=0.2)
        log_p = peaked(500, 256, 3.0, seed=1)
    else:
        codes = random_codebook(512, 8 if case == "random" else 32, seed=1)
        log_p = peaked(500, 512, 3.0, seed=1)
    if case == "filtered":
        log_p = log_p.masked_fill(log_p < log_p.topk(50, -1).values[:, -1:], -math.inf).log_softmax(-1)
    e = normal(len(log_p), codes.shape[1], seed=9)
    result = map_noise(e, log_p, codes)
    truth = paper_ode(e, log_p, codes)
    assert (result.tokens == truth).double().mean() >= 0.996  # two of 500; the benchmark counts on thousands
    assert result.evaluations.double().mean() <= 27


@pytest.mark.parametrize("case", ["random", "close", "filtered", "wide"])
def test_the_fixed_schedule_draws_the_same_tokens(case: str) -> None:
    """Codes of negligible weight are dropped at other points, so one token in a thousand may turn."""
    count = 1500
    if case == "close":
        codes, log_p = close_codebook(64, 4, width=8, distance=0.04), peaked(count, 256, 2.0, seed=1)
    else:
        size, width = {"random": (600, 8), "filtered": (600, 16), "wide": (700, 32)}[case]
        codes, log_p = random_codebook(size, width, seed=1), peaked(count, size, 3.0, seed=1)
    if case == "filtered":
        log_p = log_p.masked_fill(log_p < log_p.topk(50, -1).values[:, -1:], -math.inf).log_softmax(-1)
    e = normal(count, codes.shape[1], seed=9)
    free, fixed = (map_noise(e, log_p, codes, fixed=choice) for choice in (False, True))
    assert (free.tokens != fixed.tokens).sum() <= 1
    later = fixed.evaluations - free.evaluations
    assert later.double().mean() < 2.5  # a token waits at most for the next move
    assert later.min() >= -3


def test_the_fixed_schedule_keeps_frequencies_of_duplicates_and_of_single_codes() -> None:
    base = random_codebook(20, 6, seed=4)
    codes = base[torch.tensor([0, 1, 1, 2, 3, 3, 3, *range(4, 20)])]
    log_p = peaked(1, len(codes), 1.0, seed=4)[0]
    result = map_noise(normal(20000, 6, seed=4), log_p.expand(20000, -1), codes, fixed=True)
    assert chi_square(result.tokens, log_p.exp()) > 1e-3
    for size in (1, 2, 300):
        certain = torch.full((50, size), -math.inf)
        certain[:, size // 2] = 0
        assert (map_noise(normal(50, 4), certain, random_codebook(size, 4), fixed=True).tokens == size // 2).all()


def test_the_fixed_schedule_out_of_evaluations() -> None:
    codes, log_p = random_codebook(256, 8, seed=2), peaked(300, 256, 2.0, seed=2)
    for most in (2, 3, 12, 41):
        result = map_noise(normal(300, 8), log_p, codes, Solver(max_evaluations=most), fixed=True)
        assert result.evaluations.max() <= most
        assert (log_p.gather(1, result.tokens[:, None]) > -12).all()


def test_dense_spots_of_a_codebook_lengthen_the_lists_or_rule_the_fixed_schedule_out() -> None:
    spread = random_codebook(900, 4, seed=1)
    assert Codes.prepare(spread).width(Solver()) == 32
    dense = torch.cat([spread, spread[:1] + 1e-3 * normal(100, 4)])
    assert Codes.prepare(dense).width(Solver()) == 128
    log_p, e = peaked(400, len(dense), 1.0, seed=5), normal(400, 4, seed=5)
    log_p[:, :900] -= 6  # nearly all of them end in the dense spot
    log_p = log_p.log_softmax(-1)
    free, fixed = (map_noise(e, log_p, dense, fixed=choice) for choice in (False, True))
    assert (free.tokens != fixed.tokens).sum() <= 2
    crowded = torch.cat([spread, spread[:1] + 1e-3 * normal(800, 4)])
    assert Codes.prepare(crowded).width(Solver()) is None


def test_a_coarser_grid_takes_fewer_evaluations_and_is_unbiased_too() -> None:
    codes = random_codebook(256, 8, seed=2)
    log_p = peaked(1, 256, 2.0, seed=2).expand(4000, -1)
    e = normal(4000, 8, seed=2)
    fine, coarse = map_noise(e, log_p, codes), map_noise(e, log_p, codes, Solver(first=0.45, ratio=1.3))
    assert 0.985 < (coarse.tokens == fine.tokens).double().mean() < 1
    assert coarse.evaluations.double().mean() < 0.75 * fine.evaluations.double().mean()
    assert chi_square(coarse.tokens, log_p[0].exp()) > 1e-3


def test_out_of_evaluations_a_likely_code_is_taken() -> None:
    codes, log_p = random_codebook(256, 8, seed=2), peaked(500, 256, 2.0, seed=2)
    result = map_noise(normal(500, 8), log_p, codes, Solver(max_evaluations=3))
    assert result.evaluations.max() == 3
    assert (log_p.gather(1, result.tokens[:, None]) > -12).all()


def test_two_codes_need_no_integration_and_are_exact() -> None:
    """Along the line of two codes the flow keeps quantiles: the likelier end of the noise goes to the code there."""
    codes = torch.tensor([[0.0, 1.0], [0.0, 1.0 + 1e-4]])
    p = torch.tensor([0.3, 0.7])
    e = normal(5000, 2)
    result = map_noise(e, p.log().expand(5000, -1), codes)
    assert torch.equal(result.tokens, (e[:, 1].double() > stats.norm.ppf(0.3)).long())
    assert result.evaluations.max() == 1


def test_duplicate_codes_share_by_their_probabilities() -> None:
    base = random_codebook(20, 6, seed=4)
    codes = base[torch.tensor([0, 1, 1, 2, 3, 3, 3, *range(4, 20)])]
    log_p = peaked(1, len(codes), 1.0, seed=4)[0]
    result = map_noise(normal(20000, 6, seed=4), log_p.expand(20000, -1), codes)
    assert chi_square(result.tokens, log_p.exp()) > 1e-3
    one = torch.ones(7, 3)
    result = map_noise(normal(7000, 3), torch.full((7000, 7), -math.log(7)), one)
    assert chi_square(result.tokens, torch.full((7,), 1 / 7)) > 1e-3


def test_a_filtered_duplicate_is_never_drawn() -> None:
    codes = torch.ones(4, 3)
    codes[3] = 2
    log_p = torch.tensor([-math.inf, 0.0, -math.inf, -math.inf]).expand(500, -1)
    assert (map_noise(normal(500, 3), log_p, codes).tokens == 1).all()


@pytest.mark.parametrize("size", [1, 2, 300])
def test_one_certain_code(size: int) -> None:
    codes = random_codebook(size, 4)
    log_p = torch.full((200, size), -math.inf)
    log_p[:, size // 2] = 0
    result = map_noise(normal(200, 4), log_p, codes)
    assert (result.tokens == size // 2).all()
    assert result.evaluations.max() == 1


def test_vanishing_probabilities_and_far_codes_give_no_nan() -> None:
    codes = random_codebook(300, 8) * torch.logspace(-1, 1, 300)[:, None]
    log_p = torch.full((300, 300), math.log(1e-30))
    log_p[torch.arange(300), torch.arange(300)] = 0
    assert torch.equal(map_noise(normal(300, 8), log_p, codes).tokens, torch.arange(300))
    flat = torch.zeros(2000, 300)  # identical logits, not normalised
    result = map_noise(normal(2000, 8), flat, codes)
    assert chi_square(result.tokens, torch.full((300,), 1 / 300)) > 1e-3


@pytest.mark.parametrize("distance", [1e-2, 1e-4, 1e-6])
def test_three_close_codes_keep_their_frequencies(distance: float) -> None:
    """The steps grow while nothing happens; they must be small again when r reaches the scale of the cluster."""
    codes = torch.tensor([[1.0, 0.0], [1.0, distance], [1.0, -distance], [-1.0, 0.0]])
    p = torch.tensor([0.2, 0.3, 0.4, 0.1])
    result = map_noise(normal(8000, 2), p.log().expand(8000, -1), codes)
    assert chi_square(result.tokens, p) > 1e-3


def test_posterior_near_the_end_is_finite() -> None:
    codes, log_p = random_codebook(64, 8), peaked(10, 64, 1.0)
    for t in (0.0, 0.5, 0.999, 1 - 1e-6):
        weights, mean = posterior(normal(10, 8), torch.full((10,), t), log_p, codes)
        assert torch.isfinite(weights).all()
        assert torch.isfinite(mean).all()
        torch.testing.assert_close(weights.sum(-1), torch.ones(10))


def test_a_token_does_not_depend_on_its_batch() -> None:
    codes = Codes.prepare(close_codebook(64, 4, width=8, distance=0.1))
    log_p, e = peaked(3000, 256, 2.0), normal(3000, 8)
    whole = map_noise(e, log_p, codes)
    order = torch.randperm(3000, generator=torch.Generator().manual_seed(0))
    shuffled = map_noise(e[order], log_p[order], codes)
    parts = torch.cat([map_noise(a, b, codes).tokens for a, b in zip(e.split(171), log_p.split(171), strict=True)])
    # Kernels round differently with the number of rows; that may turn a token in thousands.
    assert (shuffled.tokens != whole.tokens[order]).sum() <= 1
    assert (parts != whole.tokens).sum() <= 1
    again = map_noise(e, log_p, codes)
    assert torch.equal(again.tokens, whole.tokens)
    assert torch.equal(again.evaluations, whole.evaluations)


def test_scale_and_shift_of_the_codebook_change_nothing() -> None:
    codes, log_p, e = random_codebook(200, 8), peaked(1000, 200, 2.0), normal(1000, 8)
    plain = map_noise(e, log_p, codes).tokens
    assert (map_noise(e, log_p, codes * 7 + 3).tokens == plain).double().mean() > 0.998


def test_other_dtypes_are_taken_in() -> None:
    codes, log_p, e = random_codebook(50, 4), peaked(100, 50, 1.0), normal(100, 4)
    assert torch.equal(map_noise(e.double(), log_p.double(), codes.double()).tokens, map_noise(e, log_p, codes).tokens)


def test_an_enclosing_autocast_changes_nothing() -> None:
    e, log_p, codes = normal(300, 4), normal(300, 64, seed=1).mul(2).log_softmax(-1), random_codebook(64, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = map_noise(e, log_p, codes)
    assert torch.equal(inside.tokens, map_noise(e, log_p, codes).tokens)


def test_empty_batch() -> None:
    assert map_noise(torch.zeros(0, 4), torch.zeros(0, 9), random_codebook(9, 4)).tokens.shape == (0,)


def test_faster_than_dopri5() -> None:
    codes, log_p, e = random_codebook(512, 8), peaked(300, 512, 2.0), normal(300, 8)
    ready = Codes.prepare(codes)
    map_noise(e[:10], log_p[:10], ready)
    start = time.process_time()
    map_noise(e, log_p, ready)
    middle = time.process_time()
    times = torch.tensor([0.0, 0.99])
    odeint(lambda t, x: velocity(x, t.expand(len(x)), log_p, codes), e, times, rtol=1e-5, atol=1e-5)
    assert time.process_time() - middle > 2 * (middle - start)


@pytest.mark.parametrize(
    ("e", "log_p", "codes", "text"),
    [
        (torch.zeros(3, 5), torch.zeros(3, 4), torch.eye(4), r"noise must be \(N, 4\), got shape \(3, 5\)"),
        (torch.zeros(3, 4), torch.zeros(3, 5), torch.eye(4), r"log_probs must be \(3, 4\), got shape \(3, 5\)"),
        (torch.zeros(3, 4), torch.full((3, 4), -math.inf), torch.eye(4), "got a row of -inf or NaN"),
        (torch.zeros(3, 4), torch.zeros(3, 4), torch.full((4, 4), math.nan), "codes must be finite"),
        (torch.zeros(3, 4), torch.zeros(3, 4), torch.zeros(4), r"codes must be \(V, C\), got shape \(4,\)"),
    ],
)
def test_bad_input(e: Tensor, log_p: Tensor, codes: Tensor, text: str) -> None:
    with pytest.raises(DDError, match=text):
        map_noise(e, log_p, codes)
