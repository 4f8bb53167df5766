"""Students that ship: what an experiment's training, short or long, is entered as."""

import shutil

import pytest

from dd.checkpoints import zoo
from dd.checkpoints.students import load_student, read_student_info
from dd.distillation import stage
from dd.models.registry import build_student
from tests.helpers.tiny import write_project
from zoo import register


@pytest.mark.parametrize("trained", ["toy", "toy-long"])
def test_the_long_training_ships_under_the_experiments_name(tmp_path, monkeypatch, trained):
    monkeypatch.setenv("DD_ROOT", str(tmp_path))
    monkeypatch.setattr(register, "HERE", tmp_path / "zoo")
    write_project(tmp_path, steps=2, evaluate_every=2)
    stage.main("toy")
    if trained != "toy":
        shutil.move(tmp_path / "models" / "toy", tmp_path / "models" / trained)
    assert register.register_student(trained) == ["toy-dd"]
    entry, made = zoo.entry("toy-dd", "student"), read_student_info(tmp_path / "models" / trained)
    assert entry.file.path == "toy/student.safetensors"
    assert entry.source == f"`dvc repro distill@{trained}`"
    assert entry.provenance == made.provenance
    assert load_student("toy-dd").state_dict().keys() == build_student(made.family, made.config).state_dict().keys()
