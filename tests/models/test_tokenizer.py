"""Tokenizers of both families."""

import dataclasses
import json

import pytest
import torch

from dd.errors import DDError
from dd.models.registry import build_tokenizer
from tests.helpers.small.models import make_teacher


@pytest.mark.parametrize("kind", ["llamagen", "var"])
def test_tokenizer_round_trip_and_gradients(kind):
    config = dataclasses.asdict(make_teacher(kind).tokenizer.config)
    tokenizer = build_tokenizer(kind, json.loads(json.dumps(config)))
    images = torch.rand(2, 3, tokenizer.image_size, tokenizer.image_size) * 2 - 1
    tokens = tokenizer.encode(images)
    assert tokens.shape == (2, tokenizer.groups.length)
    assert tokenizer.decode(tokenizer.codebook[tokens]).shape == images.shape
    z = tokenizer.encode_continuous(images)
    codes = tokenizer.quantise(z)[0] if kind == "llamagen" else tokenizer.quantize.quantise(z)[1][-1]
    z.retain_grad()
    codes = codes if kind == "llamagen" else z + (codes - z).detach()
    tokenizer.decode_map(codes).square().mean().backward()
    assert z.grad.abs().sum() > 0
    with pytest.raises(DDError, match=r"expected images \(B, 3, 10, 10\), got \(1, 3, 8, 8\); resize them first"):
        tokenizer.encode(torch.zeros(1, 3, 8, 8))
