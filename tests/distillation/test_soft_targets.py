"""Soft targets of another student."""

import pytest
import torch

from dd.distillation.soft_targets import SoftTargets, soft_loss


def test_soft_loss_is_the_divergence_at_unknown_positions():
    torch.manual_seed(0)
    logits, wanted = torch.randn(2, 3, 5), torch.randn(2, 3, 5)
    unknown = torch.tensor([[True, False, True], [False, True, True]])
    p, q = wanted.softmax(-1), logits.softmax(-1)
    expected = (p * (p / q).log()).sum(-1)[unknown].mean()
    assert soft_loss(logits, SoftTargets.of(wanted), unknown) == pytest.approx(expected.item(), abs=2e-3)  # float16
    assert soft_loss(wanted, SoftTargets.of(wanted), unknown) == pytest.approx(0, abs=2e-3)
    few = SoftTargets.of(wanted, kept=2)
    assert few.log_probs.exp().sum(-1).allclose(torch.ones(2, 3, dtype=torch.float16), atol=2e-3)
    assert torch.equal(few.codes.long(), wanted.topk(2).indices)
