"""The energy distance: its value and gradient by hand, and that it spreads what has collapsed."""

from __future__ import annotations

import pytest
import torch

from dd.distillation.energy import EnergyLoss


def filled(wanted, classes, bank, bank_classes):
    """A loss whose bank holds exactly these samples."""
    loss = EnergyLoss(wanted, classes, len(bank))
    loss(bank, bank_classes)
    return loss


def test_value_and_gradient_by_hand():
    """On a line: wanted 0 and 2, bank 4 and 6, a sample at 1."""
    none = torch.zeros(2, dtype=torch.int64)
    loss = filled(torch.tensor([[0.0], [2.0]]), none, torch.tensor([[4.0], [6.0]]), none)
    sample = torch.tensor([[1.0]], requires_grad=True)
    found = loss(sample, none[:1])
    # 2 E|x - y| - E|x - x'| - E|y - y'| = 2 * 1 - 4 - 2, in units of 2.
    assert found.item() == pytest.approx((2 * 1 - 4 - 2) / 2)
    found.backward()
    # Between the two wanted ones nothing pulls; both of the bank push to the left: d(-2 E|x - x'|)/dx = 2, over 2.
    assert sample.grad.item() == pytest.approx(2 / 2)


def test_equal_distributions_have_none():
    generator = torch.Generator().manual_seed(0)
    wanted, bank, samples = (torch.randn(n, 5, generator=generator) for n in (4000, 4000, 2000))
    none = torch.zeros(4000, dtype=torch.int64)
    loss = filled(wanted, none, bank, none)
    assert loss(samples, none[:2000]).item() == pytest.approx(0, abs=5e-3)
    assert loss(0.5 * samples, none[:2000]).abs().item() > 0.02


def test_classes_do_not_meet():
    """Only pictures of the sample's own class pull and push; a class that the bank has not met yet gives nothing."""
    wanted, classes = torch.tensor([[0.0], [1.0], [50.0], [51.0]]), torch.tensor([0, 0, 1, 1])
    loss = filled(wanted, classes, torch.tensor([[0.0], [1.0]]), torch.tensor([0, 0]))
    sample = torch.tensor([[0.5], [7.0]], requires_grad=True)
    found = loss(sample, torch.tensor([0, 1]))
    assert found.item() == pytest.approx((2 * 0.5 - 0.5 - 1) / 2)
    found.backward()
    assert sample.grad[1] == 0


def test_following_it_spreads_a_collapsed_set():
    generator = torch.Generator().manual_seed(1)
    wanted, none = torch.randn(1000, 3, generator=generator), torch.zeros(1000, dtype=torch.int64)
    samples = (0.05 * torch.randn(200, 3, generator=generator) + 2).requires_grad_()
    loss = EnergyLoss(wanted, none, memory=200)
    for _ in range(300):
        (gradient,) = torch.autograd.grad(loss(samples, none[:200]) * len(samples), samples)
        with torch.no_grad():
            samples -= 0.1 * gradient
    assert samples.var(0).mean().item() == pytest.approx(1, abs=0.2)
    assert samples.mean(0).norm() < 0.2


def test_the_bank_forgets_and_waits_until_it_is_filled():
    wanted, none = torch.tensor([[0.0], [2.0]]), torch.zeros(4, dtype=torch.int64)
    loss = EnergyLoss(wanted, none[:2], memory=8)
    assert loss(torch.ones(1, 1), none[:1]).item() == 0  # not a quarter yet
    assert loss(torch.ones(1, 1), none[:1]).item() == 0
    assert loss(torch.full((4, 1), 4.0), none).item() != 0
    for part in (3.0, 5.0):
        loss(torch.full((4, 1), part), none)
    assert loss.bank.flatten().tolist() == [3.0, 3.0, 3.0, 3.0, 5.0, 5.0, 5.0, 5.0]


def test_a_checkpoint_holds_the_bank():
    wanted, none = torch.randn(20, 3), torch.zeros(20, dtype=torch.int64)
    loss, other = EnergyLoss(wanted, none, memory=10), EnergyLoss(wanted, none, memory=10)
    loss(wanted[:7] + 1, none[:7])
    other.load_state_dict(loss.state_dict())
    assert loss(wanted[7:10], none[:3]).item() == other(wanted[7:10], none[:3]).item() != 0
