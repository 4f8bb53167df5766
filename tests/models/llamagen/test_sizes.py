"""Sizes of the networks, read from nothing but their tensors."""

import pytest
import torch

from dd.models.llamagen import sizes
from tests.helpers.small.models import sizes_come_back


def test_settings_come_back_from_the_tensors():
    found, codes = sizes_come_back("llamagen", {"n_head": 3, "block_size": 25})
    assert "ffn_multiple" in found
    assert codes["codebook_size"] == 40


def test_another_network_is_told_by_the_tensor_that_it_lacks():
    with pytest.raises(KeyError, match=r"output\.weight"):
        sizes.transformer({"other": torch.zeros(1)}, {})
