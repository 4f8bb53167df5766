"""Mistakes and refusals as a user meets them in the stages' commands: one line, not 0, nothing half-written."""

import errno
import os
import re
import runpy
import sys
from pathlib import Path

import pytest
import torch
import yaml

from dd.checkpoints import teachers
from dd.checkpoints.safe import save_tensors
from dd.checkpoints.teachers import read_info
from dd.system import files
from tests.helpers.paths import tree
from tests.helpers.tiny import write_project

STAGES = ("teacher", "trajectories", "distill", "evaluate")


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("DD_ROOT", str(tmp_path))
    write_project(tmp_path)
    return tmp_path


def change(root: Path, section: str, **values) -> None:
    path = root / "params.yaml"
    data = yaml.safe_load(path.read_text())
    data["experiments"]["toy"][section].update(values)
    path.write_text(yaml.safe_dump(data))


def refused(monkeypatch: pytest.MonkeyPatch, stage: str, experiment: str = "toy") -> str:
    """The one line that `python -m stages.STAGE EXPERIMENT` ends with."""
    monkeypatch.setattr(sys, "argv", [f"stages/{stage}.py", experiment])
    monkeypatch.delitem(sys.modules, f"stages.{stage}", raising=False)
    with pytest.raises(SystemExit) as end:
        runpy.run_module(f"stages.{stage}", run_name="__main__")
    said = end.value.code
    assert isinstance(said, str)  # printed by Python, with status 1
    assert "\n" not in said
    return said


@pytest.mark.parametrize("stage", STAGES)
def test_an_unknown_experiment(project, monkeypatch, stage):
    before = tree(project)
    assert refused(monkeypatch, stage, "toi") == "error: no experiment 'toi' in params.yaml; did you mean toy?"
    assert tree(project) == before


@pytest.mark.parametrize(
    ("section", "values", "said"),
    [
        ("distill", {"stepz": 3}, "distill.stepz: unknown parameter, did you mean steps?"),
        ("trajectories", {"pairs": -4}, "trajectories.pairs: input should be greater than 0, got -4"),
        ("distill", {"timesteps": [0, -1]}, "distill: timesteps must be different and not negative, got [0, -1]"),
    ],
)
@pytest.mark.parametrize("stage", STAGES)
def test_wrong_parameters(project, monkeypatch, stage, section, values, said):
    change(project, section, **values)
    before = tree(project)
    assert refused(monkeypatch, stage) == f"error: params.yaml: experiments.toy.{said}"
    assert tree(project) == before


def test_a_foreign_safetensors_file(project, monkeypatch):
    foreign = project / "foreign.safetensors"
    save_tensors(foreign, {"conv.weight": torch.zeros(3, 3)})
    change(project, "teacher", path=str(foreign))
    before, kept = tree(project), read_info(project / "data" / "toy" / "teacher")
    said = refused(monkeypatch, "teacher")
    assert said.startswith(f"error: {foreign} does not fit 'tiny' (")
    assert "conv.weight not expected" in said
    assert said.endswith(
        "it fits no entry of the zoo; other sizes or classes: dd-cli zoo import NAME --family FAMILY --weights FILE"
    )
    assert read_info(project / "data" / "toy" / "teacher") == kept
    assert tree(project) - before <= {"work"}


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "no space left on the disk while writing .*transformer.safetensors: free some space"),
        (errno.EROFS, "no permission to write .*transformer.safetensors: make .* writable or choose another folder"),
    ],
)
def test_a_disk_that_refuses_the_second_file(project, monkeypatch, number, said):
    real = os.replace

    def replace(source, target):
        if str(target).endswith("transformer.safetensors"):
            raise OSError(number, os.strerror(number))
        real(source, target)

    before = tree(project)
    monkeypatch.setattr(files.os, "replace", replace)
    assert re.match(f"error: {said}", refused(monkeypatch, "teacher"))
    assert tree(project) - before <= {"work"}
    teachers.load_teacher_dir(project / "data" / "toy" / "teacher")  # what stood there is whole
