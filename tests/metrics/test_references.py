"""Extractors, images on their way to a metric, and references: what is read and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dd.errors import DDError
from dd.metrics.classifier import ClassifierConfig, SmallClassifier
from dd.metrics.extractors import ClassifierExtractor
from dd.metrics.features import MissingWeights
from dd.metrics.images import write_pngs
from dd.metrics.protocols import protocol
from dd.metrics.references import Reference, load_reference, reference_of_folder
from tests.helpers.toy_metrics import CLASSES, SIZE, TOY, N, pictures

pytestmark = pytest.mark.usefixtures("few_subsets")


def test_reference_survives_saving(reference: Reference, extractor: ClassifierExtractor):
    again = load_reference(reference.path, TOY, extractor)
    np.testing.assert_array_equal(again.gaussian.covariance, reference.gaussian.covariance)
    assert again.gaussian.count == N
    assert again.features.shape == (N, 6)
    assert again.within_class_variance == reference.within_class_variance > 0


def test_reference_made_otherwise_is_refused(folder: Path, reference: Reference, extractor: ClassifierExtractor):
    with pytest.raises(DDError, match="was made with protocol 'fd-toy', expected 'fd-other'"):
        load_reference(reference.path, protocol("fd-other"), extractor)
    torch.manual_seed(1)
    SmallClassifier(ClassifierConfig(CLASSES, SIZE, (4, 6), (0, 1))).save(folder / "other" / "extractor.safetensors")
    with pytest.raises(DDError, match=r"was made with preprocessing 'x / 127.5 - 1; features x .*use the reference of"):
        load_reference(reference.path, TOY, ClassifierExtractor(folder / "other" / "extractor.safetensors"))
    scale = extractor.preprocessing
    other = ClassifierExtractor(folder / "other" / "extractor.safetensors")
    other.preprocessing = scale
    with pytest.raises(DDError, match=r"was made with weights_sha256 \w{12}\.\.\., expected \w{12}\.\.\."):
        load_reference(reference.path, TOY, other)


def test_reference_files_of_other_kinds(tmp_path: Path, folder: Path, extractor: ClassifierExtractor):
    with pytest.raises(DDError, match=r"no reference for protocol fd-toy at .*: make it with `dvc repro zoo/dvc.yaml`"):
        load_reference(tmp_path / "no.safetensors", TOY, extractor)
    np.savez(tmp_path / "x.npz", mu=np.zeros(6), sigma=np.eye(6))
    with pytest.raises(DDError, match="says nothing about the extractor it was made by"):
        load_reference(tmp_path / "x.npz", TOY, extractor)
    with pytest.raises(DDError, match="is no reference of this program"):
        load_reference(folder / "extractor.safetensors", TOY, extractor)


def test_adm_reference(tmp_path: Path, extractor: ClassifierExtractor):
    images, _ = pictures(30)
    arrays = {"mu": np.zeros(6), "sigma": np.eye(6), "mu_s": np.zeros(4), "sigma_s": np.eye(4)}
    np.savez(tmp_path / "adm.npz", arr_0=images.permute(0, 2, 3, 1).numpy(), **arrays)
    found = load_reference(tmp_path / "adm.npz", protocol("adm"), extractor)
    torch.testing.assert_close(found.features, extractor(images).features)
    assert found.spatial is not None
    again = load_reference(tmp_path / "adm.npz", protocol("adm"), extractor)  # from the kept features
    assert torch.equal(again.features, found.features)
    np.savez(tmp_path / "other.npz", arr_0=np.zeros((2, 4, 4, 3), np.uint8))
    with pytest.raises(DDError, match="lacks mu and sigma"):
        load_reference(tmp_path / "other.npz", protocol("adm"), extractor)
    np.savez(tmp_path / "wide.npz", mu=np.zeros(7), sigma=np.eye(7))
    with pytest.raises(DDError, match=r"holds statistics of 7 features, extractor .* gives 6"):
        load_reference(tmp_path / "wide.npz", protocol("adm"), extractor)
    np.savez(tmp_path / "nan.npz", mu=np.full(6, np.nan), sigma=np.eye(6))
    with pytest.raises(DDError, match="NaN or infinite statistics"):
        load_reference(tmp_path / "nan.npz", protocol("adm"), extractor)


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_statistic_of_dd(tmp_path: Path, extractor: ClassifierExtractor, kind):
    torch.save({"m": kind(np.arange(6.0)), "s": kind(np.eye(6))}, tmp_path / "statistic.pth")
    found = load_reference(tmp_path / "statistic.pth", protocol("dd"), extractor)
    assert found.gaussian.mean.tolist() == [0, 1, 2, 3, 4, 5]
    torch.save({"mean": 1}, tmp_path / "other.pth")
    with pytest.raises(DDError, match="is no statistics file with m and s"):
        load_reference(tmp_path / "other.pth", protocol("dd"), extractor)


def test_a_reference_of_a_folder_of_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What the command writes is read by the evaluation of its protocol, with the classes of the folders in it."""
    monkeypatch.setenv("DD_ROOT", str(tmp_path))
    weights = tmp_path / "zoo" / "toy" / "extractor.safetensors"
    SmallClassifier(ClassifierConfig(3, 4, (4, 5), (0, 0))).save(weights)
    for label in ("cats", "dogs"):
        images = torch.randint(0, 255, (6, 3, 4, 4), dtype=torch.uint8)
        write_pngs(tmp_path / "real" / label, images)
    out = tmp_path / "references" / "mine.safetensors"
    made = reference_of_folder(out, "fd-toy", tmp_path / "real", "a test")
    assert (made.gaussian.count, made.classes) == (12, 2)
    assert len(set(made.labels[:6].tolist())) == 2, "the classes come one after the other"
    read = load_reference(out, protocol("fd-toy"), ClassifierExtractor(weights))
    assert np.allclose(read.gaussian.mean, made.gaussian.mean)
    with pytest.raises(DDError, match=r"expected a reference that ends in \.safetensors, got .*x\.pth"):
        reference_of_folder(tmp_path / "x.pth", "fd-toy", tmp_path / "real", "a test")
    with pytest.raises(DDError, match=r"expected at least 2 images in .*none, found 0"):
        reference_of_folder(out, "fd-toy", tmp_path / "none", "a test")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(MissingWeights, match="dd-cli zoo fetch inception"):
        reference_of_folder(out, "dd", tmp_path / "real", "a test")
    assert load_reference(out, protocol("fd-toy"), ClassifierExtractor(weights)).sha256 == made.sha256
