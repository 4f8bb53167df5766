"""The distance during training: it is measured when it should be, and training does not notice."""

from pathlib import Path

import pytest
import torch

from dd.checkpoints.safe import load_tensors
from dd.distillation import stage
from dd.distillation.validation import Probe, open_probe
from dd.errors import DDError
from dd.metrics.classifier import ClassifierConfig, SmallClassifier
from dd.metrics.extractors import ClassifierExtractor
from dd.metrics.references import build_reference
from tests.helpers.tiny import tiny_student, tiny_teacher, write_params, write_project

PROBE = {"every": 8, "images": 20, "protocol": "fd-toy"}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DD_ROOT", str(tmp_path))
    write_project(tmp_path)
    torch.manual_seed(0)
    folder = tmp_path / "zoo" / "toy"
    SmallClassifier(ClassifierConfig(3, 6, (4, 5), (0, 0))).save(folder / "extractor.safetensors")
    images, extractor = (
        torch.randint(0, 255, (60, 3, 6, 6)).byte(),
        ClassifierExtractor(folder / "extractor.safetensors"),
    )
    build_reference(folder / "reference.safetensors", "fd-toy", extractor, [images], torch.arange(60) % 3, "test")
    return tmp_path


def train(root: Path, **distill) -> tuple[dict[str, torch.Tensor], dict[str, list[str]]]:
    """The student's weights, and the lines of every curve."""
    write_params(root, muon_lr=0.01, baseline={"steps": 4, "timesteps": [0, 2]}, **distill)
    stage.main("toy")
    folder = root / "models" / "toy"
    curves = folder / "curves" / "plots" / "metrics"
    lines = {str(file.relative_to(curves)): file.read_text().split("\n") for file in curves.rglob("*.tsv")}
    return load_tensors(folder / "student.safetensors"), lines


def test_training_does_not_notice(project: Path):
    plain, curves = train(project)
    probed, more = train(project, probe=PROBE)
    assert plain.keys() == probed.keys()
    assert all(torch.equal(plain[name], probed[name]) for name in plain)
    found = more.pop("probe/fd_20.tsv")
    assert more == curves
    assert [line.split("\t")[0] for line in found[1:-1]] == ["0", "8", "12"]  # each 8th, and the last
    assert all(float(line.split("\t")[1]) > 0 for line in found[1:-1])


def test_a_killed_run_has_the_same_curve(project: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DVC_STAGE", "distill@toy")  # otherwise a finished run is kept, and there is nothing to kill
    whole, curves = train(project, probe=PROBE)
    with monkeypatch.context() as patch:
        seen: list[int] = []

        def stop(self: Probe, student, step: int) -> dict[str, float]:
            seen.append(step)
            if step == 8:
                raise KeyboardInterrupt
            return original(self, student, step)

        original = Probe.__call__
        patch.setattr(Probe, "__call__", stop)
        with pytest.raises(KeyboardInterrupt):
            train(project, probe=PROBE)
        assert seen == [0, 4, 8]
    again, resumed = train(project, probe=PROBE)
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    assert resumed == curves


@pytest.mark.parametrize("family", ["llamagen", "var"])
def test_it_is_a_function_of_the_student(project: Path, family: str):
    teacher = tiny_teacher(family)
    probe = open_probe(teacher, 3, "fd-toy", 20, 5, 100)
    student = tiny_student(teacher, family).eval()
    before = torch.get_rng_state()
    first = probe(student, 5)
    torch.rand(3)
    torch.set_rng_state(before)
    assert probe(student, 100) == first
    assert torch.equal(torch.get_rng_state(), before)
    assert probe(student, 6) == {}
    for parameter in student.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.3)
    assert probe(student, 5) != first


def test_faults_come_before_training(project: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stage, "fit", lambda *_: pytest.fail("trained"))
    write_params(project, probe=PROBE | {"every": 6})
    with pytest.raises(DDError, match=r"probe.every must be a multiple of evaluate_every \(4\), got 6"):
        stage.main("toy")
    write_params(project, probe=PROBE | {"protocol": "fd-other"})
    with pytest.raises(DDError, match=r"no extractor at .*other.*: make it with `dvc repro zoo/dvc.yaml`"):
        stage.main("toy")
    (project / "zoo" / "toy" / "reference.safetensors").unlink()
    write_params(project, probe=PROBE)
    with pytest.raises(DDError, match="no reference for protocol fd-toy"):
        stage.main("toy")
    with pytest.raises(DDError, match="expected a teacher with classes, got one of captions: set its every to 0"):
        open_probe(tiny_teacher("var"), 0, "fd-toy", 20, 5, 100)
