"""`dd-cli evaluate`: one set of images by several libraries, each with its own reference; small networks throughout."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from dd.checkpoints.zoo import Entry, FileInfo
from dd.cli.main import app
from dd.cli.measure.evaluate import lines
from dd.config import EvaluateConfig, Experiment, StudentSampler, TeacherSampler
from dd.errors import DDError
from dd.evaluation import measure, side_by_side
from dd.evaluation.side_by_side import Published, evaluate_experiment, evaluate_images, published
from dd.metrics.features import Extractor, Features
from dd.metrics.images import write_npz, write_pngs
from dd.metrics.protocols import ADM, CLEAN, DD
from dd.metrics.references import build_reference
from tests.helpers.toy_metrics import pictures
from tests.helpers.toy_project import make_project

WIDTH = 6


class SmallNet(Extractor):
    """Stands for an Inception network: fixed random features of 8 x 8 pixels, and logits."""

    preprocessing = "x / 255"
    feature_width = WIDTH
    image_size = 8

    def __init__(self, kind: str) -> None:
        self.name, self.weights_sha256, self.device = kind, kind, torch.device("cpu")
        generator = torch.Generator().manual_seed(len(kind))
        self.weight = torch.randn(3 * 8 * 8, WIDTH, generator=generator) / 8

    def extract(self, images: torch.Tensor) -> Features:
        features = images.float().flatten(1) / 255 @ self.weight
        return Features(features, features if self.name == "inception-tf" else None)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with references for adm and dd, and none for clean."""
    monkeypatch.setenv("DD_ROOT", str(tmp_path))
    monkeypatch.setattr(measure, "open_extractor", lambda kind, path, device: SmallNet(kind))
    real = pictures(300, seed=5)
    reference = build_reference(
        tmp_path / "adm.safetensors", "adm", SmallNet("inception-tf"), real[0].split(100), real[1], "test"
    )
    stored = {"mu": reference.gaussian.mean, "sigma": reference.gaussian.covariance}
    (tmp_path / "references").mkdir()
    np.savez(tmp_path / ADM.reference_file, **stored)
    torch.save({"m": stored["mu"], "s": stored["sigma"]}, tmp_path / DD.reference_file)
    return tmp_path


@pytest.fixture
def samples(project: Path) -> Path:
    path = project / "samples.npz"
    write_npz(path, pictures(60, seed=9)[0].split(25), 60)
    return path


def test_figures_stand_side_by_side(project: Path, samples: Path):
    report = evaluate_images(samples, "adm", project / "work")
    by = {figure.by: figure for figure in report.figures}
    ours, theirs, pytorch, clean = by.values()
    assert [figure.metric for figure in by.values()] == ["FD-adm, N=60"] * 2 + ["FID-dd, N=60", "FID-clean, N=60"]
    assert ours.value == pytest.approx(theirs.value, rel=1e-4)  # one set of features, two libraries' formulas
    assert abs(pytorch.value - ours.value) > 0.01  # another network
    assert clean.value is None
    assert "no reference for protocol clean" in clean.missing
    assert "dd-cli reference build clean IMAGENET_FOLDER" in clean.missing
    assert report.row["inception_score"] > 1
    text = "\n".join(lines(report))
    assert f"FD-adm, N=60   {ours.value:.3f} ±" in text
    assert "not measured  clean-fid's network and resize (no reference for protocol clean" in text


def test_a_folder_of_pngs_gives_the_same(project: Path, samples: Path):
    write_pngs(project / "png", pictures(60, seed=9)[0])
    from_folder = evaluate_images(project / "png", "dd", project / "work")
    from_npz = evaluate_images(samples, "dd", project / "work")
    assert from_folder.row == from_npz.row
    assert from_folder.figures[0].metric == "FID-dd, N=60"


def test_clean_fid_with_its_reference(project: Path, samples: Path):
    images, labels = pictures(300, seed=5)
    build_reference(
        project / CLEAN.reference_file, "clean", SmallNet("inception-clean"), images.split(100), labels, "test"
    )
    report = evaluate_images(samples, "clean", project / "work")
    assert report.figures[0].metric == "FID-clean, N=60"
    assert report.figures[0].value > 0
    assert report.row["kid"] is not None


def test_wrong_samples_are_refused(project: Path):
    np.savez(project / "float.npz", arr_0=np.zeros((4, 8, 8, 3)))
    with pytest.raises(DDError, match=r"expected uint8 images .* got float64 .*: see 'dd-cli check-npz"):
        evaluate_images(project / "float.npz", "adm", project / "work")
    (project / ADM.reference_file).unlink()
    np.savez(project / "good.npz", arr_0=np.zeros((4, 8, 8, 3), dtype=np.uint8))
    with pytest.raises(DDError, match=r"no reference for protocol adm at .*: fetch https"):
        evaluate_images(project / "good.npz", "adm", project / "work")


def test_an_experiment_in_one_command(project: Path, monkeypatch: pytest.MonkeyPatch):
    make_project(project)
    with pytest.raises(DDError, match=r"toy: protocol adm measures images of 256 x 256, its teacher draws 6 x 6"):
        evaluate_experiment("toy", "adm", count=10)
    small = SmallNet("inception-tf")
    small.image_size, small.weight = 6, small.weight[: 3 * 36]
    monkeypatch.setattr(measure, "open_extractor", lambda kind, path, device: small)
    images, labels = pictures(300, seed=5)
    build_reference(
        project / "zoo" / "toy" / "reference.safetensors", "fd-toy", small, images[..., :6, :6].split(100), labels, ""
    )
    done = CliRunner().invoke(
        app, ["evaluate", "toy", "--protocol", "fd-toy", "-n", "20", "--keep", str(project / "kept.npz"), "--json"]
    )
    assert done.exit_code == 0, done.exception
    found = json.loads(done.stdout[done.stdout.index("{") :])
    assert found["what"] == "toy, teacher"
    assert found["images"] == len(np.load(project / "kept.npz")["arr_0"]) == 20
    assert found["published"] is None
    assert not list((project / "work" / "evaluate").glob("*.npz"))


def entry(**published) -> dict[str, Entry]:
    facts = {"licence": "MIT", "source": "made in a test", "published": published}
    return {"known": Entry(name="known", kind="teacher", file=FileInfo(path="x"), **facts)}


def test_published_numbers_and_their_tolerance(monkeypatch: pytest.MonkeyPatch):
    experiment = Experiment.model_construct(
        student="known", teacher=type("T", (), {"name": "known"})(), evaluate=EvaluateConfig.model_construct()
    )
    teacher, student = TeacherSampler(name="teacher"), StudentSampler(name="dd", steps=(0, 5))
    monkeypatch.setattr(side_by_side.zoo, "entries", lambda: entry(fid=3.55, protocol="adm"))
    assert published(experiment, teacher, "adm", 50_000, 3.59) == Published(3.55, pytest.approx(0.04), True)
    assert published(experiment, teacher, "adm", 50_000, 3.61).within is False
    assert published(experiment, teacher, "adm", 10_000, 3.59) == Published(3.55, None, None)
    assert published(experiment, teacher, "dd", 50_000, 4.19) is None  # another protocol: never beside it
    rows = [{"steps": [0], "fid": 9.94}, {"steps": [0, 5], "fid": 7.82}]
    monkeypatch.setattr(side_by_side.zoo, "entries", lambda: entry(protocol="dd", sampling=rows))
    assert published(experiment, student, "dd", 50_000, 7.8).value == 7.82
    assert published(experiment, StudentSampler(name="dd", steps=(0, 3)), "dd", 50_000, 7.8) is None
