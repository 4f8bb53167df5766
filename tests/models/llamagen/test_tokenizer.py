"""Options of ours for LlamaGen's tokenizer: pixels in patches, and a codebook that starts from the data."""

import pytest
import torch

from dd.errors import DDError
from dd.models.registry import build_tokenizer
from tests.helpers.tiny_text import CODES

SCALES = {"codebook_size": 16, "codebook_dim": 4, "ch": 32, "ch_mult": [1, 1], "patch_nums": [1, 2]}


def test_patches():
    plain, patched = build_tokenizer("llamagen", CODES), build_tokenizer("llamagen", {**CODES, "patch": 2})
    assert (plain.image_size, patched.image_size) == (4, 8)
    images = torch.randn(2, 3, 8, 8)
    tokens = patched.encode(images)
    assert tokens.shape == (2, 4)
    assert patched.decode(patched.codebook[tokens]).shape == images.shape


def test_a_start_from_the_data_keeps_its_principal_components():
    torch.manual_seed(0)
    made = build_tokenizer("llamagen", {**CODES, "codebook_dim": 6, "patch": 2, "shortcut": True})
    colours = torch.rand(300, 3, 2, 2) * torch.tensor([0.2, 0.5, 1.0]).view(3, 1, 1)
    images = torch.nn.functional.interpolate(colours, scale_factor=4)  # every patch is plain: 3 numbers tell it all
    made.start_from_data(images)
    found = made.shortcut.encode(images).detach().permute(1, 0, 2, 3).flatten(1)
    torch.testing.assert_close(torch.cov(found)[3:, 3:] * 6, torch.eye(3), atol=1e-2, rtol=0)
    torch.testing.assert_close(made.shortcut.decode(made.shortcut.encode(images)), images, atol=1e-3, rtol=0)
    for wrong in (build_tokenizer("var", SCALES), build_tokenizer("llamagen", CODES)):
        with pytest.raises(
            DDError,
            match=r"data_start: .* has nothing to start from data",
        ):
            wrong.start_from_data(images)


def test_without_the_options_the_names_are_official():
    official = build_tokenizer("llamagen", CODES).state_dict()
    ours = build_tokenizer("llamagen", {**CODES, "shortcut": True}).state_dict()
    more = {f"shortcut.{layer}.{part}" for layer in ("down", "up") for part in ("weight", "bias")}
    assert ours.keys() - official.keys() == more


def test_the_first_steps_decode_the_vectors_themselves():
    torch.manual_seed(0)
    made = build_tokenizer("llamagen", {**CODES, "shortcut": True})
    images = torch.randn(2, 3, 4, 4)
    vectors = torch.nn.functional.normalize(made.encode_continuous(images), dim=1)
    codes = made.to_map(made.codebook[made.encode(images)])
    free, fixed = (made.training_pass(images, quantised).images for quantised in (False, True))
    torch.testing.assert_close(free, made.decode_map(vectors))
    torch.testing.assert_close(fixed, made.decode_map(codes))
