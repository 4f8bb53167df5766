"""The small classifier whose features are compared."""

import json
from pathlib import Path

import pytest
import torch

from dd.errors import DDError
from dd.metrics.classifier import ClassifierConfig, SmallClassifier
from dd.metrics.extractors import ClassifierExtractor
from tests.helpers.toy_metrics import SIZE, pictures


def test_classifier_survives_saving(folder: Path, extractor: ClassifierExtractor):
    again = SmallClassifier.load(folder / "extractor.safetensors")
    x = torch.randn(5, 3, SIZE, SIZE)
    assert torch.equal(again(x).features, extractor.model(x).features)
    assert [tuple(m.shape) for m in again.stages(x)] == [(5, 4, 8, 8), (5, 6, 4, 4)]
    assert torch.equal(again.perceptual_distance(x, x), torch.zeros(5))
    assert (again.perceptual_distance(x, x.flip(0))[0] > 0).all()


def test_calibrated_features_have_root_mean_square_one(extractor: ClassifierExtractor):
    assert extractor(pictures(64)[0]).features.square().mean().sqrt() == pytest.approx(1, rel=1e-3)


def test_features_do_not_depend_on_the_batch(extractor: ClassifierExtractor):
    images, _ = pictures(10)
    one = torch.cat([extractor(images[i : i + 1]).features for i in range(10)])
    torch.testing.assert_close(extractor(images).features, one, atol=1e-5, rtol=1e-5)


def test_foreign_classifier_files_are_refused(folder: Path, tmp_path: Path):
    with pytest.raises(DDError, match=r"no file .*extractor.safetensors"):
        SmallClassifier.load(tmp_path / "extractor.safetensors")
    (tmp_path / "a.safetensors").write_bytes((folder / "extractor.safetensors").read_bytes()[:500])
    (tmp_path / "a.json").write_text((folder / "extractor.json").read_text())
    with pytest.raises(DDError, match=r"a\.safetensors is no classifier of this program"):
        SmallClassifier.load(tmp_path / "a.safetensors")
    config = json.loads((folder / "extractor.json").read_text())
    config["config"]["channels"] = [4, 5]
    (tmp_path / "b.safetensors").write_bytes((folder / "extractor.safetensors").read_bytes())
    (tmp_path / "b.json").write_text(json.dumps(config))
    with pytest.raises(DDError, match="size mismatch"):
        SmallClassifier.load(tmp_path / "b.safetensors")
    with pytest.raises(DDError, match="one number of blocks for each stage"):
        ClassifierConfig(channels=(4,), blocks=(0, 1))
