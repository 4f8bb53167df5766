"""Janus's tokenizer against transformers'."""

import pytest
import torch

from dd.errors import DDError
from dd.models.janus.tokenizer import JanusTokenizer, JanusVQConfig
from tests.parity.janus import (
    CODES,
    SIDE,
    V,
    random_tokens,
)


def test_images_are_those_of_transformers(theirs, teacher):
    tokens = random_tokens(2, 2)
    expected = theirs.decode_image_tokens(tokens).permute(0, 3, 1, 2)
    assert torch.equal(teacher.decode(teacher.codebook[tokens]), expected)
    assert expected.shape == (2, 3, teacher.tokenizer.image_size, teacher.tokenizer.image_size)
    assert expected.std() > 0.01


def test_encoding_finds_the_codes_of_a_map(teacher, monkeypatch):
    """Latents of any length are compared on the unit sphere, as Janus's tokenizer was trained."""
    tokens = random_tokens(4, 2)
    latents = 3.7 * teacher.codebook[tokens].transpose(1, 2).unflatten(2, (SIDE, SIDE))
    monkeypatch.setattr(teacher.tokenizer.quant_conv, "forward", lambda x: latents)
    size = teacher.tokenizer.image_size
    assert torch.equal(teacher.tokenizer.encode(torch.zeros(2, 3, size, size)), tokens)
    with pytest.raises(DDError, match=rf"expected images \(B, 3, {size}, {size}\), got \(2, 3, 4, 4\); resize"):
        teacher.tokenizer.encode(torch.zeros(2, 3, 4, 4))


def test_images_pass_gradients_to_codes(teacher):
    """What the perceptual term needs: transformers' decoder multiplies in place."""
    codes = teacher.codebook[torch.arange(SIDE**2) % V][None].double().requires_grad_()
    tokenizer = JanusTokenizer(JanusVQConfig(**CODES)).double()
    direction = torch.randn_like(codes)
    tokenizer.decode(codes).square().mean().backward()
    step = 1e-6
    with torch.no_grad():
        up, down = (tokenizer.decode(codes + sign * step * direction).square().mean() for sign in (1, -1))
    torch.testing.assert_close((codes.grad * direction).sum(), (up - down) / (2 * step), rtol=1e-4, atol=1e-9)
