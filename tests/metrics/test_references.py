"""Extractors, images on their way to a metric, and references: what is read and what is refused."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from dd.errors import DDError
from dd.metrics.classifier import ClassifierConfig, SmallClassifier
from dd.metrics.extractors import ClassifierExtractor, TorchScriptExtractor, open_extractor
from dd.metrics.features import MissingWeights
from dd.metrics.images import RgbBatches, image_files, load_npz, read_images, to_uint8, write_npz, write_pngs
from dd.metrics.protocols import protocol
from dd.metrics.references import Reference, load_reference, reference_of_folder
from tests.helpers.toy_metrics import CLASSES, SIZE, TOY, N, pictures

pytestmark = pytest.mark.usefixtures("few_subsets")


# ------------------------------------------------------------------------------------------------------ extractors


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


# ---------------------------------------------------------------------------------------------------------- images


def test_uint8_rounds_and_clamps():
    x = torch.tensor([-1.2, -1.0, 0.0, 0.999, 1.0, 3.0]).view(1, 1, 1, 6)
    assert to_uint8(x).flatten().tolist() == [0, 0, 128, 255, 255, 255]


def test_nan_images_are_refused():
    x = torch.zeros(4, 3, 2, 2)
    x[2, 0, 1, 1] = float("nan")
    with pytest.raises(DDError, match=r"NaN or infinity in 1 of 4 \(first: image 2"):
        to_uint8(x)


def test_greyscale_is_converted_and_said(caplog: pytest.LogCaptureFixture):
    check = RgbBatches()
    with caplog.at_level(logging.WARNING):
        out = check(torch.zeros(2, 1, 4, 4))
        check(torch.zeros(2, 1, 4, 4))
    assert out.shape == (2, 3, 4, 4)
    assert [r.message for r in caplog.records] == ["greyscale images were converted to RGB by repeating their channel"]
    with pytest.raises(DDError, match="expected images of 4 x 4, got 5 x 4"):
        check(torch.zeros(2, 3, 5, 4))
    with pytest.raises(DDError, match=r"expected images of shape \(B, 3, H, W\)"):
        check(torch.zeros(2, 4, 4, 4))


def test_png_folder_round_trip_and_its_faults(tmp_path: Path):
    images, _ = pictures(5)
    write_pngs(tmp_path / "a", images)
    assert torch.equal(torch.cat(list(read_images(image_files(tmp_path / "a"), batch=2))), images)
    write_pngs(tmp_path / "a", torch.zeros(1, 3, 9, 8, dtype=torch.uint8), start=7)
    with pytest.raises(DDError, match=r"one size, got 8 x 8 and then 8 x 9 \(.*000007.png\)"):
        list(read_images(image_files(tmp_path / "a")))
    (tmp_path / "a" / "000002.png").write_bytes(b"\x89PNG broken")
    with pytest.raises(DDError, match=r"000002.png is not a readable image"):
        list(read_images(image_files(tmp_path / "a")))
    with pytest.raises(DDError, match=r"expected at least 2 images in .*, found 0"):
        image_files(tmp_path / "empty")


def test_adm_npz_is_what_numpy_reads(tmp_path: Path):
    images, _ = pictures(7)
    assert write_npz(tmp_path / "s.npz", images.split(3), 6) == 6
    array = np.load(tmp_path / "s.npz")["arr_0"]
    assert array.dtype == np.uint8
    assert (array == images[:6].permute(0, 2, 3, 1).numpy()).all()
    with pytest.raises(DDError, match=r"expected 9 images for t.npz, got 7"):
        write_npz(tmp_path / "t.npz", images.split(3), 9)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.npz"]


def test_truncated_npz_is_refused(tmp_path: Path):
    write_npz(tmp_path / "s.npz", [pictures(20)[0]], 20)
    whole = (tmp_path / "s.npz").read_bytes()
    for end in (0, 10, len(whole) // 2, len(whole) - 3):
        (tmp_path / "cut.npz").write_bytes(whole[:end])
        with pytest.raises(DDError, match=r"cut.npz is truncated or no npz"):
            load_npz(tmp_path / "cut.npz")
    with pytest.raises(DDError, match="expected an npz file at"):
        load_npz(tmp_path / "none.npz")


# ------------------------------------------------------------------------------------------------------ references


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


def test_metric_names_never_mix():
    names = {protocol(p).metric_name(n) for p in ("adm", "dd", "fd-fashion") for n in (50_000, 10_000, 2_500)}
    assert names == {
        "FID",
        "FD-adm, N=10k",
        "FD-adm, N=2500",
        "FID-dd",
        "FID-dd, N=10k",
        "FID-dd, N=2500",
        "FD-fashion, N=50k",
        "FD-fashion",
        "FD-fashion, N=2500",
    }
    with pytest.raises(DDError, match=r"no protocol 'fid': expected adm, dd, clean or fd-<dataset>"):
        protocol("fid")


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
