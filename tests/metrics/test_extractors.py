"""Extractors of features."""

from pathlib import Path

import pytest
import torch

from dd.errors import DDError
from dd.metrics.extractors import ClassifierExtractor, TorchScriptExtractor, open_extractor
from dd.metrics.features import MissingWeights
from tests.helpers.toy_metrics import SIZE, pictures


def test_torchscript_equals_the_module(folder: Path, extractor: ClassifierExtractor, tmp_path: Path):
    script = torch.jit.trace(extractor.model, torch.zeros(2, 3, SIZE, SIZE))
    torch.jit.save(script, tmp_path / "net.pt")
    other = TorchScriptExtractor(tmp_path / "net.pt", SIZE)
    images, _ = pictures(12)
    torch.testing.assert_close(other(images).features, extractor(images).features)
    torch.testing.assert_close(other(images).logits, extractor(images).logits)
    assert other.feature_width == 6
    (tmp_path / "bad.pt").write_bytes(b"no program")
    with pytest.raises(DDError, match="is no TorchScript file"):
        TorchScriptExtractor(tmp_path / "bad.pt", SIZE)


def test_extractors_refuse_other_images(extractor: ClassifierExtractor):
    with pytest.raises(DDError, match="expects images of 8 x 8, got 9 x 9"):
        extractor(torch.zeros(2, 3, 9, 9, dtype=torch.uint8))
    with pytest.raises(DDError, match="expected uint8 images"):
        extractor(torch.zeros(2, 3, 8, 8))


def test_unknown_and_missing_extractors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(DDError, match="no extractor of kind 'vgg'; there are classifier, torchscript, inception-tf"):
        open_extractor("vgg", None)
    for kind in ("inception-tf", "inception-pytorch"):
        with pytest.raises(MissingWeights, match=r"fetch https://.*6726825d\.pth and place it at"):
            open_extractor(kind, None)
    with pytest.raises(MissingWeights, match=r"no Inception weights at .*x\.pt: fetch https"):
        open_extractor("inception-clean", tmp_path / "x.pt")
