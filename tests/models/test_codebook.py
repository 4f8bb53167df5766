"""The nearest code, and codes that are replaced."""

import pytest
import torch

from dd.checkpoints.teachers import load_teacher
from dd.errors import DDError
from dd.models.codebook import nearest_code, replace_some
from zoo import settings


def test_nearest_code_in_small_pieces():
    codebook, x = torch.randn(50, 6), torch.randn(4, 9, 6)
    brute = (x[:, :, None] - codebook).square().sum(-1).argmin(-1)
    assert torch.equal(nearest_code(x, codebook), brute)
    assert torch.equal(nearest_code(x, codebook, max_scores=120), brute)
    assert nearest_code(x[:, :0], codebook).shape == (4, 0)
    assert nearest_code(torch.ones(1, 2), torch.ones(3, 2)).item() == 0
    with pytest.raises(DDError, match=r"expected vectors of width 6 .* got 5"):
        nearest_code(x[..., :5], codebook)


def test_a_share_of_the_codes_is_replaced_by_others_of_the_batch():
    codes = torch.randn(4, 64, 3, requires_grad=True)
    wrong = replace_some(codes, 0.25, torch.Generator().manual_seed(0))
    same = (wrong == codes).all(2)
    assert 0.65 < same.float().mean() < 0.85
    known = {tuple(row) for row in codes.detach().flatten(0, 1).tolist()}
    assert {tuple(row) for row in wrong.detach().flatten(0, 1).tolist()} <= known
    wrong.sum().backward()  # what is replaced learns nothing
    assert torch.equal(codes.grad[..., 0] != 0, same)
    assert settings.TokenizerSettings.model_fields["replaced"].default == 0


@pytest.mark.parametrize("name", ["llamagen-fashion", "var-fashion"])
def test_a_decoder_is_trained_with_wrong_codes(name):
    tokenizer = load_teacher(name).tokenizer
    images = torch.rand(4, 3, tokenizer.image_size, tokenizer.image_size) * 2 - 1
    right = tokenizer.training_pass(images, True, 0.0, torch.Generator().manual_seed(0))
    wrong = tokenizer.training_pass(images, True, 0.4, torch.Generator().manual_seed(0))
    assert torch.equal(right.tokens, wrong.tokens)  # what the encoder and the codes learn from stays
    assert torch.equal(right.vectors, wrong.vectors)
    assert (right.images - wrong.images).abs().mean() > 0.01
    assert torch.equal(right.images, tokenizer.training_pass(images).images)
