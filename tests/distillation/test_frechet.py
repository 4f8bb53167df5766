"""The Frechet term: its value and gradient are those of the distance itself."""

from __future__ import annotations

import pytest
import torch

from dd.distillation.frechet import FrechetLoss, MatchingLoss, PictureFeatures, shifted, straight_through
from dd.metrics.distances import frechet_by_eigenvalues
from dd.metrics.moments import Gaussian
from dd.models.base import StudentOutput

F = 6


def gaussian(features):
    """Population moments: the loss counts samples, it does not estimate."""
    mean = features.mean(0)
    return Gaussian(len(features), mean.numpy(), ((features - mean).T @ (features - mean) / len(features)).numpy())


def cloud(seed, samples=400, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(samples, F, generator=generator, dtype=torch.float64)
    return spread * mixed @ torch.randn(F, F, generator=generator, dtype=torch.float64) + seed


@pytest.fixture
def wanted():
    return cloud(1, 4000)


def test_its_value_is_the_frechet_distance(wanted):
    features = cloud(2)
    loss = FrechetLoss(wanted, memory=len(features))(features)
    assert loss.item() == pytest.approx(frechet_by_eigenvalues(gaussian(features), gaussian(wanted)), rel=2e-2)


def test_its_gradient_is_that_of_the_distance(wanted):
    features = cloud(2).requires_grad_()
    FrechetLoss(wanted, memory=len(features))(features).backward()
    step = 1e-4
    for row, column in ((0, 0), (7, 3), (100, 5)):
        moved = [features.detach().clone(), features.detach().clone()]
        moved[0][row, column] += step
        moved[1][row, column] -= step
        high, low = (frechet_by_eigenvalues(gaussian(f), gaussian(wanted)) for f in moved)
        assert features.grad[row, column].item() == pytest.approx((high - low) / (2 * step), rel=0.05, abs=1e-4)


def test_following_it_brings_samples_to_the_wanted_distribution(wanted):
    features = cloud(2, spread=0.3).requires_grad_()
    loss = FrechetLoss(wanted, memory=len(features))
    first = loss(features).item()
    for _ in range(300):
        (gradient,) = torch.autograd.grad(loss(features) * len(features), features)
        with torch.no_grad():
            features -= 0.1 * gradient
    assert frechet_by_eigenvalues(gaussian(features.detach()), gaussian(wanted)) < 0.01 * first


def test_moments_span_many_batches_and_forget(wanted):
    """Parts of a batch add up to it; what came long ago no longer counts; too few samples give no push."""
    features = cloud(3, 600)
    whole, parts = FrechetLoss(wanted, memory=600), FrechetLoss(wanted, memory=10**9)
    whole(features)
    for part in features.split(100):
        parts(part)
    assert torch.allclose(whole.mean, parts.mean)
    assert torch.allclose(whole.square, parts.square)
    for part in cloud(4, 20000).split(100):
        whole(part)
    assert torch.allclose(whole.mean, cloud(4, 20000).mean(0), atol=1.0)
    early = FrechetLoss(wanted, memory=10000)
    assert early(features).item() == 0


def test_two_processes_count_as_one(wanted):
    """`total` sums over processes: two equal ones leave the moments of one."""
    features = cloud(3, 500)
    one, two = FrechetLoss(wanted, 500), FrechetLoss(wanted, 1000, total=lambda part: 2 * part)
    assert one(features).item() == pytest.approx(two(features).item())
    assert torch.allclose(one.square, two.square)


def test_directions_without_variance_are_no_trouble(wanted):
    features = cloud(3)
    features[:, 2] = 0.0
    features.requires_grad_()
    FrechetLoss(wanted, memory=len(features))(features).backward()
    assert features.grad.isfinite().all()


def test_straight_through_gives_codes_and_passes_the_gradient_of_the_expected_ones():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 5, generator=generator).requires_grad_()
    codebook = torch.randn(5, 4, generator=generator)
    codes = straight_through(StudentOutput(logits, torch.zeros(2, 3, 4)), codebook)
    assert torch.allclose(codes, codebook[logits.argmax(-1)], atol=1e-6)
    (found,) = torch.autograd.grad(codes.square().sum(), logits)
    (expected,) = torch.autograd.grad((logits.softmax(-1) @ codebook * 2 * codes.detach()).sum(), logits)
    assert torch.allclose(found, expected)


def test_shifted_pictures():
    """Each moves as a whole, every shift comes in turn, and borders are repeated."""
    images = torch.rand(30, 3, 6, 7, generator=torch.Generator().manual_seed(0))
    moved = shifted(images)
    padded = torch.nn.functional.pad(images, (2, 2, 2, 2), mode="replicate")
    for number in range(30):
        down, right = divmod(number % 25, 5)
        assert torch.equal(moved[number], padded[number, :, down : down + 6, right : right + 7])
    assert torch.equal(moved[12], images[12])  # the middle one stays
    assert torch.equal(shifted(images[10:], torch.tensor(10)), moved[10:])


def test_the_shifts_go_on_from_batch_to_batch():
    """A resumed run continues with the shift that is next."""
    seen = []
    picture_features = PictureFeatures(lambda x: (seen.append(x), x.mean((2, 3)))[1], torch.rand(20, 3))
    images, points = torch.rand(8, 3, 5, 5), torch.zeros(8, dtype=torch.int64)
    loss = MatchingLoss(picture_features, (0,), 8, lambda x: x)
    for _ in range(2):
        loss(images, points)
    assert torch.equal(seen[1], shifted(images, 8))
    other = MatchingLoss(picture_features, (0,), 8, lambda x: x)
    other.load_state_dict(loss.state_dict())
    other(images, points)
    assert torch.equal(seen[2], shifted(images, 16))
