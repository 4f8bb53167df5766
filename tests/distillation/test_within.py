"""The distance within classes: its value by hand, its gradient's direction, and that it spreads what has collapsed."""

from __future__ import annotations

import pytest
import torch

from dd.distillation.within import WithinLoss, moments


def cloud(samples, seed, spread=1.0, width=4):
    """Two classes far apart, of the given spread."""
    generator = torch.Generator().manual_seed(seed)
    classes = torch.arange(samples) % 2
    return spread * torch.randn(samples, width, generator=generator) + 20.0 * classes[:, None], classes


def test_moments_by_hand():
    means, counts, covariance = moments(torch.tensor([[0.0], [2.0], [10.0], [14.0]]), torch.tensor([0, 0, 2, 2]), 3)
    assert means.flatten().tolist() == [1.0, 0.0, 12.0]
    assert counts.tolist() == [2, 0, 2]
    assert covariance.item() == pytest.approx((1 + 1 + 4 + 4) / 2)  # four samples, two means


def test_value_by_hand():
    """On a line: wanted -1 and 1, samples 3 and 3 + 4 of the same class: means 5 apart, deviations 2 times as wide."""
    loss = WithinLoss(torch.tensor([[-1.0], [1.0]]), torch.zeros(2, dtype=torch.int64), memory=2)
    found = loss(torch.tensor([[3.0], [7.0]]), torch.zeros(2, dtype=torch.int64))
    # In units of the wanted variance 2, over the samples: 5^2 + (2 - 1)^2.
    assert found.item() == pytest.approx((5**2 + 1) / 2, rel=1e-2)


def test_equal_distributions_have_next_to_none_and_narrow_ones_have_some():
    wanted, classes = cloud(4000, 0)
    loss = WithinLoss(wanted, classes, memory=4000)
    samples, theirs = cloud(4000, 1)
    assert loss(samples, theirs).item() < 0.01
    narrow, theirs = cloud(4000, 1, spread=0.5)
    assert WithinLoss(wanted, classes, memory=4000)(narrow, theirs).item() == pytest.approx(0.25, abs=0.02)


def test_following_it_spreads_collapsed_classes():
    wanted, classes = cloud(1000, 0)
    samples, theirs = cloud(200, 1, spread=0.2)
    samples.requires_grad_()
    loss = WithinLoss(wanted, classes, memory=200)
    for _ in range(300):
        (gradient,) = torch.autograd.grad(loss(samples, theirs) * len(samples), samples)
        with torch.no_grad():
            samples -= 0.2 * gradient
    for label in (0, 1):
        own, its = samples[theirs == label], wanted[classes == label]
        assert own.var(0).mean().item() == pytest.approx(its.var(0).mean().item(), rel=0.1)
        assert own.mean(0).tolist() == pytest.approx(its.mean(0).tolist(), abs=0.1)


def test_few_directions_of_many_are_kept():
    wanted, classes = cloud(500, 0, width=12)
    loss = WithinLoss(wanted, classes, memory=500, kept=3)
    assert loss.axes.shape == (12, 3)
    assert loss.wanted_covariance.trace().item() == pytest.approx(1)
    assert loss(*cloud(500, 0, width=12)).item() == pytest.approx(0, abs=1e-3)


def test_it_waits_for_its_memory_and_leaves_out_unknown_classes():
    wanted, classes = cloud(100, 0)
    loss = WithinLoss(wanted, classes, memory=40)
    samples = (wanted[:9] + 3).requires_grad_()
    assert loss(samples, classes[:9]).item() == 0
    same = torch.zeros(10, dtype=torch.int64)
    loss(wanted[:10], same)
    one, label = (wanted[1:2] + 3).requires_grad_(), torch.ones(1, dtype=torch.int64)
    alone = WithinLoss(wanted, classes, memory=40)
    alone(wanted[:20], torch.zeros(20, dtype=torch.int64))
    assert alone(one, label).item() == 0  # the only one of its class
    assert loss(one, label).item() > 0


def test_a_checkpoint_holds_its_memory():
    wanted, classes = cloud(100, 0)
    loss, other = WithinLoss(wanted, classes, memory=20), WithinLoss(wanted, classes, memory=20)
    loss(wanted[:15] + 1, classes[:15])
    other.load_state_dict(loss.state_dict())
    assert loss(wanted[15:19], classes[15:19]).item() == other(wanted[15:19], classes[15:19]).item() != 0
