"""A model as a folder: the same images bit for bit, a card that the hub takes, and every wrong folder in one line."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

import dd
from dd.cli.main import app
from dd.errors import DDError
from dd.models.base import Filters
from dd.publish.export import export
from tests.helpers.report_rows import rows
from tests.helpers.tiny_models import KINDS, conditions, tiny_encoder, tiny_model
from tests.helpers.toy_project import make_project

__all__ = ["tiny_encoder"]


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("DD_ROOT", str(tmp_path))
    make_project(tmp_path)
    return tmp_path


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_gives_the_same_images(tmp_path, request, kind):
    request.getfixturevalue("tiny_encoder")
    model, folder = tiny_model(kind), tmp_path / "out"
    export(model, folder, teacher=True)
    read = dd.load(str(folder), "cpu")
    for steps in (1, 2, "teacher"):
        before = model.sample(**conditions(kind), n=5, steps=steps, seed=3)
        assert np.array_equal(read.sample(**conditions(kind), n=5, steps=steps, seed=3), before)
        assert before.std() > 1
    assert (read.classes, read.timesteps, read.filters, read.solver, read.text_encoder) == (
        model.classes,
        model.timesteps,
        model.filters,
        model.solver,
        model.text_encoder,
    )
    assert read.exported().settings.teacher == "tiny"


def test_without_its_teacher_a_model_draws_by_itself(tmp_path):
    model = tiny_model("llamagen")
    export(model, tmp_path / "out")
    assert not (tmp_path / "out" / "teacher").exists()
    read = dd.load(str(tmp_path / "out"), "cpu")
    assert np.array_equal(read.sample("hat", steps=2), model.sample("hat", steps=2))
    with pytest.raises(DDError, match=r"exported without its teacher tiny: export it again with --teacher"):
        read.sample("hat", steps="teacher")
    with pytest.raises(DDError, match=r"exported without its teacher tiny"):
        read.teacher.score(None, None, Filters())
    with pytest.raises(DDError, match=r"toy came without its teacher; export it from the experiment"):
        export(read, tmp_path / "again", teacher=True)
    export(read, tmp_path / "again")
    assert np.array_equal(dd.load(str(tmp_path / "again"), "cpu").sample("hat"), model.sample("hat"))


def test_an_older_export_is_replaced_and_other_folders_are_not(tmp_path):
    model, folder = tiny_model("llamagen"), tmp_path / "out"
    export(model, folder, teacher=True)
    export(model, folder)
    assert not (folder / "teacher" / "config.json").exists()
    dd.load(str(folder), "cpu")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(DDError, match=r"expected a new or empty folder, .*mine holds other files; name another one"):
        export(model, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]
    with pytest.raises(DDError, match=r"expected a folder, .*notes.txt is a file; name another place"):
        export(model, tmp_path / "mine" / "notes.txt")


def test_nothing_is_exported_before_it_is_distilled():
    with pytest.raises(DDError, match=r"toy: there is no distilled student yet \(dvc repro distill@toy\)"):
        dd.load("toy").exported()


# ----------------------------------------------------------------------------------------------------------- the card


def test_results_are_those_of_the_very_student(project, tmp_path, caplog):
    from dd.checkpoints.teachers import tensors_hash
    from dd.publish.export import results

    model = tiny_model("llamagen")
    file = project / "results" / "toy" / "rows.json"
    file.parent.mkdir(parents=True)
    assert results(model) == []
    file.write_text(json.dumps({"rows": rows(student_sha256="0" * 64)}))
    assert results(model) == []
    assert "were measured on this student: the card goes without results" in caplog.text
    from dataclasses import asdict

    own = tensors_hash(model.student.state_dict(), "llamagen", asdict(model.student.options))
    file.write_text(json.dumps({"rows": rows(student_sha256=own)}))
    assert [row["label"] for row in results(model)] == ["teacher", "dd 0"]
    longer = project / "results" / "longer" / "rows.json"  # a training of another name, whose student ships
    longer.parent.mkdir()
    file.replace(longer)
    file.write_text(json.dumps({"rows": rows(student_sha256="0" * 64)}))
    assert [row["label"] for row in results(model)] == ["teacher", "dd 0"]


# ------------------------------------------------------------------------------------------------------- the command


def test_the_command_writes_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("dd.api.load", lambda name: tiny_model("var"))
    result = CliRunner().invoke(app, ["export", "toy", str(tmp_path / "out"), "--teacher"])
    assert result.exit_code == 0, result.output
    assert result.output.startswith(f"wrote {tmp_path / 'out'}: 11 files, ")
    names = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert {"model_index.json", "README.md", "samples.png", "teacher/config.json"} <= names
