"""Stage evaluate on a tiny teacher and student: rows, their ratios, figures, refusals; and the export of samples."""

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dd import config
from dd.errors import DDError
from dd.evaluation import stage as evaluate
from dd.evaluation.export import export
from dd.evaluation.rows import COLUMNS
from dd.metrics.classifier import ClassifierConfig, SmallClassifier
from dd.metrics.extractors import ClassifierExtractor
from dd.metrics.images import image_files
from dd.metrics.protocols import protocol
from dd.metrics.references import build_reference
from dd.sampling.experiment import open_image_sampler
from dd.sampling.image_sampler import sampler_label
from dd.system import machine
from dd.system.git import revision
from tests.helpers.small.evaluation import SAMPLERS, SIZE, N, write_params


def test_every_sampler_is_a_whole_row(project: Path):
    assert evaluate.main("toy") == f"wrote results/toy: 8 rows, {N} images each"
    folder = project / "results" / "toy"
    rows = {row["label"]: row for row in json.loads((folder / "rows.json").read_text())["rows"]}
    assert list(rows) == [
        "real",
        "reconstruction",
        "dd 0",
        "dd 0,2",
        "teacher",
        "dd+teacher 0,3 from 1",
        "skip-1",
        "onestep*",
    ]
    for label, row in rows.items():
        assert set(COLUMNS) <= set(row)
        assert row["metric"] == f"FD-toy, N={N}"
        assert row["value"] >= 0
        assert row["missing"] == {}, label
        assert (row["seconds_per_image"] is None) == (label in ("real", "reconstruction"))
        assert (row["student_sha256"] is not None) == label.startswith("dd")
        assert len(row["extractor_sha256"]) == len(row["reference_sha256"]) == 64
        for key in ("timing", "cpu", "latency_seconds", "latency_speedup"):
            assert (row[key] is None) == (label in ("real", "reconstruction")), key
        assert (row["quality_ratio_error"] is None) == (label == "teacher")
    assert rows["dd 0"]["timing"].startswith(("batch 40, float32, ", "batch 40, bfloat16, "))
    assert [row["evaluations"] for row in rows.values()] == [None, None, 1, 2, 4, 4, 4, 1]
    assert rows["teacher"]["quality_ratio"] == rows["teacher"]["speedup"] == rows["teacher"]["latency_speedup"] == 1
    latencies = [rows[label]["latency_seconds"] for label in ("teacher", "dd 0")]
    assert rows["dd 0"]["latency_speedup"] == latencies[0] / latencies[1]
    assert rows["dd 0"]["cpu"] == machine.describe()
    assert rows["real"]["value"] == pytest.approx(0, abs=1e-6)
    assert rows["teacher"]["paired_distance"] is None
    assert rows["dd+teacher 0,3 from 1"]["paired_distance"] is not None
    assert {p.name for p in folder.iterdir()} == {
        "rows.json",
        "metrics.json",
        "samples.png",
        "tiles.json",
        "tiles.webp",
        "quality.png",
        "quality.svg",
    }
    assert json.loads((folder / "metrics.json").read_text())["dd 0"]["value"] == pytest.approx(
        rows["dd 0"]["value"], abs=1e-6
    )


def test_the_same_run_gives_the_same_numbers(project: Path):
    write_params(project, samplers=[SAMPLERS[1], SAMPLERS[3], SAMPLERS[7]])
    found = []
    for _ in range(2):
        evaluate.main("toy")
        rows = json.loads((project / "results" / "toy" / "rows.json").read_text())["rows"]
        found.append([(row["value"], row["kid"], row["precision"], row["diversity"]) for row in rows])
    assert found[0] == found[1]


def test_missing_networks_and_images_leave_rows_that_say_so(project: Path):
    (project / "models" / "toy" / "baseline" / "student.json").unlink()
    (project / "models" / "toy" / "student.json").unlink()
    (project / "zoo" / "toy" / "images.npz").unlink()
    (project / "zoo" / "toy" / "extractor.safetensors").unlink()
    with pytest.raises(DDError, match=r"cannot be measured: no extractor at .*evaluate.allow_missing: \[classifier\]"):
        evaluate.main("toy")
    write_params(project, allow_missing=["classifier"])
    evaluate.main("toy")
    rows = {row["label"]: row for row in json.loads((project / "results/toy/rows.json").read_text())["rows"]}
    assert all(row["value"] is None for row in rows.values())
    assert rows["dd 0"]["missing"]["value"] == "there is no distilled student: run stage 'distill'"
    assert "distill.baseline.steps" in rows["skip-1"]["missing"]["value"]
    assert rows["real"]["missing"]["value"] == f"needs {N} training images: place them as zoo/toy/images.npz"
    assert "no extractor at" in rows["teacher"]["missing"]["value"]
    assert rows["teacher"]["seconds_per_image"] > 0


def test_faults_come_before_the_first_image(project: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        "dd.sampling.image_sampler.ImageSampler.codes", lambda *a, **k: pytest.fail("an image was drawn")
    )
    write_params(project, seed=0)
    with pytest.raises(DDError, match=r"expected evaluate.seed to differ from trajectories.seed, both are 0"):
        evaluate.main("toy")
    write_params(project, samplers=[{"name": "dd", "steps": [0, 4]}])
    with pytest.raises(DDError, match="stay below the teacher's 4 groups"):
        evaluate.main("toy")
    write_params(project, samplers=[{"name": "dd", "steps": [0], "split": 5}])
    with pytest.raises(DDError, match=r"split must lie in 0\.\.4 \(the teacher's groups\), got 5"):
        evaluate.main("toy")
    write_params(project, samplers=[{"name": "skip", "n": 4}])
    with pytest.raises(DDError, match=r"skip: n must lie in 1\.\.3"):
        evaluate.main("toy")
    write_params(project, samplers=[{"name": "dd+teacher", "steps": [0, 2], "teacher_start": 2}])
    with pytest.raises(DDError, match=r"teacher_start must lie in 0\.\.1"):
        evaluate.main("toy")
    write_params(project, reference=str(project / "none.safetensors"))
    with pytest.raises(DDError, match="no reference for protocol fd-toy"):
        evaluate.main("toy")
    write_params(project)
    extractor = ClassifierExtractor(project / "zoo" / "toy" / "extractor.safetensors")
    pictures = [torch.randint(0, 255, (N, 3, SIZE, SIZE), dtype=torch.uint8)]
    build_reference(project / "zoo/toy/reference.safetensors", "fd-toy", extractor, pictures, torch.arange(N) % 2, "t")
    with pytest.raises(DDError, match="toy: the reference of protocol fd-toy has 2 classes, teacher tiny 3: name the"):
        evaluate.main("toy")
    SmallClassifier(ClassifierConfig(3, 6, (4, 5), (0, 0))).save(project / "zoo" / "toy" / "extractor.safetensors")
    extractor = ClassifierExtractor(project / "zoo" / "toy" / "extractor.safetensors")
    pictures = [torch.randint(0, 255, (N, 3, 6, 6), dtype=torch.uint8)]
    build_reference(project / "zoo/toy/reference.safetensors", "fd-toy", extractor, pictures, torch.arange(N) % 3, "t")
    with pytest.raises(DDError, match="fd-toy measures images of 6 x 6, teacher tiny draws 4 x 4: name the protocol"):
        evaluate.main("toy")
    assert not (project / "results").exists()


@pytest.mark.parametrize(("reference", "refused"), [(None, True), ("mine.safetensors", False)])
def test_a_reference_of_ones_own_sets_the_size(reference: str | None, refused: bool):
    stage = object.__new__(evaluate.Stage)
    stage.name, stage.protocol = "wide", protocol("dd")  # 256 x 256, as ImageNet's reference
    stage.settings = SimpleNamespace(reference=reference)
    stage.evaluation = SimpleNamespace(extractor=SimpleNamespace(image_size=None), reference=None)
    stage.teacher_info = SimpleNamespace(name="janus", image_size=384, classes=())
    if refused:
        with pytest.raises(DDError, match="dd measures images of 256 x 256, teacher janus draws 384 x 384"):
            stage._check_images()
    else:
        stage._check_images()


def test_the_revision_says_when_code_differs_from_it(tmp_path: Path):
    assert revision(tmp_path, "*.yaml") is None
    (tmp_path / "params.yaml").write_text("a: 1")
    (tmp_path / "notes.txt").write_text("")
    who = ("-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false")
    for command in (("init", "-q"), ("add", "."), ("commit", "-qm", "first")):
        subprocess.run(["git", *who, *command], cwd=tmp_path, check=True, capture_output=True)
    commit = revision(tmp_path, "*.yaml")
    assert len(commit) == 40
    (tmp_path / "notes.txt").write_text("more")
    assert revision(tmp_path, "*.yaml") == commit
    (tmp_path / "params.yaml").write_text("a: 2")
    assert revision(tmp_path, "*.yaml") == f"{commit}-dirty"


def test_all_samplers_share_noise_and_classes(project: Path):
    image_sampler, _ = open_image_sampler("toy", project)
    teacher, involved = (
        next(s for s in config.load_experiment("toy").evaluate.samplers if s.name == name)
        for name in ("teacher", "dd+teacher")
    )
    indices = torch.tensor([5, 0, 7])
    codes = image_sampler.codes(teacher, indices)
    assert torch.equal(codes[1:2], image_sampler.codes(teacher, torch.tensor([0])))  # the batch does not matter
    whole = config.TeacherInvolvedSampler(name="dd+teacher", steps=(0, 3), teacher_start=0)
    assert torch.equal(
        image_sampler.codes(whole, indices)[:, :3], codes[:, :3]
    )  # the teacher's own draws, from one noise
    assert image_sampler.evaluations(whole) == 4
    assert sampler_label(involved) == "dd+teacher 0,3 from 1"


def test_evaluations_are_counted_as_in_the_paper(project: Path):
    image_sampler, _ = open_image_sampler("toy", project)
    image_sampler.teacher = type("T", (), {"groups": range(10)})()
    steps = [
        image_sampler.evaluations(config.TeacherInvolvedSampler(name="dd+teacher", steps=(0, 5), teacher_start=start))
        for start in (4, 3, 0)
    ]
    assert steps == [3, 4, 6]  # VAR-DD-d16's published rows


def test_export_writes_what_the_official_evaluator_reads(project: Path):
    said = export("toy", "dd 0,2", 50, project / "out" / "s.npz", project / "png")
    assert said == f"wrote {project / 'out' / 's.npz'}: 50 images of dd 0,2, and as PNGs in {project / 'png'}"
    array = np.load(project / "out" / "s.npz")["arr_0"]
    assert array.shape == (50, SIZE, SIZE, 3)
    assert len(image_files(project / "png")) == 50
    with pytest.raises(DDError, match="toy has no sampler 'real'; there are dd 0, dd 0,2, teacher"):
        export("toy", "real", 5, project / "x.npz")
    with pytest.raises(DDError, match=r"a file that ends in \.npz, got s\.zip"):
        export("toy", "teacher", 5, project / "s.zip")
