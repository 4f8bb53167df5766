"""A batch of pairs."""

import torch

from dd.distillation.task import Pairs


def test_a_slice_takes_all_parts_and_indices_only_where_they_are_known():
    noise, tokens, labels = torch.randn(5, 3, 2), torch.arange(15).view(5, 3), torch.arange(5)
    some = Pairs(noise, tokens, labels, labels + 100).take(slice(1, 3))
    assert len(some) == 2
    assert torch.equal(some.noise, noise[1:3])
    assert some.tokens.tolist() == [[3, 4, 5], [6, 7, 8]]
    assert some.condition.tolist() == [1, 2]
    assert some.indices.tolist() == [101, 102]
    assert Pairs(noise, tokens, labels).take(slice(2)).indices is None
