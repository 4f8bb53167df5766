"""Attention against the formula, and its gradients on a CPU."""

import math

import pytest
import torch

from dd.models.attention import attend


def by_hand(q, k, v, mask=None, scale=None):
    scores = q @ k.mT * (scale or q.shape[-1] ** -0.5)
    return (scores if mask is None else scores + mask).softmax(-1) @ v


def test_it_is_the_formula():
    q, k, v = (torch.randn(2, 3, n, 4) for n in (5, 7, 7))
    mask = torch.zeros(5, 7).masked_fill(torch.rand(5, 7) < 0.3, -math.inf)
    mask[:, 0] = 0
    torch.testing.assert_close(attend(q, k, v), by_hand(q, k, v))
    torch.testing.assert_close(attend(q, k, v, mask, scale=0.7), by_hand(q, k, v, mask, 0.7))
    torch.testing.assert_close(attend(q, k[:, :, :5], v[:, :, :5], causal=True)[:, :, 0], v[:, :, 0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_flow_in_both_types(dtype):
    q = torch.randn(1, 2, 3, 8, dtype=dtype, requires_grad=True)
    k, v = (torch.randn(1, 2, 4, 8, dtype=dtype) for _ in range(2))
    mask = torch.zeros(3, 4, dtype=dtype)
    out = attend(q, k, v, mask)
    assert out.dtype == dtype
    out.float().square().sum().backward()
    expected = q.detach().float().requires_grad_()
    by_hand(expected, k.float(), v.float()).square().sum().backward()
    torch.testing.assert_close(q.grad.float(), expected.grad, atol=0.05, rtol=0.05)
