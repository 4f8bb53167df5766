"""Stage distill: what it writes, SIGKILL, two processes, and inputs that do not belong together."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from dd import config
from dd.checkpoints import zoo
from dd.checkpoints.students import load_student_dir
from dd.checkpoints.teachers import read_info
from dd.distillation import stage
from dd.distillation.batches import divide
from dd.errors import DDError
from dd.metrics.classifier import ClassifierConfig, SmallClassifier
from dd.trajectories import trajectory
from dd.trajectories.reader import open_shards
from tests.helpers.paths import ROOT as REPOSITORY
from tests.helpers.tiny import write_params, write_project, write_shards

MODULE = ["-m", "stages.distill", "toy"]
# Without --multi_gpu, accelerate starts one process on machines without accelerators, whatever --num_processes says.
LAUNCH = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0"]
BASELINE = {"steps": 4, "timesteps": (0, 3)}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DD_ROOT", str(tmp_path))
    write_project(tmp_path)
    return tmp_path


def distill(root: Path, command: list[str] | None = None) -> subprocess.Popen[str]:
    """The stage in a process of its own."""
    environment = {**os.environ, "DD_ROOT": str(root), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(
        [sys.executable, *(command or []), *MODULE], env=environment, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("family", ["llamagen", "var"])
def test_what_it_writes(tmp_path, monkeypatch, family):
    monkeypatch.setenv("DD_ROOT", str(tmp_path))
    monkeypatch.setenv("DVC_STAGE", "distill@toy")
    write_project(tmp_path, family, baseline={"steps": 2, "timesteps": (0, 2)}, timesteps=(0, 1))
    done = stage.main("toy")
    assert done.startswith('wrote models/toy: 12 steps, held-out token accuracy {"t0": ')
    folder = tmp_path / "models" / "toy"
    assert {path.name for path in folder.iterdir()} == {"student.safetensors", "student.json", "baseline", "curves"}
    about = json.loads((folder / "student.json").read_text())
    assert about["teacher_sha256"] == read_info(tmp_path / "data" / "toy" / "teacher").sha256
    assert about["provenance"]["steps"] == 12
    assert about["provenance"]["settings"]["timesteps"] == [0, 1]
    assert json.loads((folder / "baseline" / "student.json").read_text())["provenance"] == {"steps": 2, "noise": False}
    for student in (folder, folder / "baseline"):
        load_student_dir(student, tmp_path / "data" / "toy" / "teacher")
    curves = folder / "curves" / "plots" / "metrics"
    table = (curves / "accuracy" / "t1.tsv").read_text().split()
    assert table[:2] == ["step", "t1"]
    assert table[2::2] == ["0", "4", "8", "12"]
    assert (curves / "loss" / "cross_entropy.tsv").is_file()
    assert not [path for path in (tmp_path / "work").iterdir() if path.name != "rates"]


def test_perceptual_loss_with_an_extractor_of_the_zoo(project):
    file = project / "zoo" / "eye" / "extractor.safetensors"
    SmallClassifier(ClassifierConfig(3, 6, (4, 5), (0, 0))).save(file)
    zoo.register("eye", "extractor", file, licence="MIT", source="made in a test")
    losses = {"cross_entropy": 1.0, "regression": 1.0, "perceptual": 1.0, "perceptual_network": "eye"}
    write_params(project, losses=losses, steps=3)
    stage.main("toy")
    curves = project / "models" / "toy" / "curves" / "plots" / "metrics" / "loss"
    assert {path.stem for path in curves.iterdir()} == {"cross_entropy", "regression", "perceptual"}


def test_pictures_of_another_guidance_are_drawn_for_the_pairs_own_conditions(project, monkeypatch):
    file = project / "zoo" / "eye" / "extractor.safetensors"
    SmallClassifier(ClassifierConfig(3, 6, (4, 5), (0, 0))).save(file)
    zoo.register("eye", "extractor", file, licence="MIT", source="made in a test")
    drawn = []

    def sample(teacher, condition, filters, generator):
        drawn.append((condition, filters))
        return trajectory.sample(teacher, condition, filters, generator)

    monkeypatch.setattr(stage, "sample", sample)
    second = {"steps": 2, "warmup": 1, "frechet": 0.3, "frechet_memory": 4, "pictures": 6}
    for guidance in (None, 1.75):
        write_params(project, losses={"perceptual_network": "eye"}, steps=1, second={**second, "guidance": guidance})
        assert not drawn
        stage.main("toy")
    rows = open_shards(project / "data" / "toy" / "trajectories").to_tensors("train", 6)
    assert torch.equal(torch.cat([condition for condition, _ in drawn]), rows.conditions)
    assert {filters.guidance for _, filters in drawn} == {1.75}


def test_sigkill_and_resume_give_the_same_weights(tmp_path, monkeypatch):
    """The first process is killed at its first checkpoint; this one goes on from there."""
    students = []
    for root in (tmp_path / "a", tmp_path / "b"):
        monkeypatch.setenv("DD_ROOT", str(root))
        write_project(root, steps=80, muon_lr=0.01, baseline=BASELINE, evaluate_every=80)
        if root.name == "b":
            killed = distill(root)
            while not (found := list(root.glob("work/*/checkpoint/run.json"))) and killed.poll() is None:
                time.sleep(0.005)
            killed.send_signal(signal.SIGKILL)
            killed.wait()
            assert 3 <= json.loads(found[0].read_text())["step"] < 80
            assert not (root / "models").exists()
        stage.main("toy")
        students.append(root / "models" / "toy")
    for file in ("student.safetensors", "baseline/student.safetensors", "curves/plots/metrics/accuracy/t2.tsv"):
        assert (students[0] / file).read_bytes() == (students[1] / file).read_bytes(), file


def difference(one: Path, other: Path, inputs: int = 8) -> float:
    """Of the logits of two projects' students."""
    found = []
    for root in (one, other):
        student = load_student_dir(root / "models" / "toy", root / "data" / "toy" / "teacher")
        x = torch.randn(inputs, 9, 4, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            found.append(student(x, torch.zeros(inputs, dtype=torch.int64), torch.arange(inputs) % 3).logits)
    return (found[0] - found[1]).abs().max().item()


def test_any_number_of_processes_makes_the_same_update(tmp_path, monkeypatch):
    """Eight pairs on one, two and four processes, at most two at once: the gradient must be that of all of them."""
    for world, batch, total in ((1, 8, 8), (2, 2, 8), (4, 2, 8), (0, 4, 4)):
        root = tmp_path / str(world)
        monkeypatch.setenv("DD_ROOT", str(root))
        write_project(root, batch=batch, global_batch=total)
        if world > 1:
            launched = distill(root, [*LAUNCH[:4], str(world), *LAUNCH[5:]])
            _, errors = launched.communicate(timeout=500)
            assert launched.returncode == 0, errors
            assert json.loads((root / "models/toy/student.json").read_text())["provenance"]["processes"] == world
            assert errors.count("wrote models/toy") == 1
        else:
            stage.main("toy")
        curve = root / "models/toy/curves/plots/metrics/accuracy/t0.tsv"
        assert len(curve.read_text().splitlines()) == 5
    fewer = difference(tmp_path / "0", tmp_path / "1")
    for world in (2, 4):
        assert difference(tmp_path / str(world), tmp_path / "1") < 0.02 * fewer


def test_a_checkpoint_of_four_processes_goes_on_in_two(tmp_path, monkeypatch):
    """Four processes are killed at a checkpoint, two go on, and one undisturbed process ends with the same student."""
    for name in ("killed", "one"):
        root = tmp_path / name
        monkeypatch.setenv("DD_ROOT", str(root))
        write_project(root, steps=40, batch=2, global_batch=8, checkpoint_every=10)
        if name == "one":
            stage.main("toy")
            continue
        four = distill(root, [*LAUNCH[:4], "4", *LAUNCH[5:]])
        while not (found := list(root.glob("work/*/checkpoint/run.json"))) and four.poll() is None:
            time.sleep(0.01)
        four.send_signal(signal.SIGTERM)
        four.communicate(timeout=200)
        assert 10 <= json.loads(found[0].read_text())["step"] < 40
        two = distill(root, LAUNCH)
        _, errors = two.communicate(timeout=300)
        assert two.returncode == 0, errors
        assert "distill: continuing from step" in errors
    change = (
        load_student_dir(root / "models" / "toy", root / "data" / "toy" / "teacher")
        for root in (tmp_path / "killed", tmp_path / "one")
    )
    largest = max(p.abs().max().item() for p in next(change).parameters())
    assert difference(tmp_path / "killed", tmp_path / "one") < 1e-3 * largest


def test_a_batch_that_does_not_divide(project, monkeypatch):
    write_params(project, batch=64, global_batch=509)
    with pytest.raises(
        DDError, match="global_batch: its 509 pairs in each process divide into parts of 1 only, where a"
    ):
        stage.main("toy")
    with pytest.raises(DDError) as error:
        divide(512, 64, 3, 2)
    assert str(error.value) == (
        "global_batch: expected a multiple of the 3 processes, got 512; start 1, 2, 4, or change it"
    )
    write_params(project, batch="auto")
    with pytest.raises(DDError, match="batch: auto needs global_batch, the pairs of one update"):
        stage.main("toy")


def test_batch_auto_without_an_accelerator(project):
    write_params(project, batch="auto", global_batch=8, steps=2)
    stage.main("toy")
    settings = json.loads((project / "models/toy/student.json").read_text())["provenance"]["settings"]
    assert (settings["batch"], settings["global_batch"]) == (8, 8)


def test_the_baseline_learns_by_cross_entropy_alone(project, monkeypatch):
    """Its samplers read nothing but its logits."""
    seen = []
    real = stage.train
    monkeypatch.setattr(stage, "train", lambda *args: seen.append(real(*args)) or seen[-1])
    write_params(project, losses={"regression": 1.0, "own_prefix": 0.5}, baseline=BASELINE, steps=2)
    stage.main("toy")
    losses = [{name for name in outcome.curves if name.startswith("loss/")} for outcome in seen]
    assert losses == [{"loss/cross_entropy", "loss/regression", "loss/own_prefix"}, {"loss/cross_entropy"}]


def refused(root: Path, match: str) -> None:
    """The stage stops with this message, before a teacher is loaded or anything written."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "load_teacher_dir", lambda *_: pytest.fail("loaded a teacher"))
        with pytest.raises(DDError, match=match) as caught:
            stage.main("toy")
    assert "\n" not in str(caught.value)
    assert not (root / "models").exists()
    assert not (root / "work").exists()


def test_bad_inputs_are_refused_before_anything_loads(project):
    write_params(project, timesteps=(0, 9))
    refused(
        project, "timesteps: expected points below the teacher's 9 groups, got 9; each is a number of finished groups"
    )
    write_params(project, baseline={"steps": 2, "timesteps": (0, 12)})
    refused(project, "timesteps: expected points below the teacher's 9 groups, got 12")
    write_params(project, losses={"perceptul": 1.0})
    refused(project, r"losses\.perceptul: unknown parameter, did you mean perceptual\?")
    write_params(project, losses={"perceptual": 1.0, "perceptual_network": "nobody"})
    refused(project, "nobody")
    write_params(project, losses={"cross_entropy": 0.0})
    refused(project, "at least one loss weight must be above 0")
    write_params(project, teacher={"guidance": 3.0})
    refused(
        project, r"was drawn with Filters\(guidance=1.0, .*params.yaml says Filters\(guidance=3.0.*stage 'trajectories'"
    )


def test_a_repository_without_a_commit_is_refused(project):
    """DVCLive would end in a traceback after the training."""
    subprocess.run(["git", "init", "-q"], cwd=project, check=True)
    refused(project, r"expected a commit in the git repository of .*, found none: `git add --all && git commit")


def test_a_tracker_that_is_not_installed(project, monkeypatch):
    write_params(project, trackers=("dvclive", "wandb"))
    monkeypatch.setattr(stage.importlib.util, "find_spec", lambda name: None if name == "wandb" else name)
    refused(project, r"distill.trackers: wandb is not installed: pip install wandb, or leave it out of the list")


def test_lpips_that_is_not_installed(project, monkeypatch):
    write_params(project, losses={"perceptual": 1.0})
    monkeypatch.setattr(stage.importlib.util, "find_spec", lambda _: None)
    refused(project, r"lpips is not installed; pip install .*\[perceptual\]', name an extractor of the zoo")


def test_trajectories_that_are_not_there_or_of_another_teacher(project):
    folder = project / "data" / "toy" / "trajectories"
    folder.rename(folder.with_name("away"))
    refused(project, "expected shards in .*manifest.json is missing: run the stage 'trajectories'")
    folder.with_name("away").rename(folder)
    about = project / "data" / "toy" / "teacher" / "teacher.json"
    record = json.loads(about.read_text())
    about.write_text(json.dumps({**record, "sha256": "0" * 64}))
    refused(project, r"was made from another teacher: expected 000000000000\.\.\., got \w{12}\.\.\.: run the stage")
    about.unlink()
    refused(project, "teacher.json is missing: run its stage 'teacher'")


def test_settings_have_their_own_checkpoints(project, monkeypatch):
    """A run that is stopped and started with other settings starts anew; both folders know their run."""
    monkeypatch.setattr(stage, "save_student_dir", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    for lr in (0.001, 0.002):
        write_params(project, lr=lr)
        with pytest.raises(KeyboardInterrupt):
            stage.main("toy")
    records = [json.loads(path.read_text()) for path in project.glob("work/*/checkpoint/run.json")]
    assert len({record["identity"] for record in records}) == 2


def test_one_process_at_a_time(project):
    experiment = config.load_experiment("toy")
    manifest = project / "data" / "toy" / "trajectories" / "manifest.json"
    name = config.fingerprint("distill", stage.__version__, "toy", experiment.distill.recipe(), manifest, None)
    (project / "work" / name).mkdir(parents=True)
    with FileLock(project / "work" / name / "lock"), pytest.raises(DDError, match="another process distills this"):
        stage.main("toy")


def test_no_held_out_pairs(project):
    write_params(project, steps=2)
    file = project / "params.yaml"
    file.write_text(file.read_text().replace("held_out: 8", "held_out: 0"))
    for path in (project / "data" / "toy" / "trajectories").iterdir():
        path.unlink()
    write_shards(project)
    assert stage.main("toy") == "wrote models/toy: 2 steps, held-out token accuracy {}"
