"""DD_LAUNCH: what it gives to accelerate, when it is followed, and two processes through `dvc repro`."""

import argparse
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from dd.distillation import stage as distill
from dd.errors import DDError
from dd.evaluation import stage as evaluate_stage
from dd.system import launch
from tests.helpers.paths import ROOT
from tests.helpers.tiny import write_project

OUTS = ["models/toy/student.safetensors", "models/toy/student.json", "models/toy/baseline"]


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    for name in ("DD_LAUNCH", "LOCAL_RANK", "DD_DASK_WORKERS", "DD_SHARD_ENGINE"):
        monkeypatch.delenv(name, raising=False)


def test_a_number_or_options(monkeypatch):
    for text, wanted in {
        "": [],
        "1": [],
        " 8 ": [*launch._PLAIN, "8"],
        "--config_file 'my nodes.yaml'": ["--config_file", "my nodes.yaml"],
        "--main-process-port=29501 --cpu": ["--main-process-port=29501", "--cpu"],
        "--multi_gpu --num_processes 2": ["--main_process_port", "0", "--multi_gpu", "--num_processes", "2"],
    }.items():
        monkeypatch.setenv("DD_LAUNCH", text)
        assert launch.options() == wanted
    for text in ("eight", "0", "-", "'8"):
        monkeypatch.setenv("DD_LAUNCH", text)
        if text != "-":
            with pytest.raises(DDError, match=r"DD_LAUNCH: expected a number of processes"):
                launch.options()


def started(monkeypatch, **given) -> list[str] | None:
    """The command that a stage turns into; None where it stays what it is."""
    found: list[list[str]] = []
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__spec__=SimpleNamespace(name="stages.distill")))
    monkeypatch.setattr(launch.os, "execv", lambda _, command: found.append(command))
    monkeypatch.setattr(sys, "argv", ["stages/distill.py", "toy"])
    launch.relaunch(argparse.Namespace(name="toy", **given))
    return found[0] if found else None


def test_two_launches_at_once_do_not_meet(monkeypatch):
    """accelerate's own port, 29500, is one for the whole machine."""
    monkeypatch.setenv("DD_LAUNCH", "--multi_gpu --num_processes 2")
    launcher = [sys.executable, "-m", "accelerate.commands.launch", *launch.options(), "-m", "tests.helpers.rendezvous"]
    mine = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    both = [subprocess.Popen(launcher, env=mine, cwd=ROOT, **pipes) for _ in range(2)]
    for child in both:
        said, _ = child.communicate(timeout=300)
        assert child.returncode == 0, said
        assert said.count("met 2\n") == 2, said


def test_it_is_followed_once_and_not_beside_dask(monkeypatch):
    assert started(monkeypatch) is None
    monkeypatch.setenv("DD_LAUNCH", "2")
    command = started(monkeypatch, dask=None, dask_workers=0)
    assert command is not None
    assert command[1:3] == ["-m", "accelerate.commands.launch"]
    assert command[-5:] == ["--num_processes", "2", "-m", "stages.distill", "toy"]
    assert started(monkeypatch, dask_workers=4) is None
    monkeypatch.setenv("DD_DASK_WORKERS", "4")
    assert started(monkeypatch) is None
    monkeypatch.delenv("DD_DASK_WORKERS")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert started(monkeypatch) is None


def run(root: Path, *command: str, **environment: str) -> str:
    """Standard error of a command in a project."""
    mine = {**os.environ, "DD_ROOT": str(root), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run([sys.executable, "-m", *command], env=mine, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr + done.stdout


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project whose dvc.yaml holds the stage distill."""
    monkeypatch.setenv("DD_ROOT", str(tmp_path))
    monkeypatch.delenv("DVC_STAGE", raising=False)
    write_project(tmp_path, batch=4, steps=6)
    stage = {"deps": ["data/toy/trajectories"], "params": ["experiments.toy.distill"], "outs": OUTS}
    write_dvc(tmp_path, distill=stage)
    run(tmp_path, "dvc", "init", "--no-scm", "-q")
    return tmp_path


def write_dvc(root: Path, **stages: dict[str, object]) -> None:
    """A dvc.yaml whose stages have the commands of the real one."""
    real = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    for name, stage in stages.items():
        stage["cmd"] = real[name]["do"]["cmd"].replace("python", sys.executable).replace("${key}", "toy")
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))


def test_two_processes_through_dvc_repro(project):
    """The setting is no dependency, and what two processes made stays."""
    run(project, "dvc", "repro", DD_LAUNCH="2")
    about = json.loads((project / "models/toy/student.json").read_text())
    assert about["provenance"]["processes"] == 2
    made = (project / OUTS[0]).read_bytes()
    assert not [path for path in (project / "work").iterdir() if path.name != "rates"]
    assert "Data and pipelines are up to date" in run(project, "dvc", "repro")
    assert (project / OUTS[0]).read_bytes() == made


@pytest.mark.slow
def test_an_evaluation_by_two_processes_through_dvc_repro(project, monkeypatch):
    """The same rows as by one process, times apart."""
    path = project / "params.yaml"
    data = yaml.safe_load(path.read_text())
    samplers = [{"name": "teacher"}, {"name": "dd", "steps": [0]}]
    evaluate = {"protocol": "fd-toy", "images": 10, "batch": 3, "allow_missing": ["classifier", "reference"]}
    data["experiments"]["toy"]["evaluate"] |= evaluate | {"samplers": samplers}
    path.write_text(yaml.safe_dump(data))
    monkeypatch.setenv("DVC_STAGE", "any")
    distill.main("toy")
    monkeypatch.delenv("DVC_STAGE")
    stage = {"deps": ["models/toy"], "params": ["experiments.toy.evaluate"], "outs": ["results/toy"]}
    write_dvc(project, evaluate=stage)
    run(project, "dvc", "repro", DD_LAUNCH="2")
    two = json.loads((project / "results/toy/rows.json").read_text())["rows"]
    images = (project / "results/toy/samples.png").read_bytes()
    monkeypatch.setenv("DVC_STAGE", "any")
    evaluate_stage.main("toy")
    one = json.loads((project / "results/toy/rows.json").read_text())["rows"]
    assert (project / "results/toy/samples.png").read_bytes() == images
    for row, other in zip(two, one, strict=True):
        assert {key: row[key] for key in ("sampler", "images", "value", "seed")} == {
            key: other[key] for key in ("sampler", "images", "value", "seed")
        }
        assert row["images"] == 10


def test_a_student_made_by_hand_is_taken_over_by_dvc(project, caplog):
    """DVC removes outputs that it did not make; the work folder still has them."""
    with caplog.at_level(logging.INFO, "dd"):
        distill.main("toy")
    assert "is kept: dvc repro, which removes what it did not make, takes the student from there" in caplog.text
    by_hand = (project / OUTS[0]).read_bytes()
    assert "distill: continuing from step 6" in run(project, "dvc", "repro")
    assert (project / OUTS[0]).read_bytes() == by_hand
    assert not [path for path in (project / "work").iterdir() if path.name != "rates"]
