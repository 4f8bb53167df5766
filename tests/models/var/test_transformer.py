"""VAR's transformer: what a position sees, attention on unit vectors, and sizes that are refused."""

import pytest
import torch

from dd.errors import DDError
from dd.models.var.transformer import SelfAttention, VARConfig, normalised, visible_bias


def test_a_scale_sees_itself_and_the_scales_before_it():
    levels = torch.tensor([0, 1, 1, 2])
    bias = visible_bias(levels, strict=False)
    assert (bias == 0).tolist() == [[True] + [False] * 3, *[[True] * 3 + [False]] * 2, [True] * 4]


def test_attention_does_not_depend_on_the_length_of_queries_and_keys():
    torch.manual_seed(0)
    layer = SelfAttention(8, 2)
    x = torch.randn(2, 5, 8)
    before = layer(x, layer.constants(), None, None)
    with torch.no_grad():
        layer.mat_qkv.weight[:16] *= 7  # queries and keys, not values
    torch.testing.assert_close(layer(x, layer.constants(), None, None), before)


def test_rows_of_length_one_with_and_without_gradients():
    x = torch.randn(3, 4)
    unit = normalised(x.clone().requires_grad_())
    torch.testing.assert_close(unit.norm(dim=-1), torch.ones(3))
    with torch.no_grad():
        torch.testing.assert_close(normalised(x.clone()), unit)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"embed_dim": 25}, "embed_dim: expected a multiple of num_heads 3, got 25"),
        ({"patch_nums": (2, 3)}, r"patch_nums: expected the first scale to be 1 \(the class token\), got \(2, 3\)"),
    ],
)
def test_sizes_that_cannot_be(changes, said):
    with pytest.raises(DDError, match=said):
        VARConfig(**{"depth": 1, "embed_dim": 24, "num_heads": 3} | changes)
