"""LPIPS: where its weights lie, and what is said without them (tests/checkpoints/test_assets.py: how to get them)."""

import pytest
import torch

from dd.metrics import perceptual


def test_weights_lie_where_torchvision_looks(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert perceptual.vgg_path() == tmp_path / "checkpoints" / "vgg16-397923af.pth"
    with pytest.raises(
        perceptual.MissingWeights, match=r"^VGG16's weights, which LPIPS needs, are not on this machine"
    ):
        perceptual.open_lpips()
