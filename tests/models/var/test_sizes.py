"""Sizes of the networks, read from nothing but their tensors."""

import pytest
import torch

from dd.models.var import sizes
from tests.helpers.small.models import sizes_come_back


def test_settings_come_back_from_the_tensors():
    found, codes = sizes_come_back("var", {})
    assert "patch_nums" in found
    assert codes["codebook_size"] == 40


def test_another_network_is_told_by_the_tensor_that_it_lacks():
    with pytest.raises(KeyError, match=r"class_emb\.weight"):
        sizes.transformer({"other": torch.zeros(1)}, {})
